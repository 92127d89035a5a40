"""Videos: what is written, and what is said of those that cannot be."""

import json
import os

import cv2
import numpy as np
import pytest
from tiny_run import fails, run_tool

from illama_seg.apis import find_images, load_segmentor, predict, segment_files, video
from illama_seg.apis.infer import _Painter, legend, overlay
from illama_seg.apis.video import rewrite_video

RATE, SIZE = 12.5, (48, 64)


def write(path, count=10, sizes=(SIZE,), rate=RATE, codec='MJPG'):
    """Frames that become brighter, in vertical stripes."""
    height, width = sizes[0]
    code = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), code, rate, (width, height))
    assert writer.isOpened()
    for number in range(count):
        frame = np.full((height, width, 3), 20 * (number % 10) + 20, np.uint8)
        frame[:, : width // 2] //= 2
        writer.write(frame)
    writer.release()
    return path


def read(path):
    reader, frames = cv2.VideoCapture(str(path)), []
    while (found := reader.read())[0]:
        frames.append(found[1])
    rate = reader.get(cv2.CAP_PROP_FPS)
    reader.release()
    return frames, rate


def same(frame):
    return frame


@pytest.fixture
def clip(tmp_path):
    return write(tmp_path / 'clip.avi')


@pytest.mark.parametrize('name', ['out/new.mp4', 'new.avi', 'NEW.MP4'])
def test_a_rewritten_video_keeps_frames_rate_and_size(name, clip, tmp_path):
    facts = rewrite_video(clip, tmp_path / name, lambda frame: 255 - frame)
    frames, rate = read(tmp_path / name)
    assert len(frames) == facts.frames == 10 and rate == facts.rate == RATE
    assert frames[0].shape[:2] == facts.size == SIZE
    for number, frame in enumerate(frames):
        bright = 255 - (20 * number + 20)
        assert frame[:, 40:].mean() == pytest.approx(bright, abs=6), number
    assert str(facts).startswith('10 frames of 64x48, 12.5 a second (')
    assert str(facts).endswith('), without sound')
    assert len(list((tmp_path / name).parent.glob('*'))) <= 2  # no part is left


def test_frames_are_read_one_by_one(clip, tmp_path, monkeypatch):
    log = []
    real = video.video_frames

    def frames(*arguments):
        for frame in real(*arguments):
            log.append('read')
            yield frame

    monkeypatch.setattr(video, 'video_frames', frames)
    rewrite_video(clip, tmp_path / 'new.mp4', lambda frame: log.append('made') or frame)
    assert log == ['read', 'made'] * 10


def test_an_odd_side_loses_its_last_pixel(tmp_path, monkeypatch):
    odd = [np.full((47, 63, 3), 90, np.uint8)] * 3
    monkeypatch.setattr(video, 'video_frames', lambda *_: iter(odd))
    facts = rewrite_video(write(tmp_path / 'a.avi', 3), tmp_path / 'b.mp4', same)
    assert facts.size == (46, 62)
    assert [frame.shape for frame in read(tmp_path / 'b.mp4')[0]] == [(46, 62, 3)] * 3


def test_the_ticks_of_a_clock_are_no_frame_rate(clip, tmp_path, monkeypatch):
    real = cv2.VideoCapture

    class Ticking:
        def __init__(self, path):
            self.reader = real(path)

        def get(self, key):
            return 9e4 if key == cv2.CAP_PROP_FPS else self.reader.get(key)

        def __getattr__(self, name):
            return getattr(self.reader, name)

    monkeypatch.setattr(cv2, 'VideoCapture', Ticking)
    assert rewrite_video(clip, tmp_path / 'new.mp4', same).rate == 25


@pytest.mark.parametrize('content', [b'', b'junk' * 999, None])
@pytest.mark.parametrize('suffix', ['.mp4', '.avi', '.mkv'])
def test_what_is_no_whole_video_is_named_with_a_way_out(suffix, content, tmp_path):
    path = tmp_path / f'clip{suffix}'
    if content is None:  # what a full disk leaves
        codec = 'MJPG' if suffix == '.avi' else 'mp4v'
        whole = write(path, codec=codec).read_bytes()
        content = whole[: len(whole) // 9]
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        rewrite_video(path, tmp_path / 'new.mp4', same)
    assert f'{path} (' in str(error.value) or 'no frame' in str(error.value)
    assert 'damaged' in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_video_that_ends_early_is_kept_under_another_name(tmp_path):
    path = write(tmp_path / 'clip.mkv', 60, codec='mp4v')
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r'clip\.mkv ends after \d+ of 60') as error:
        rewrite_video(path, tmp_path / 'out' / 'clip.mp4', same)
    (kept,) = (tmp_path / 'out').iterdir()
    assert str(kept) in str(error.value)
    count = len(read(kept)[0])
    assert 0 < count < 60 and kept.name == f'clip_first_{count}_frames.mp4'


def test_a_header_that_is_one_frame_off_is_no_early_end(clip, tmp_path, monkeypatch):
    real = video.video_frames
    monkeypatch.setattr(video, 'video_frames', lambda *a: list(real(*a))[:-1])
    assert rewrite_video(clip, tmp_path / 'new.mp4', same).frames == 9


def test_a_frame_of_another_size_is_named_and_nothing_is_left(clip, tmp_path):
    class Reader:
        sizes = iter([(48, 64), (48, 64), (64, 48)])

        def read(self):
            size = next(self.sizes, None)
            return size is not None, size and np.zeros((*size, 3), np.uint8)

    with pytest.raises(ValueError, match=r'a frame of 48x64 follows frames of 64x48'):
        list(video.video_frames(Reader(), clip))


def test_a_frame_that_cannot_be_changed_leaves_nothing(clip, tmp_path):
    def change(frame):
        raise ValueError('bad frame')

    with pytest.raises(ValueError, match='bad frame'):
        rewrite_video(clip, tmp_path / 'out' / 'new.mp4', change)
    assert not list((tmp_path / 'out').iterdir())


def test_a_codec_that_is_not_there_is_passed_over_or_named(clip, tmp_path, monkeypatch):
    monkeypatch.setitem(video.CODECS, '.mp4', ('none', 'mp4v'))
    assert rewrite_video(clip, tmp_path / 'new.mp4', same).codec == 'mp4v'
    monkeypatch.setitem(video.CODECS, '.mp4', ('none', 'nope'))
    with pytest.raises(ValueError, match=r'no encoder of none or nope .* in \.avi'):
        rewrite_video(clip, tmp_path / 'other.mp4', same)
    assert not (tmp_path / 'other.mp4').exists()


def test_frames_that_do_not_reach_the_disk_are_missed(clip, tmp_path, monkeypatch):
    real = cv2.VideoWriter

    class Full:
        fourcc, written = staticmethod(real.fourcc), 0

        def __init__(self, *arguments):
            self.writer = real(*arguments)

        def write(self, frame):
            self.written += 1
            if self.written < 5:
                self.writer.write(frame)

        def __getattr__(self, name):
            return getattr(self.writer, name)

    monkeypatch.setattr(cv2, 'VideoWriter', Full)
    with pytest.raises(ValueError, match=r'only 4 of 10 frames .* is the disk full'):
        rewrite_video(clip, tmp_path / 'out' / 'new.mp4', same)
    assert not list((tmp_path / 'out').iterdir())


def test_a_video_is_never_written_over_itself(tmp_path):
    path = write(tmp_path / 'clip.mp4', codec='mp4v')
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r'clip\.mp4 is the video itself'):
        rewrite_video(path, path, same)
    os.link(path, tmp_path / 'other.mp4')
    with pytest.raises(ValueError, match='is the video itself'):
        rewrite_video(path, tmp_path / 'other.mp4', same)
    assert path.read_bytes() == before


