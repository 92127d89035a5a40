"""What the check of a data set says of images of all kinds, and what mends it."""

import cv2
import numpy as np
import pytest
import tifffile
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from tiny_bands import make_config, make_data, planes, scene

import illama_seg  # noqa: F401 (registers the loaders)
from illama_seg.reports.data_check import check_dataset

MEAN = 'mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]'
BANDS = "type='BandsPreProcessor', mean=[100.0] * {0}, std=[60.0] * {0}"
KEEPS = "color_type='unchanged', to_float32=True"


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


def checked(config, out):
    """Kind -> (level, messages) of what the check of a config finds in train."""
    cfg = Config.fromfile(config)
    cfg.work_dir = str(out)
    findings = check_dataset(cfg, out, num_images=1, workers=1)[0]['findings']
    return {
        found['kind']: (found['level'], '\n'.join(found['messages']))
        for found in findings
        if 'train' in found['split']
    }


def check(folder, bands=3, channels=3, loader='', preprocessor=MEAN, **data):
    """Write data and a config into a folder, and check them."""
    suffix = data.pop('suffix', '.png')
    root = folder / 'data'
    if not root.exists():
        make_data(root, suffix, bands, **data)
    config = make_config(
        folder / 'config.py', root, suffix, channels, loader, preprocessor
    )
    return checked(config, folder / 'out')


def rewritten(folder, change, suffix='.png'):
    """Write data of 8 bits, then its images again; the same in both splits."""
    root = make_data(folder / 'data', suffix, 3)
    for path in sorted((root / 'img').rglob(f'*{suffix}')):
        change(path, cv2.imread(str(path)))
    return root


def test_8_bits_have_no_finding(tmp_path):
    assert check(tmp_path) == {}


def test_12_bits_are_a_fault_with_the_settings_that_mend_it(tmp_path):
    found = check(tmp_path, scale=16, dtype=np.uint16)
    assert set(found) == {'values lost'}
    level, message = found['values lost']
    assert level == 'fault' and '0.png and 3 others hold values of uint16' in message
    assert '0..15 of 0..255' in message and KEEPS in message
    images = [scene('train', index, 3, 16, np.uint16)[0] for index in range(4)]
    mean = np.mean([image.mean((0, 1)) for image in images], 0)[::-1]  # RGB
    text = message.partition('model.data_preprocessor.mean=[')[2].partition(']')[0]
    np.testing.assert_allclose([float(n) for n in text.split(',')], mean, rtol=1e-3)


def test_all_16_bits_in_use_are_a_warning_since_8_of_them_are_lost(tmp_path):
    found = check(tmp_path, scale=257, dtype=np.uint16)
    assert [level for level, _ in found.values()] == ['warning']
    assert '0..255 of 0..255' in found['depth lost'][1]


def test_8_bits_in_files_of_16_are_black_to_the_default_loader(tmp_path):
    level, message = check(tmp_path, scale=1, dtype=np.uint16)['values lost']
    assert level == 'fault' and '0..0 of 0..255' in message


def test_grey_of_12_bits_is_told_to_be_one_channel(tmp_path):
    _, message = check(tmp_path, bands=1, scale=16, dtype=np.uint16)['values lost']
    assert 'model.backbone.in_channels=1' in message


def test_kept_values_need_a_mean_and_a_deviation_of_their_own(tmp_path):
    found = check(tmp_path, scale=16, dtype=np.uint16, loader=KEEPS)
    assert set(found) == {'mean and std'}
    level, message = found['mean and std']
    assert level == 'fault' and 'model.data_preprocessor.mean=[' in message
    options = {
        option.partition('=')[0].rpartition('.')[2]: option.partition('=')[2]
        for option in message.split(': set ')[1].split()
    }
    fitting = f'mean={options["mean"]}, std={options["std"]}'
    assert check(tmp_path, loader=KEEPS, preprocessor=fitting) == {}


def test_values_from_0_to_1_do_not_fit_the_mean_of_8_bits(tmp_path):
    data = dict(suffix='.tif', scale=1 / 255, dtype=np.float32, write=tifffile_rgb)
    loader = "imdecode_backend='tifffile'"
    off = MEAN + ', bgr_to_rgb=False'
    assert set(check(tmp_path, loader=loader, preprocessor=off, **data)) == {
        'mean and std'
    }
    fitting = 'mean=[0.4, 0.4, 0.3], std=[0.2, 0.2, 0.2], bgr_to_rgb=False'
    assert check(tmp_path, loader=loader, preprocessor=fitting, suffix='.tif') == {}


def tifffile_rgb(path, image):
    tifffile.imwrite(path, image, photometric='rgb')


def test_values_changed_by_a_step_of_ones_own_are_not_judged(tmp_path):
    make_data(tmp_path / 'data', '.png', 3, 16, np.uint16)
    config = make_config(tmp_path / 'config.py', tmp_path / 'data', '.png', 3, KEEPS)
    text = config.read_text()
    scaled = "labels + [dict(type='Normalize', mean=[0.0] * 3, std=[16.0] * 3)]"
    config.write_text(text.replace('load + labels', f'load + {scaled}'))
    assert checked(config, tmp_path / 'out') == {}


def test_the_order_of_bands_in_the_file_is_asked_about(tmp_path):
    found = check(
        tmp_path,
        bands=5,
        channels=5,
        loader="imdecode_backend='tifffile'",
        preprocessor=BANDS.format(5),
        suffix='.tif',
        write=planes,
    )
    assert set(found) == {'order of the bands'}
    assert 'set model.data_preprocessor.bgr_to_rgb=False' in str(found)


