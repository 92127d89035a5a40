import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

import illama_seg  # noqa: F401 (registers the preprocessor)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


def preprocessed(images, **options):
    preprocessor = MODELS.build(dict(options))
    return preprocessor(dict(inputs=images))['inputs']


def test_three_bands_are_what_mmseg_makes_of_them():
    images = [torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8) for _ in range(2)]
    options = dict(mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True)
    ours, theirs = (
        preprocessed(images, type=kind, **options)
        for kind in ('BandsPreProcessor', 'SegDataPreProcessor')
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize('turns', ['bgr_to_rgb', 'rgb_to_bgr'])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.uint16, torch.float32])
def test_of_five_bands_the_first_three_are_turned_and_each_has_its_mean(turns, dtype):
    image = (torch.arange(5 * 2 * 3) * 3).view(5, 2, 3).to(dtype)
    mean, std = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 4.0, 8.0, 16.0]
    found = preprocessed(
        [image], type='BandsPreProcessor', mean=mean, std=std, **{turns: True}
    )
    turned = image.float()[[2, 1, 0, 3, 4]]
    expected = (turned - torch.tensor(mean).view(5, 1, 1)) / torch.tensor(std).view(
        5, 1, 1
    )
    assert torch.equal(found[0], expected)


def test_one_mean_is_for_all_bands_and_none_leaves_the_values():
    image = torch.rand(4, 2, 3)
    one = preprocessed([image], type='BandsPreProcessor', mean=[1.0], std=[2.0])
    assert torch.equal(one[0], (image - 1) / 2)
    assert torch.equal(preprocessed([image], type='BandsPreProcessor')[0], image)


def test_numbers_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match='expected as many numbers in both'):
        MODELS.build(dict(type='BandsPreProcessor', mean=[1.0] * 4, std=[1.0] * 3))
    with pytest.raises(ValueError, match=r'an image has 4 bands, but .* 5 numbers'):
        preprocessed(
            [torch.rand(4, 2, 3)], type='BandsPreProcessor', mean=[1.0] * 5, std=[1] * 5
        )
