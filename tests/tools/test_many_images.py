"""Many images: several processes, stopped and resumed runs of infer.py and test.py."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_run import ROOT, run_tool

from illama_seg.apis import find_images, infer, load_segmentor, segment_files
from illama_seg.images import write_image


@pytest.fixture(scope='module')
def folder(run, tmp_path_factory):
    """Five images, one of them damaged."""
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.integers(0, 256, (40 + number, 60, 3), np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), image)
    (folder / '1_broken.png').write_bytes(b'no image')
    return folder


@pytest.fixture(scope='module')
def alone(run, folder, tmp_path_factory):
    """Results of one process."""
    out = tmp_path_factory.mktemp('alone')
    with pytest.raises(SystemExit, match=r'not segmented:\n.*1_broken\.png'):
        run_tool('infer', run.config, run.checkpoint, folder, '--out', out)
    return out


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_two_processes_write_what_one_writes(run, folder, alone, tmp_path):
    torchrun = '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'
    tool, out = ROOT / 'tools' / 'infer.py', tmp_path / 'out'
    words = tool, run.config, run.checkpoint, folder, '--out', out
    done = subprocess.run(
        [sys.executable, *torchrun, *map(str, words), '--launcher', 'pytorch'],
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode and '1_broken.png' in done.stderr
    assert 'Traceback (most recent call last):\n  File "' + str(tool) not in done.stderr
    assert files(out) == files(alone)


def test_a_run_that_was_stopped_goes_on(run, folder, alone, tmp_path, monkeypatch):
    shutil.copytree(alone, tmp_path / 'out')
    out = tmp_path / 'out'
    for name in ('labels/2.png', 'labels/3.png', 'overlay/3.jpg', 'summary.json'):
        (out / name).unlink()
    segmented = []
    predict = infer.predict
    monkeypatch.setattr(
        infer, 'predict', lambda m, i, *a: segmented.append(len(i)) or predict(m, i, *a)
    )
    model = load_segmentor(run.config, run.checkpoint, fold=True)
    _, failures = segment_files(model, find_images([folder]), out=out, resume=True)
    assert segmented == [42, 43] and len(failures) == 1
    assert files(out) == files(alone)
    assert list(json.loads((out / 'summary.json').read_text())) == [
        '0.png', '1.png', '2.png', '3.png'
    ]  # fmt: skip


def test_without_resume_everything_is_made_anew(run, folder, alone, tmp_path):
    out = tmp_path / 'out'
    write_image(out / 'labels' / '0.png', np.zeros((40, 60), np.uint8))
    model = load_segmentor(run.config, run.checkpoint, fold=True)
    segment_files(model, find_images([folder]), out=out)
    assert files(out) == files(alone)


def test_a_file_that_was_being_written_is_not_left(run, folder, tmp_path, monkeypatch):
    write = Path.write_bytes

    def torn(path, data):
        write(path, data[: len(data) // 2])
        raise OSError(28, 'No space left on device')

    model = load_segmentor(run.config, run.checkpoint)
    monkeypatch.setattr(Path, 'write_bytes', torn)
    with pytest.raises(ValueError, match=r'cannot be written \(No space left'):
        segment_files(model, find_images([folder]), out=tmp_path / 'out')
    assert not files(tmp_path / 'out')


def test_the_next_image_is_read_while_one_is_segmented(
    run, folder, monkeypatch, tmp_path
):
    is_read = threading.Event()
    read, predict = infer.read_image, infer.predict

    def noted(path, *options):
        if path.name == '2.png':
            is_read.set()
        return read(path, *options)

    def waiting(model, image, *windows):
        assert len(image) != 40 or is_read.wait(30)
        return predict(model, image, *windows)

    monkeypatch.setattr(infer, 'read_image', noted)
    monkeypatch.setattr(infer, 'predict', waiting)
    images = [(folder / name, Path(name)) for name in ('0.png', '2.png')]
    model = load_segmentor(run.config, run.checkpoint)
    assert segment_files(model, images, out=tmp_path)[1] == []


@pytest.fixture(scope='module')
def tested(run, tmp_path_factory):
    """Folder of a whole test: labels and scores."""
    folder = tmp_path_factory.mktemp('tested')
    words = '--out', folder / 'labels', '--work-dir', folder / 'work'
    run_tool('test', run.config, run.checkpoint, *words)
    return folder


def resumed(run, folder, *words, launch=()):
    out = '--out', folder / 'labels', '--work-dir', folder / 'work', '--resume'
    if not launch:
        return run_tool('test', run.config, run.checkpoint, *out, *words)
    tool = *launch, ROOT / 'tools' / 'test.py', run.config, run.checkpoint, *out, *words
    return subprocess.run([sys.executable, *map(str, tool)], check=True, timeout=300)


@pytest.mark.parametrize('processes', [1, 2])
def test_a_stopped_test_goes_on_and_scores_all_images(
    run, tested, tmp_path, monkeypatch, processes
):
    folder = tmp_path / 'again'
    shutil.copytree(tested, folder)  # keeps the times of the files
    scores = (folder / 'work' / 'scores.json').read_bytes()
    first, *rest = sorted((folder / 'labels').rglob('*.png'))
    assert rest
    labels = first.read_bytes()
    first.unlink()
    (folder / 'work' / 'scores.json').unlink()
    kept = [path.stat().st_mtime_ns for path in rest]
    launch = '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'
    words = ('--launcher', 'pytorch') if processes == 2 else ()
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    resumed(run, folder, *words, launch=launch if processes == 2 else ())
    assert first.read_bytes() == labels
    assert kept == [path.stat().st_mtime_ns for path in rest]
    assert (folder / 'work' / 'scores.json').read_bytes() == scores


def test_what_is_kept_is_what_is_scored(run, tested, tmp_path):
    folder = tmp_path / 'again'
    shutil.copytree(tested, folder)
    for path in (folder / 'labels').rglob('*.png'):
        cv2.imwrite(str(path), np.ones_like(cv2.imread(str(path), -1)))
    resumed(run, folder)
    counts = json.loads((folder / 'work' / 'confusion.json').read_text())['counts']
    assert np.array(counts)[:, 1:].sum() == 0


@pytest.mark.parametrize(
    'words', [['--tta'], ['--cfg-options', 'model.test_cfg.mode=slide']]
)
def test_labels_of_another_test_are_not_resumed(run, tested, tmp_path, words):
    shutil.copytree(tested, tmp_path / 'again')
    if words[-1].endswith('slide'):
        words = [
            *words,
            'model.test_cfg.stride=(16,16)',
            'model.test_cfg.crop_size=(32,32)',
        ]
    with pytest.raises(SystemExit, match='were made with another'):
        resumed(run, tmp_path / 'again', *words)


def test_an_older_label_image_is_of_a_test_before(run, tested, tmp_path):
    folder = tmp_path / 'again'
    shutil.copytree(tested, folder)
    first = min((folder / 'labels').rglob('*.png'))
    right = first.read_bytes()
    cv2.imwrite(str(first), np.ones_like(cv2.imread(str(first), -1)))
    os.utime(first, (1, 1))
    resumed(run, folder)
    assert first.read_bytes() == right


def test_a_damaged_label_image_is_named(run, tested, tmp_path):
    folder = tmp_path / 'again'
    shutil.copytree(tested, folder)
    first = min((folder / 'labels').rglob('*.png'))
    first.write_bytes(b'no image')
    with pytest.raises(SystemExit, match=f'{first} is no label image'):
        resumed(run, folder)


def test_labels_of_unknown_origin_are_not_resumed(run, tested, tmp_path):
    folder = tmp_path / 'again'
    shutil.copytree(tested, folder)
    (folder / 'labels.made_with.json').unlink()
    with pytest.raises(SystemExit, match=r'no labels\.made_with\.json'):
        resumed(run, folder)
    with pytest.raises(SystemExit, match='--resume'):
        run_tool('test', run.config, run.checkpoint, '--resume')
