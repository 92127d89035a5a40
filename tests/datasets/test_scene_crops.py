"""The crops of the scenes: labelled by their middle, balanced, repeatable."""

import json

import numpy as np
import pytest
from PIL import Image

from illama_seg.datasets.scenes import SCENE_CLASSES, SCENE_IDS, make_scene
from illama_seg.datasets.scenes.crops import SIZE, scene_crops, write_scene_crops


def found(image, crop):
    """Where in the image the crop is, by trying every place."""
    side = crop.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side, 3))
    return np.argwhere((windows[:, :, 0] == crop).all(axis=(2, 3, 4)))


def test_a_crop_has_its_class_in_the_middle():
    image, label = make_scene(3, 'training', 2, SIZE)
    crops = list(scene_crops(3, 'train', 2, 20))
    assert {name for name, _ in crops} <= set(SCENE_CLASSES)
    assert len(crops) > 6
    for name, crop in crops:
        assert crop.shape == (20, 20, 3)
        places = found(image, crop) + 10
        assert SCENE_IDS[name] in {label[y, x] for y, x in places}


def test_every_class_has_the_crops_asked_for_and_no_scene_is_the_demos(tmp_path):
    made = write_scene_crops(tmp_path / 'a', num_train=2, num_val=1, side=16)
    assert made['seed'] != 0  # that of the demo's scenes
    for split, count in (('train', 2), ('val', 1)):
        for name in SCENE_CLASSES:
            files = sorted((tmp_path / 'a' / split / name).iterdir())
            assert len(files) == count
            assert Image.open(files[0]).size == (16, 16)
    assert json.loads((tmp_path / 'a' / 'crops.json').read_text()) == made
    again = write_scene_crops(tmp_path / 'b', num_train=2, num_val=1, side=16)
    assert again == made
    for path in (tmp_path / 'a').rglob('*.jpg'):
        other = tmp_path / 'b' / path.relative_to(tmp_path / 'a')
        assert other.read_bytes() == path.read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'a').rglob('*')}
    assert write_scene_crops(tmp_path / 'a', num_train=2, num_val=1, side=16) == made
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / 'a').rglob('*')}


def test_other_files_are_never_written_over(tmp_path):
    (tmp_path / 'mine.txt').write_text('x')
    with pytest.raises(ValueError, match=f'{tmp_path} holds other files'):
        write_scene_crops(tmp_path, 1, 1, side=16)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


@pytest.mark.parametrize(
    'wrong', [dict(num_train=0), dict(num_val=-1), dict(side=4), dict(side=161)]
)
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match='expected at least 1 crop of each class'):
        write_scene_crops(tmp_path / 'crops', **(dict(num_train=1, num_val=1) | wrong))
    assert not (tmp_path / 'crops').exists()
