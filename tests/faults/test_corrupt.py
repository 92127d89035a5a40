from unittest import mock

import pytest
import torch
from mmengine.registry import init_default_scope
from tiny_long_runs import At, config
from tiny_run import make_ade20k
from toy_run import Messages, toy

from illama_seg.apis import training
from illama_seg.apis.runs.resuming import newest_checkpoint
from illama_seg.engine import SeededDataset

ONE = dict(train_data=dict(corrupt=[5]))


def seen_by(runner):
    """Train; numbers and first values of the images, in order."""
    seen = []

    class Note(At):
        def __init__(self):
            self.priority = 'HIGHEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            for sample, image in zip(
                data_batch['data_samples'], data_batch['inputs'], strict=True
            ):
                seen.append((sample.sample_idx, image[0].item()))

    runner.register_hook(Note())
    runner.train()
    return seen


def test_a_corrupt_image_stops_the_training_and_is_named(tmp_path):
    with pytest.raises(ValueError, match=r'image_5.jpg is damaged'):
        toy(tmp_path, **ONE).train()


def test_a_corrupt_image_is_skipped_by_option_and_counted(tmp_path):
    runner = toy(tmp_path, length=16, skip_corrupt=0.1, **ONE)
    messages = Messages(runner)
    seen = seen_by(runner)
    assert len(seen) == 32 and 5 not in {index for index, _ in seen}
    text = str(messages)
    assert 'takes its place (1 so far of 16): image_5.jpg is damaged' in text
    assert 'skipped 2 times an image that cannot be read, 1 images in all' in text
    assert text.count('image_5.jpg') == 1
    counts = torch.load(newest_checkpoint(tmp_path), weights_only=False)
    assert counts['skipped_images'] == {'image_5.jpg is damaged': 2}


def test_what_takes_its_place_does_not_depend_on_the_workers(tmp_path):
    options = dict(length=16, skip_corrupt=0.5, train_data=dict(corrupt=[1, 5, 7]))
    first = seen_by(toy(tmp_path / 'a', **options))
    second = seen_by(toy(tmp_path / 'b', workers=2, **options))
    assert first == second
    # Every other image is the one it would have been.
    untouched = seen_by(toy(tmp_path / 'c', length=16))
    for ours, theirs in zip(first, untouched, strict=True):
        assert ours == theirs or theirs[0] in (1, 5, 7)


def test_more_corrupt_images_than_the_limit_stop_the_training(tmp_path):
    runner = toy(tmp_path, skip_corrupt=0.1, train_data=dict(corrupt=[1, 5, 7]))
    with pytest.raises(
        ValueError, match=r'2 of 16 training images cannot be read.*skip_corrupt=0.1'
    ):
        runner.train()


def test_a_resumed_run_counts_on(tmp_path):
    toy(tmp_path, length=16, skip_corrupt=0.1, **ONE).train()
    toy(tmp_path, length=32, resume=True, skip_corrupt=0.1, **ONE).train()
    counts = torch.load(newest_checkpoint(tmp_path), weights_only=False)
    assert counts['skipped_images'] == {'image_5.jpg is damaged': 4}


@pytest.mark.parametrize('limit', [0, 1.5, -1])
def test_a_limit_that_is_no_share_is_refused(tmp_path, limit):
    with pytest.raises(ValueError, match='skip_corrupt='):
        toy(tmp_path, skip_corrupt=limit)


def test_a_damaged_jpeg_of_ade20k_is_named_or_skipped(tmp_path):
    data = make_ade20k(tmp_path / 'ade20k')
    path = data / 'images' / 'training' / 'training_2.jpg'
    path.write_bytes(path.read_bytes()[:-100])
    init_default_scope('mmseg')
    given = config('segmentation', data, tmp_path).train_dataloader.dataset
    with pytest.raises(ValueError, match=r'training_2\.jpg'):
        SeededDataset(given)[2]
    sample = SeededDataset(given, skip_corrupt=True)[2]['data_samples']
    assert 'training_2.jpg' in sample.skipped[0]
    assert 'training_2.jpg' not in sample.img_path


def test_the_flag_of_the_tool_allows_one_image_in_a_hundred(tmp_path, monkeypatch):
    data = make_ade20k(tmp_path / 'ade20k')
    cfg = config('segmentation', data, tmp_path / 'run')
    found = []
    monkeypatch.setattr(
        training, 'build_long_run', lambda cfg, _: found.append(cfg) or mock.MagicMock()
    )
    training.build_trainer(cfg)
    assert 'skip_corrupt' not in found[-1]
    training.build_trainer(cfg, skip_corrupt=True)
    assert found[-1].skip_corrupt == 0.01
    cfg.skip_corrupt = 0.3
    training.build_trainer(cfg, skip_corrupt=True)
    assert found[-1].skip_corrupt == 0.3
