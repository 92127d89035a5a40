import struct
import sys

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, strategies as st
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from PIL import Image
from tiny_bands import make_config, make_data

import illama_seg  # noqa: F401 (registers the loaders)
from illama_seg.apis import read_image
from illama_seg.datasets import LabelledImages
from illama_seg.datasets.decoding import as_picture
from illama_seg.datasets.tiff import TiffHeader, tiff_header

SIZE = 12, 17
TIFFFILE = dict(type='LoadImageFromFile', imdecode_backend='tifffile')
UNCHANGED = dict(type='LoadImageFromFile', color_type='unchanged')


def noise(bands, dtype=np.uint8):
    shape = SIZE if bands == 1 else (*SIZE, bands)
    high = np.iinfo(dtype).max if np.dtype(dtype).kind == 'u' else 200
    return np.random.default_rng(0).integers(1, high, shape).astype(dtype)


def side_by_side(path, image, **options):
    tifffile.imwrite(path, image, photometric='minisblack', planarconfig='contig')


def planes(path, image, **options):
    image = np.moveaxis(image, -1, 0)
    options = dict(photometric='minisblack', planarconfig='separate') | options
    tifffile.imwrite(path, image, **options)


def pages(path, image):
    with tifffile.TiffWriter(path) as file:
        for band in np.moveaxis(image, -1, 0):
            file.write(band, photometric='minisblack')


def big(path, image):
    with tifffile.TiffWriter(path, bigtiff=True, byteorder='>') as file:
        file.write(image, photometric='minisblack', planarconfig='contig')


LAYOUTS = [side_by_side, planes, pages, big]


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('bands', [2, 4, 5])
@pytest.mark.parametrize('write', LAYOUTS)
def test_tifffile_gives_rows_columns_and_bands_of_any_layout(
    write, bands, dtype, tmp_path
):
    image, path = noise(bands, dtype), tmp_path / 'image.tif'
    write(path, image)
    loaded = read_image(path, TIFFFILE)
    np.testing.assert_array_equal(loaded, image)
    assert loaded.dtype == dtype and loaded.flags.c_contiguous
    header = tiff_header(path.read_bytes())
    assert (header.bands, header.bits) == (bands, 8 * np.dtype(dtype).itemsize)
    assert header.obstacle  # GIS programs call no band a colour


@pytest.mark.parametrize(
    ('write', 'bands'),
    [(planes, 3), (planes, 4), (pages, 4), (side_by_side, 2), (side_by_side, 4)],
)
def test_what_opencv_reads_as_its_first_band_is_refused_with_what_reads_it(
    write, bands, tmp_path
):
    path = tmp_path / 'image.tif'
    write(path, noise(bands))
    for loader in (None, UNCHANGED):
        with pytest.raises(ValueError, match=r'image\.tif has . (ba|pa)') as error:
            read_image(path, loader)
        assert "Set imdecode_backend='tifffile'" in str(error.value)
        assert f'model.backbone.in_channels={bands}' in str(error.value)
    assert read_image(path, TIFFFILE).shape == (*SIZE, bands)


def test_previews_masks_and_further_pictures_are_no_bands(tmp_path):
    """GDAL keeps a mask of the image's size, scanners a picture on each page."""
    grey, colours = tmp_path / 'grey.tif', tmp_path / 'colours.tif'
    with tifffile.TiffWriter(grey) as file:
        file.write(noise(1), photometric='minisblack')
        file.write(noise(1) > 99, photometric='mask', subfiletype=4)
        file.write(noise(1)[::2, ::2], photometric='minisblack', subfiletype=1)
    assert tiff_header(grey.read_bytes()) == TiffHeader(1, 8)
    assert read_image(grey, UNCHANGED).shape == SIZE
    with tifffile.TiffWriter(colours) as file:
        for _ in range(2):
            file.write(noise(3), photometric='rgb')
    np.testing.assert_array_equal(read_image(colours), noise(3)[..., ::-1])


