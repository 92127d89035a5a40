import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from PIL import Image

import illama_seg  # noqa: F401 (registers the data sets)
from illama_seg.apis.models import annotation_ids
from illama_seg.errors import UserError

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
TYPES = {'ade': 'CheckedADE20KDataset', 'camvid': 'CamVidDataset'}
NUM_CLASSES = {'ade': 150, 'camvid': 11}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


@pytest.fixture
def root(tmp_path):
    """Two images with annotations of the same names."""
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    for name in 'ab':
        write(tmp_path, name)
    return tmp_path


def write(root, name, image=None, labels=None, suffix='.jpg'):
    image = np.full((6, 9, 3), 90, np.uint8) if image is None else image
    labels = np.ones((6, 9), np.uint8) if labels is None else labels
    assert cv2.imwrite(str(root / 'img' / f'{name}{suffix}'), image)
    Image.fromarray(labels).save(root / 'ann' / f'{name}.png')


def build(root, kind='ade', **settings):
    check = dict(type='CheckAnnotations', num_classes=NUM_CLASSES[kind])
    settings = dict(pipeline=[*LOAD, check], test_mode=True, **settings)
    prefix = dict(img_path='img', seg_map_path='ann')
    return DATASETS.build(
        dict(type=TYPES[kind], data_root=str(root), data_prefix=prefix, **settings)
    )


@pytest.mark.parametrize(
    ('kind', 'layout', 'how'),
    [
        ('ade', 'DATA_ROOT/images/{training,validation}', 'ADEChallengeData2016.zip'),
        ('camvid', 'DATA_ROOT/{trainannot,valannot}', "prepare_camvid('data/camvid')"),
    ],
)
@pytest.mark.parametrize('folder', ['img', 'ann'])
def test_a_missing_folder_is_shown_with_the_layout_and_how_to_get_it(
    kind, layout, how, folder, root
):
    (root / folder).rename(root / 'elsewhere')
    with pytest.raises(FileNotFoundError) as error:
        build(root, kind)
    for text in (str(root / folder), layout, how):
        assert text in str(error.value)


def test_an_empty_folder_says_which_files_it_needs(root):
    for file in (root / 'img').iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r'no image in .*img: .* ending in \.jpg'):
        build(root)


def test_an_image_without_annotation_is_named(root):
    (root / 'ann' / 'b.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'img/b\.jpg has no annot.*ann/b\.png'):
        build(root)


@pytest.mark.slow
def test_data_of_ones_own_need_no_class_but_names_in_the_config(root):
    settings = dict(
        type='CheckedSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        metainfo=dict(classes=('soil', 'crop')),
        pipeline=[*LOAD, dict(type='CheckAnnotations', num_classes=2)],
    )
    data = DATASETS.build(settings)
    assert data.metainfo['classes'] == ('soil', 'crop')
    assert np.all(data[0]['gt_seg_map'] == 1)
    write(root, 'a', labels=np.full((6, 9), 2, np.uint8))
    with pytest.raises(ValueError, match=r'ann/a\.png: label 2 .* need 0\.\.1'):
        data[0]
    (root / 'ann' / 'b.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'img/b\.jpg has no annot'):
        DATASETS.build(settings)


@pytest.mark.parametrize('shape', [(6, 8), (9, 6), (6, 9, 3)])
def test_an_annotation_of_another_size_is_named_with_its_image(shape, root):
    write(root, 'b', labels=np.ones(shape, np.uint8))
    data = build(root)
    data[0]
    with pytest.raises(ValueError) as error:
        data[1]
    for text in ('ann/b.png', 'img/b.jpg', str(shape), '(6, 9)'):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ('kind', 'label'), [('ade', 151), ('ade', 200), ('camvid', 12)]
)
def test_a_label_out_of_range_is_named_as_it_is_in_the_file(kind, label, root):
    labels = np.ones((6, 9), np.uint8)
    labels[2, 3:5] = label
    write(root, 'a', labels=labels)
    with pytest.raises(ValueError, match=rf'ann/a\.png: label {label} in 2 pixels'):
        build(root, kind)[0]


def test_a_label_of_16_bits_is_not_taken_for_its_lower_8(root):
    write(root, 'a', labels=np.full((6, 9), 260, np.uint16))
    write(root, 'b', labels=np.full((6, 9), 7, np.uint16))
    data = build(root)
    with pytest.raises(ValueError, match=r'ann/a\.png: label 260'):
        data[0]
    assert np.all(data[1]['gt_seg_map'] == 6)


def test_the_zero_label_of_ade20k_is_ignored_and_the_others_move_down(root):
    labels = np.ones((6, 9), np.uint8)
    labels[0, :4] = 0, 1, 150, 255
    write(root, 'a', labels=labels)
    found = build(root)[0]['gt_seg_map']
    assert found[0, :3].tolist() == [255, 0, 149]
    assert np.all(found[1:] == 0)


def test_void_of_camvid_is_ignored_and_the_others_stay(root):
    write(root, 'a', labels=np.tile(np.arange(9, dtype=np.uint8), (6, 1)) + 3)
    found = build(root, 'camvid')[0]['gt_seg_map']
    assert found[0].tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 255]


def test_camvid_takes_png_and_jpg_images(root):
    write(root, 'c', suffix='.png')
    data = build(root, 'camvid')
    names = [data.get_data_info(i)['img_path'][-5:] for i in range(len(data))]
    assert names == ['a.jpg', 'b.jpg', 'c.png']
    assert all(data[i]['img'].shape == (6, 9, 3) for i in range(3))


