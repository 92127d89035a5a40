"""The procedural scenes: repeatable, well labelled, safely written."""

import json
import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from illama_seg.datasets.scenes import (
    SCENE_CLASSES,
    SCENE_IDS,
    make_scene,
    write_scenes,
    writer as scenes,
)

SMALL = (64, 80)
TOOL = Path(__file__).parents[2] / 'tools' / 'data' / 'make_scenes.py'


def write(root, **changes):
    given = {'num_train': 3, 'num_val': 2, 'size': SMALL, 'seed': 5, 'workers': 2}
    return write_scenes(root, **{**given, **changes})


def contents(root):
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob('*') if p.is_file()
    }


def test_ids_are_those_of_ade20k():
    classes = pytest.importorskip('mmseg.datasets').ADE20KDataset.METAINFO['classes']
    assert {name: classes[i - 1].strip() for name, i in SCENE_IDS.items()} == {
        name: name for name in SCENE_CLASSES
    }


@pytest.mark.parametrize('size', [(160, 208), (97, 131), (64, 64), (70, 300)])
def test_scene_has_the_asked_size_and_known_ids(size):
    for index in range(3):
        image, label = make_scene(1, 'training', index, size)
        assert image.dtype == label.dtype == np.uint8
        assert image.shape == (*size, 3)
        assert label.shape == size
        assert set(np.unique(label)) <= {0, *SCENE_IDS.values()}
        assert image.std() > 10


def test_scene_depends_on_seed_split_and_index_only():
    first = make_scene(3, 'validation', 7, SMALL)
    again = make_scene(3, 'validation', 7, SMALL)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in ((4, 'validation', 7), (3, 'training', 7), (3, 'validation', 8)):
        assert not np.array_equal(first[0], make_scene(*other, SMALL)[0])


def test_every_class_is_common_enough_to_learn():
    labels = [make_scene(0, 'training', i, (80, 104))[1] for i in range(60)]
    for name, i in SCENE_IDS.items():
        assert np.mean([np.any(label == i) for label in labels]) >= 0.1, name
        assert np.mean([np.mean(label == i) for label in labels]) >= 0.004, name
    assert np.mean([np.mean(label == 0) for label in labels]) < 0.02


def test_labels_border_where_the_picture_does():
    """Label edges lie on stronger picture edges than the same edges moved by 3."""
    on, off = [], []
    for index in range(8):
        image, label = make_scene(2, 'training', index)
        step = np.abs(np.diff(image.mean(-1), axis=1))
        edge = np.diff(label.astype(int), axis=1) != 0
        on.append(step[edge].mean())
        off.append(step[np.roll(edge, 3, axis=1)].mean())
    assert np.mean(on) > 1.5 * np.mean(off)


def test_layout_on_disk(tmp_path):
    made = write(tmp_path / 'scenes')
    root = tmp_path / 'scenes'
    want = {'scenes.json'}
    for split, count in (('training', 3), ('validation', 2)):
        for i in range(1, count + 1):
            want.add(f'images/{split}/scene_{i:08d}.jpg')
            want.add(f'annotations/{split}/scene_{i:08d}.png')
    assert set(contents(root)) == want
    assert json.loads((root / 'scenes.json').read_text()) == made
    assert made['counts'] == {'training': 3, 'validation': 2}
    assert sum(made['pixel_share'].values()) == pytest.approx(1, abs=1e-3)
    image, label = make_scene(5, 'validation', 1, SMALL)
    read = cv2.imread(str(root / 'annotations/validation/scene_00000002.png'), -1)
    np.testing.assert_array_equal(read, label)
    photo = cv2.imread(str(root / 'images/validation/scene_00000002.jpg'))[..., ::-1]
    assert np.abs(photo.astype(int) - image).mean() < 8


def test_same_seed_gives_the_same_bytes(tmp_path):
    write(tmp_path / 'a', workers=1)
    write(tmp_path / 'b', workers=3)
    write(tmp_path / 'c', seed=6)
    first, second, other = (contents(tmp_path / name) for name in 'abc')
    assert first == second
    assert first != other


def test_second_run_does_nothing(tmp_path, monkeypatch):
    made = write(tmp_path)
    monkeypatch.setattr(scenes, 'make_scene', None)
    assert write(tmp_path) == made


def test_missing_file_is_made_again(tmp_path):
    write(tmp_path)
    before = contents(tmp_path)
    (tmp_path / 'images/training/scene_00000002.jpg').unlink()
    write(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize('note', [None, '[1]', 'no json', '{}'])
def test_foreign_folder_is_left_alone(tmp_path, note):
    (tmp_path / 'mine.txt').write_text('precious')
    if note is not None:
        (tmp_path / 'scenes.json').write_text(note)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match='choose another folder'):
        write(tmp_path)
    assert contents(tmp_path) == before


def test_other_parameters_are_refused(tmp_path):
    write(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match='another seed'):
        write(tmp_path, seed=6)
    with pytest.raises(ValueError, match='another counts'):
        write(tmp_path, num_val=1)
    assert contents(tmp_path) == before


def test_a_file_as_root_is_refused(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(ValueError, match='is a file'):
        write(tmp_path / 'file')


def test_folder_without_permission_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'mkdir', refuse)
    with pytest.raises(PermissionError, match=r'cannot write scenes to .*sealed'):
        write(tmp_path / 'sealed')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'num_train': -1}, 'num_train must be .* got -1'),
        ({'num_val': 1.5}, 'num_val must be .* got 1.5'),
        ({'seed': -2}, 'seed must be .* got -2'),
        ({'workers': 0}, 'workers must be >= 1, got 0'),
        ({'size': (63, 80)}, r'size must be .*>= 64, got \(63, 80\)'),
        ({'size': (80,)}, r'size must be .*got \(80,\)'),
    ],
)
def test_bad_arguments_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / 'scenes', **changes)
    assert not (tmp_path / 'scenes').exists()


def test_bad_scene_arguments_are_named():
    with pytest.raises(ValueError, match=r"split must be one of .* got 'test'"):
        make_scene(0, 'test', 0)
    with pytest.raises(ValueError, match=r'index must be .* got -1'):
        make_scene(0, 'training', -1)


def test_empty_set(tmp_path):
    made = write(tmp_path, num_train=0, num_val=0)
    assert set(made['scene_share'].values()) == {0.0}


def test_tool(tmp_path, monkeypatch, capsys):
    root = tmp_path / 'scenes'
    command = [str(TOOL), '--out', str(root), '--num-train', '1']
    command += ['--num-val', '1', '--size', '64', '64']
    monkeypatch.setattr(sys, 'argv', command)
    runpy.run_path(str(TOOL), run_name='__main__')
    out = capsys.readouterr().out
    assert '1 training and 1 validation scenes of 64 x 64' in out
    assert all(name in out for name in SCENE_CLASSES)
    monkeypatch.setattr(sys, 'argv', [*command, '--seed', '9'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert re.match(r'error: .* choose another folder', capsys.readouterr().err)