def test_colours_are_not_multiplied_by_a_fourth_band_that_calls_itself_alpha(tmp_path):
    path = tmp_path / 'infrared.tif'
    tifffile.imwrite(path, noise(4), photometric='rgb', extrasamples=['unassalpha'])
    assert not np.array_equal(cv2.imread(str(path), -1)[..., 2], noise(4)[..., 0])
    with pytest.raises(ValueError, match='OpenCV would multiply the colours'):
        read_image(path, UNCHANGED)
    np.testing.assert_array_equal(read_image(path, TIFFFILE), noise(4))
    assert read_image(path).shape == (*SIZE, 3)  # colours alone, as photographs are


@pytest.mark.parametrize(('dtype', 'is_read'), [('uint8', True), ('uint16', False)])
def test_planes_of_colours_are_read_by_opencv_where_it_reads_them_rightly(
    dtype, is_read, tmp_path
):
    path, image = tmp_path / 'planes.tif', noise(3, dtype)
    planes(path, image, photometric='rgb')
    if is_read:
        np.testing.assert_array_equal(read_image(path), image[..., ::-1])
    else:
        with pytest.raises(ValueError, match='3 bands in planes of their own'):
            read_image(path)


def test_a_photograph_in_tiff_is_read_as_before(tmp_path):
    path = tmp_path / 'photo.tif'
    Image.fromarray(noise(3)).save(path)
    np.testing.assert_array_equal(read_image(path), noise(3)[..., ::-1])


def test_opencv_reads_no_float_as_colours_and_the_way_out_is_named(tmp_path):
    path = tmp_path / 'float.tif'
    tifffile.imwrite(path, noise(3, 'float32'), photometric='rgb')
    with pytest.raises(ValueError, match='3 bands of 32 bits') as error:
        read_image(path)
    assert "set color_type='unchanged', to_float32=True" in str(error.value)
    loader = dict(UNCHANGED, to_float32=True)
    np.testing.assert_array_equal(
        read_image(path, loader), noise(3, 'float32')[..., ::-1]
    )


def test_without_tifffile_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / 'image.tif'
    side_by_side(path, noise(5))
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    with pytest.raises(ValueError, match=r"needs tifffile: .* extra 'tiff'") as error:
        read_image(path, TIFFFILE)
    assert 'pip install tifffile imagecodecs' in str(error.value)


def test_a_compression_that_needs_another_package_names_it(tmp_path, monkeypatch):
    path = tmp_path / 'lzw.tif'
    Image.fromarray(noise(3)).save(path, compression='tiff_lzw')

    class Unpacked(tifffile.TiffPageSeries):
        def asarray(self, **_):
            raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, 'asarray', Unpacked.asarray)
    with pytest.raises(ValueError, match=r'lzw\.tif .*pip install imagecodecs'):
        read_image(path, TIFFFILE)