def test_the_classes_are_those_published():
    camvid = DATASETS.get('CamVidDataset').METAINFO
    assert len(camvid['classes']) == len(camvid['palette']) == 11
    assert len(set(map(tuple, camvid['palette']))) == 11
    assert DATASETS.get('CheckedADE20KDataset').METAINFO['classes'][2] == 'sky'


@pytest.mark.parametrize('damage', ['truncated', 'garbage', 'empty'])
def test_a_corrupt_jpeg_is_named(damage, root):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write(root, 'b', noise, np.ones((64, 64), np.uint8))
    file = root / 'img' / 'b.jpg'
    whole = file.read_bytes()
    damaged = dict(
        truncated=whole[: len(whole) // 2], garbage=b'nonsense' * 99, empty=b''
    )
    file.write_bytes(damaged[damage])
    data = build(root)
    with pytest.raises(ValueError, match=r'img/b\.jpg'):
        data[1]


def test_a_corrupt_annotation_is_named(root):
    (root / 'ann' / 'b.png').write_bytes(b'nonsense')
    with pytest.raises(ValueError, match=r'ann/b\.png'):
        build(root)[1]


@pytest.mark.parametrize(
    ('shape', 'dtype'), [((6, 9), 'uint8'), ((6, 9, 4), 'uint8'), ((6, 9, 3), 'uint16')]
)
def test_grey_rgba_and_16_bit_images_load_as_three_channels_of_8_bits(
    shape, dtype, root
):
    top = np.iinfo(dtype).max
    write(root, 'c', np.full(shape, top // 2, dtype), suffix='.png')
    image = build(root, 'camvid')[2]['img']
    assert image.shape == (6, 9, 3) and image.dtype == np.uint8
    assert np.all(abs(image.astype(int) - 127) <= 1)


def test_images_may_have_no_annotations_at_all(root):
    prefix = dict(img_path='img', seg_map_path=None)
    settings = dict(type='CheckedSegDataset', metainfo=dict(classes=('a', 'b')))
    data = DATASETS.build(
        dict(settings, data_root=str(root), data_prefix=prefix, pipeline=LOAD[:1])
    )
    assert len(data) == 2 and 'seg_map_path' not in data.get_data_info(0)
    assert data[0]['img'].shape == (6, 9, 3)


def test_an_empty_folder_of_annotations_says_which_files_it_needs(root):
    for file in (root / 'ann').iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r'no annotation in .*ann: .* in \.png'):
        build(root)


def test_images_without_annotations_pass_the_check():
    check = TRANSFORMS.build(dict(type='CheckAnnotations', num_classes=2))
    assert check({'img_path': 'x'}) == {'img_path': 'x'}


def test_an_error_without_text_is_said_by_the_line_that_failed(root):
    def odd(sample):
        raise AssertionError

    dataset = build(root)
    dataset.pipeline.transforms.append(odd)
    with pytest.raises(UserError, match='AssertionError: at `raise AssertionError`'):
        dataset.prepare_data(0)


GROUPS = dict(above=['Sky', 'Tree'], ground=['Road', 'Pavement'])


def test_groups_unite_classes_and_ignore_the_others(root):
    labels = np.arange(12, dtype=np.uint8).repeat(4)[:54].reshape(6, 8)
    for name in 'ab':
        write(root, name, image=np.zeros((6, 8, 3), np.uint8), labels=labels)
    dataset = build(root, 'camvid', groups=GROUPS)
    assert dataset.metainfo['classes'] == ('above', 'ground')
    assert dataset.metainfo['palette'] == [[128, 128, 128], [128, 64, 128]]
    found = dataset[0]['gt_seg_map']
    expected = np.full((6, 8), 255)
    for number, ids in enumerate([(0, 5), (3, 4)]):
        expected[np.isin(labels, ids)] = number
    assert (found == expected).all()
    # Predictions are written with the first id of each group.
    assert annotation_ids(dataset.metainfo).tolist() == [0, 3]


def test_groups_of_some_classes_keep_the_ids_of_the_files(root):
    labels = np.arange(12, dtype=np.uint8).repeat(4)[:48].reshape(6, 8)
    for name in 'ab':
        write(root, name, image=np.zeros((6, 8, 3), np.uint8), labels=labels)
    some = dict(classes=('Road', 'Sky'))
    groups = dict(ground=['Road'], above=['Sky'])
    found = build(root, 'camvid', metainfo=some, groups=groups)[0]['gt_seg_map']
    expected = np.full((6, 8), 255)
    expected[labels == 3], expected[labels == 0] = 0, 1
    assert (found == expected).all()


@pytest.mark.parametrize(
    ('groups', 'message'),
    [
        (dict(a=['Sky'], b=['Sky']), "groups.b: 'Sky' is named twice"),
        (dict(a=['Sky', 'Sky']), "groups.a: 'Sky' is named twice"),
        (dict(a='Sky'), "groups.a='Sky': expected a list"),
        (dict(a=None), 'groups.a=None: expected a list'),
        ({}, 'groups={}: expected a dict'),
        (['Sky'], r"groups=\['Sky'\]: expected a dict"),
        (dict(a=['sky']), "groups.a: 'sky' is no class, expected .* Sky, Building"),
        (dict(a=['Sky'], b=[]), r'groups.b=\[\]: expected a list'),
    ],
)
def test_groups_that_fit_no_class_are_named(root, groups, message):
    with pytest.raises(UserError, match=message):
        build(root, 'camvid', groups=groups)