def test_bands_that_the_loader_leaves_out_are_a_warning(tmp_path):
    def infrared(path, image):
        options = dict(photometric='rgb', extrasamples=['unspecified'])
        tifffile.imwrite(path, image, **options)

    found = check(tmp_path, bands=4, suffix='.tif', write=infrared)
    assert found['bands not read'][0] == 'warning'
    assert '0.tif has 4 bands, and 3 of them are loaded' in str(found)
    found = check(
        tmp_path,
        channels=4,
        loader="color_type='unchanged'",
        preprocessor=BANDS.format(4),
        suffix='.tif',
    )
    assert found == {}


def test_five_bands_without_their_loader_are_a_fault_that_names_it(tmp_path):
    found = check(tmp_path, bands=5, suffix='.tif', write=planes)
    assert "Set imdecode_backend='tifffile'" in found['image unreadable'][1]


def test_a_single_channel_in_a_model_of_three_is_named_with_all_settings(tmp_path):
    found = check(tmp_path, bands=1, loader="color_type='grayscale'")
    level, message = found['channels']
    assert level == 'fault' and '0.png is loaded with 1 channel (4 of 4' in message
    assert 'model.backbone.in_channels=1 model.data_preprocessor.mean=[' in message


def test_16_bits_with_alpha_are_read_as_four_channels_or_lose_it(tmp_path):
    """An alpha of one value teaches nothing; the default loader drops it."""

    def with_alpha(path, image):
        image[..., 3] = 65535
        cv2.imwrite(str(path), image)

    data = dict(bands=4, scale=257, dtype=np.uint16, write=with_alpha)
    assert set(check(tmp_path, **data)) == {'depth lost'}
    found = check(
        tmp_path,
        channels=4,
        loader=KEEPS,
        preprocessor="type='BandsPreProcessor', mean=[3e4] * 4, std=[2e4] * 4",
    )
    assert set(found) == {'band of one value'}
    assert 'channel 3 of 4 is 65535' in found['band of one value'][1]


def test_a_palette_and_transparency_are_read_as_colours(tmp_path):
    def palette(path, image):
        Image.fromarray(image[..., ::-1]).convert('P').save(path)

    rewritten(tmp_path, palette)
    assert check(tmp_path) == {}
    found = check(tmp_path, loader="color_type='unchanged', imdecode_backend='pillow'")
    assert 'is loaded with 1 channel' in found['channels'][1]  # numbers of colours


def test_cmyk_is_read_as_colours_but_not_unchanged_by_pillow(tmp_path):
    root = make_data(tmp_path / 'data', '.jpg', 3)
    for path in (root / 'img').rglob('*.jpg'):
        Image.open(path).convert('CMYK').save(path)
    assert check(tmp_path, suffix='.jpg') == {}
    loader = "color_type='unchanged', imdecode_backend='pillow'"
    found = check(tmp_path, suffix='.jpg', loader=loader)
    assert 'is loaded with 4 channels' in found['channels'][1]


@pytest.mark.parametrize('orientation', [3, 6])
def test_a_photograph_turned_by_exif_is_turned_alone(orientation, tmp_path):
    """Half a turn does not show in the size, a quarter does."""

    def turn(path, image):
        exif = Image.Exif()
        exif[0x112] = orientation
        Image.fromarray(image[..., ::-1]).save(path, exif=exif)

    rewritten(tmp_path, turn)
    kinds = {3: {'turned by EXIF': 'warning'}, 6: {'size mismatch': 'fault'}}
    found = check(tmp_path)
    assert {kind: level for kind, (level, _) in found.items()} == kinds[orientation]
    ignoring = check(tmp_path, loader="color_type='color_ignore_orientation'")
    assert set(ignoring) == {3: {'turned by EXIF'}, 6: set()}[orientation]


def test_a_float_with_nan_is_a_fault_of_that_file(tmp_path):
    def holes(path, image):
        image[3, 4] = np.nan
        planes(path, image)

    root = make_data(tmp_path / 'data', '.tif', 5, dtype=np.float32, write=planes)
    path = root / 'img/train/2.tif'
    holes(path, tifffile.imread(path).transpose(1, 2, 0))
    found = check(
        tmp_path,
        channels=5,
        loader="imdecode_backend='tifffile'",
        preprocessor=BANDS.format(5) + ', bgr_to_rgb=False',
        suffix='.tif',
    )
    assert set(found) == {'image unreadable'}
    assert f'{path}: 5 of 25,600 values are not finite' in found['image unreadable'][1]


def test_black_and_constant_images_are_warned_of_and_all_of_them_are_a_fault(tmp_path):
    root = make_data(tmp_path / 'data', '.png', 3)
    for index, value in ((1, 0), (2, 90)):
        path = root / f'img/train/{index}.png'
        cv2.imwrite(str(path), np.full((64, 80, 3), value, np.uint8))
    level, message = check(tmp_path)['image of one value']
    assert level == 'warning'
    assert '1.png: every value is 0, black' in message
    assert '2.png: every value is 90.' in message
    for index in range(4):
        path = root / f'img/train/{index}.png'
        cv2.imwrite(str(path), np.full((64, 80, 3), 10 * index, np.uint8))
    assert check(tmp_path)['image of one value'][0] == 'fault'


def test_fine_texture_of_a_jpeg_is_not_taken_for_a_constant_image(tmp_path):
    """Its small version, by which it is checked, is."""
    root = make_data(tmp_path / 'data', '.jpg', 3)
    rows, columns = np.indices((64, 80))
    board = np.where((rows + columns) % 2, 200, 50).astype(np.uint8)
    for path in (root / 'img').rglob('*.jpg'):
        Image.fromarray(np.stack([board] * 3, -1)).save(path, quality=100)
    assert 'image of one value' not in check(tmp_path, suffix='.jpg')