def test_no_tiff_for_tifffile_and_a_film_are_named(tmp_path):
    photo, film = tmp_path / 'photo.png', tmp_path / 'film.tif'
    Image.fromarray(noise(3)).save(photo)
    with pytest.raises(ValueError, match=r'photo\.png .* cannot be read by tifffile'):
        read_image(photo, TIFFFILE)
    tifffile.imwrite(film, np.zeros((3, 2, *SIZE, 3), np.uint8), photometric='rgb')
    with pytest.raises(ValueError, match=r'film\.tif .*: expected rows, columns, ban'):
        read_image(film, TIFFFILE)


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        (dict(color_type='colour'), "color_type='colour': expected one of 'color'"),
        (dict(imdecode_backend='gdal'), "imdecode_backend='gdal': expected one of"),
    ],
)
def test_an_option_that_no_loader_knows_is_no_damaged_image(option, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        TRANSFORMS.build(dict(type='LoadImageFromFile', **option))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted_and_named(value, tmp_path):
    image, path = noise(3, 'float32'), tmp_path / 'holes.tif'
    image[2, 3], image[4, 5, 1] = value, value
    tifffile.imwrite(path, image, photometric='rgb')
    message = r'holes\.tif: 4 of 612 values are not finite'
    for loader in (TIFFFILE, UNCHANGED):
        with pytest.raises(ValueError, match=message):
            read_image(path, loader)


def test_an_empty_result_may_stand_for_a_bad_image(tmp_path):
    (tmp_path / 'bad.png').write_bytes(b'nothing')
    loader = TRANSFORMS.build(dict(type='LoadImageFromFile', ignore_empty=True))
    for name in ('bad.png', 'missing.png'):
        assert loader(dict(img_path=str(tmp_path / name))) is None


@given(st.binary(max_size=300), st.sampled_from([b'', b'II*\0\x08\0\0\0', b'MM\0+']))
def test_any_bytes_have_a_tiff_header_or_none(content, head):
    header = tiff_header(head + content)
    assert header is None or header.bands >= 0


def test_a_tiff_whose_pages_lead_back_to_the_first_ends():
    entry = struct.pack('<HHII', 256, 4, 1, 5)
    content = b'II*\0' + struct.pack('<IH', 8, 1) + entry + struct.pack('<I', 8)
    assert tiff_header(content).bands > 1


# Pictures


def test_a_picture_of_one_or_two_bands_is_grey_and_of_more_the_first_three():
    for bands in (1, 2):
        image = noise(bands)
        grey = as_picture(image)
        assert grey.shape == (*SIZE, 3) and grey.dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(
                grey[..., channel], image.reshape(*SIZE, -1)[..., 0]
            )
    image = noise(5)
    np.testing.assert_array_equal(as_picture(image), image[..., :3])
    np.testing.assert_array_equal(as_picture(image, False), image[..., 2::-1])
    photo = noise(3)
    assert as_picture(photo) is photo


@pytest.mark.parametrize('dtype', ['uint16', 'float32', 'int16'])
def test_a_deep_picture_is_stretched_from_its_1st_to_its_99th_percentile(dtype):
    ramp = np.linspace(1000, 4000, SIZE[0] * SIZE[1]).reshape(SIZE).astype(dtype)
    picture = as_picture(ramp)[..., 0].ravel()
    assert picture[0] == 0 and picture[-1] == 255
    middle = len(picture) // 2
    assert abs(int(picture[middle]) - 127) <= 2
    assert not as_picture(np.full(SIZE, 7, dtype)).any()


class LoadArray:
    """A loader of one's own, of numpy's files."""

    def __call__(self, results):
        image = np.load(results['img_path']).astype(np.float32)
        sizes = dict(img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return dict(results, img=image, **sizes)


@pytest.fixture
def own_loader(monkeypatch):
    monkeypatch.setitem(TRANSFORMS.module_dict, 'LoadArray', LoadArray)


def test_a_loader_of_ones_own_is_the_one_that_all_use(own_loader, tmp_path):
    data = make_data(tmp_path / 'data', '.npy', 5, write=np.save)
    path = make_config(tmp_path / 'config.py', data, '.npy', 5)
    path.write_text(path.read_text().replace("'LoadImageFromFile'", "'LoadArray'"))
    pairs = LabelledImages(Config.fromfile(path), 'val')
    image, labels, file = pairs[0]
    np.testing.assert_array_equal(image, np.load(file))
    assert image.dtype == np.float32 and labels.shape == image.shape[:2]
    assert pairs.picture(image).shape == (*labels.shape, 3)
    np.testing.assert_array_equal(read_image(file, dict(type='LoadArray')), image)


def test_pictures_of_opencvs_and_of_the_files_order_look_alike(tmp_path):
    """Red is red, whoever reads it."""
    red = np.zeros((*SIZE, 4), np.uint8)
    red[..., 0] = 200
    path = tmp_path / 'red.tif'
    tifffile.imwrite(path, red, photometric='rgb', extrasamples=['unspecified'])
    by_opencv, by_tifffile = (read_image(path, x) for x in (UNCHANGED, TIFFFILE))
    assert by_opencv[0, 0].tolist() == [0, 0, 200, 0]
    assert by_tifffile[0, 0].tolist() == [200, 0, 0, 0]
    expected = cv2.cvtColor(red[..., :3], cv2.COLOR_RGB2BGR)
    np.testing.assert_array_equal(as_picture(by_opencv), expected)
    np.testing.assert_array_equal(as_picture(by_tifffile, False), expected)
