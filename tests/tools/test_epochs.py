"""Epochs over few images, and images that a viewer turns."""

import cv2
import pytest
from PIL import Image
from tiny_run import fails
from tiny_squares import make_squares, train, write_config

EPOCH = [
    'train_cfg._delete_=True',
    'train_cfg.type=ResumableEpochTrainLoop',
    'train_cfg.max_epochs=1',
    'train_dataloader.sampler._delete_=True',
    'train_dataloader.sampler.type=DefaultSampler',
    'train_dataloader.sampler.shuffle=True',
    'train_dataloader.batch_size=3',
    'default_hooks.checkpoint.by_epoch=True',
    'param_scheduler=[]',
]


@pytest.fixture
def config(tmp_path):
    data = make_squares(tmp_path / 'data')
    return write_config(tmp_path / 'squares.py', data)


def test_a_last_batch_of_one_image_is_met_before_the_first_iteration(config, tmp_path):
    run = tmp_path / 'run'
    message = fails('train', config, '--work-dir', run, '--cfg-options', *EPOCH)
    assert '4 images in batches of 3 leave one image in the last batch' in message
    assert 'set train_dataloader.drop_last=True' in message
    log = train(config, run, *EPOCH, 'train_dataloader.drop_last=True')
    assert 'Iter(train) [1/1]' in log or '[1][1/1]' in log


def test_images_that_exif_turns_upside_down_are_warned_of(config, tmp_path, capfd):
    for path in (tmp_path / 'data').glob('*/images/*.png'):
        image = cv2.imread(str(path))[..., ::-1]
        path.unlink()
        exif = Image.Exif()
        exif[0x112] = 3
        Image.fromarray(image).save(path.with_suffix('.jpg'), exif=exif)
    suffixes = [
        f'{split}_dataloader.dataset.img_suffix=.jpg' for split in ('train', 'val')
    ]
    train(config, tmp_path / 'run', *suffixes)
    said = ''.join(capfd.readouterr())
    assert said.count('its EXIF orientation turns or mirrors it') == 2