# With a model


@pytest.fixture(scope='module')
def model(run):
    return load_segmentor(run.config, run.checkpoint)


def test_the_overlay_is_that_of_images_and_the_legend_stands_beside_it(
    model, clip, tmp_path
):
    shares, failures = segment_files(model, find_images([clip]), out=tmp_path / 'out')
    assert not failures
    assert json.loads((tmp_path / 'out' / 'summary.json').read_text()) == shares
    frames, _ = read(tmp_path / 'out' / 'overlay' / 'clip.mp4')
    meta, counts = model.dataset_meta, np.zeros(150, int)
    for frame, painted in zip(read(clip)[0], frames, strict=True):
        labels = predict(model, frame)
        counts += np.bincount(labels.ravel(), minlength=150)
        expected = overlay(frame, labels, meta['palette'])
        expected = expected.astype(int)
        # Compression changes a little, paint a lot.
        assert 3 * abs(painted - expected).mean() < abs(frame - expected).mean()
    best = int(counts.argmax())
    largest = meta['classes'][best]
    assert next(iter(shares['clip.avi'])) == largest
    share = counts[best] / counts.sum()
    assert shares['clip.avi'][largest] == pytest.approx(share, abs=1e-3)
    shown = np.argsort(-counts)[: np.count_nonzero(counts)]
    strip = legend(64, shown, meta['classes'], meta['palette'])
    drawn = cv2.imread(str(tmp_path / 'out' / 'overlay' / 'clip.png'))
    np.testing.assert_array_equal(drawn, strip)


