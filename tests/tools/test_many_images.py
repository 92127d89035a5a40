"""tools/infer.py on many images: several processes, stopped and resumed runs."""

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
