import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS
from PIL import Image
from timm.data.auto_augment import RandAugment
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms

from illama_seg.pretrain import ClsTransform, LoadRGBImage, PackClsInputs

RAND_AUGMENT = 'rand-m9-mstd0.5-inc1'


def picture(width=40, height=30):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def steps(**options):
    return ClsTransform(**options)._transform.transforms


def test_training_crops_bicubic_flips_and_augments_as_the_recipe_says():
    crop, flip, augment, _ = steps(
        input_size=224,
        is_training=True,
        color_jitter=0.4,
        auto_augment=RAND_AUGMENT,
        interpolation='bicubic',
    )
    assert isinstance(crop, RandomResizedCropAndInterpolation)
    assert crop.interpolation == transforms.InterpolationMode.BICUBIC
    assert tuple(crop.scale) == (0.08, 1.0)
    assert isinstance(flip, transforms.RandomHorizontalFlip) and flip.p == 0.5
    assert isinstance(augment, RandAugment) and augment.num_layers == 2
    for op in augment.ops:
        assert op.magnitude == 9 and op.magnitude_std == 0.5
    assert 'PosterizeIncreasing' in {op.name for op in augment.ops}


def test_every_operation_of_randaugment_takes_every_magnitude_that_may_be_drawn():
    options = dict(input_size=8, is_training=True, auto_augment=RAND_AUGMENT)
    (augment,) = (step for step in steps(**options) if isinstance(step, RandAugment))
    for op in augment.ops:
        op.prob, op.magnitude_std = 1.0, 0.0
        for op.magnitude in (0, 4, 9.9, 10):
            found = op(picture())
            assert (found.mode, found.size) == ('RGB', (40, 30))
        if op.name == 'PosterizeIncreasing':
            assert not np.asarray(found).any()  # the strongest keeps no bit


def test_colour_jitter_works_without_randaugment_and_not_beside_it():
    def jitters(**more):
        options = dict(input_size=8, is_training=True, color_jitter=0.4)
        found = steps(**options | more)
        return [step for step in found if isinstance(step, transforms.ColorJitter)]

    (jitter,) = jitters()
    assert tuple(jitter.brightness) == (0.6, 1.4)
    assert not jitters(auto_augment=RAND_AUGMENT)


def test_validation_at_224_resizes_the_short_side_to_256_and_crops_the_centre():
    image = picture(400, 300)
    test = ClsTransform(input_size=224, crop_pct=0.875, interpolation='bicubic')
    found = test(dict(img=image))['img']
    resized = image.resize((341, 256), Image.Resampling.BICUBIC)
    left, top = round((341 - 224) / 2), 16
    expected = resized.crop((left, top, left + 224, top + 224))
    np.testing.assert_array_equal(found.permute(1, 2, 0), np.asarray(expected))


def test_validation_at_384_warps_the_whole_image():
    image = picture(400, 300)
    test = ClsTransform(
        input_size=384, crop_pct=1.0, crop_mode='squash', interpolation='bicubic'
    )
    found = test(dict(img=image))['img']
    expected = image.resize((384, 384), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found.permute(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'P', 'CMYK', '1', 'LA'])
def test_images_of_every_mode_become_three_channels_of_8_bits(mode, tmp_path):
    path = tmp_path / f'image.{"tif" if mode == "CMYK" else "png"}'
    picture().convert(mode).save(path)
    image = LoadRGBImage()(dict(img_path=str(path)))['img']
    assert (image.mode, image.size) == ('RGB', (40, 30))


def test_grey_arrays_are_taken_as_they_are_in_memory():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = LoadRGBImage()(dict(img=grey))['img']
    np.testing.assert_array_equal(np.asarray(image), np.stack([grey] * 3, -1))


@pytest.mark.parametrize('content', [b'', b'nonsense' * 9, 'half'])
def test_a_file_that_is_no_image_is_named(content, tmp_path):
    path = tmp_path / 'image.png'
    picture().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == 'half' else content)
    with pytest.raises(ValueError, match=r'image\.png is no image, or is damaged'):
        LoadRGBImage()(dict(img_path=str(path)))


def test_a_packed_sample_has_image_label_and_path():
    packed = PackClsInputs()(
        dict(img=torch.ones(3, 2, 2), gt_label=4, img_path='a.png')
    )
    assert packed['inputs'].shape == (3, 2, 2)
    assert packed['data_samples'].gt_label.tolist() == [4]
    assert packed['data_samples'].img_path == 'a.png'


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        (dict(re_prob=0.25), r"'re_prob'.*model\.data_preprocessor"),
        (dict(colour_jitter=0.4), 'colour_jitter'),
    ],
)
def test_an_option_that_does_not_belong_here_is_refused(option, text):
    with pytest.raises(ValueError, match=text):
        TRANSFORMS.build(dict(type='ClsTransform', **option))