def test_frames_reach_a_model_as_its_loader_reads_images(model, monkeypatch):
    frame = np.full((*SIZE, 3), (200, 100, 20), np.uint8)

    def loaded(**step):
        step = dict(type='LoadImageFromFile', **step)
        steps = [step, *model.cfg.test_pipeline[1:]]
        monkeypatch.setitem(model.cfg, 'test_pipeline', steps)
        return _Painter(model, 0.5, ())._as_loaded(frame)

    assert loaded()[0, 0].tolist() == [200, 100, 20]
    # Of a file tifffile keeps the order, red first.
    assert loaded(imdecode_backend='tifffile')[0, 0].tolist() == [20, 100, 200]
    grey = loaded(color_type='grayscale')
    expected = 0.114 * 200 + 0.587 * 100 + 0.299 * 20
    assert grey.shape == SIZE and grey[0, 0] == pytest.approx(expected, abs=1)


def test_a_folder_of_images_and_videos_and_bad_ones_is_segmented(
    run, clip, tmp_path, capsys
):
    folder = tmp_path / 'mixed'
    (folder / 'sub').mkdir(parents=True)
    clip.rename(folder / 'sub' / 'good.AVI')
    cv2.imwrite(str(folder / 'image.png'), np.full((*SIZE, 3), 90, np.uint8))
    (folder / 'empty.mp4').touch()
    out = tmp_path / 'out'
    message = fails('infer', run.config, run.checkpoint, folder, '--out', out)
    assert 'empty.mp4 (0 bytes) cannot be read' in message
    assert len(read(out / 'overlay' / 'sub' / 'good.mp4')[0]) == 10
    assert (out / 'overlay' / 'image.jpg').is_file()
    assert not (out / 'overlay' / 'empty.mp4').exists()
    printed = ''.join(capsys.readouterr())
    assert '1 images segmented' in printed
    assert 'sub/good.mp4: 10 frames of 64x48, 12.5 a second' in printed
    assert set(json.loads((out / 'summary.json').read_text())) == {
        'image.png',
        'sub/good.AVI',
    }


def test_one_video_can_be_written_to_a_file_of_any_name(run, clip, tmp_path):
    out = tmp_path / 'new' / 'painted.mp4'
    run_tool('infer', run.config, run.checkpoint, clip, '--out', out)
    assert len(read(out)[0]) == 10
    assert [file.name for file in out.parent.iterdir()] == ['painted.mp4']


@pytest.mark.parametrize(
    ('inputs', 'out', 'text'),
    [
        (['clip.avi'], 'x.mkv', 'expected a folder, or a file in .mp4 or .avi'),
        (['clip.avi', 'other.avi'], 'x.mp4', 'a file takes one video, but 2 files'),
        (['image.png'], 'x.mp4', 'a file takes one video'),
        (['clip.avi'], 'clip.avi', 'is the video itself'),
    ],
)
def test_a_file_that_cannot_be_written_is_named(
    inputs, out, text, model, clip, tmp_path
):
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((*SIZE, 3), np.uint8))
    write(tmp_path / 'other.avi', 1)
    images = find_images([tmp_path / name for name in inputs])
    try:
        failures = segment_files(model, images, out=tmp_path / out)[1]
    except ValueError as error:
        failures = [str(error)]
    assert text in failures[0] and out in failures[0]


def test_an_unwritable_folder_stops_at_the_first_video(model, clip, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'overlay').touch()
    other = write(tmp_path / 'other.avi', 1)
    with pytest.raises(ValueError, match='cannot be written'):
        segment_files(model, find_images([clip, other]), out=tmp_path / 'out')


def test_videos_are_found_where_they_are_asked_for(clip, tmp_path):
    with pytest.raises(ValueError, match=r'no image in folder .*\.webp$'):
        find_images([tmp_path])
    (found,) = find_images([tmp_path], suffixes=video.VIDEO_SUFFIXES)
    assert found[0] == clip
