import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from mmseg.datasets import BaseSegDataset
from PIL import Image

import illama_seg  # noqa: F401 (registers the data sets)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


@pytest.fixture
def root(tmp_path):
    """Three images with annotations, two of them in a folder of their own."""
    for name in ('a', 'sub/b', 'sub/c'):
        for kind, suffix in (('img', '.jpg'), ('ann', '_ids.png')):
            path = tmp_path / kind / f'{name}{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ones((6, 9), np.uint8)).save(path)
    return tmp_path


def arguments(root, content, ann_file='list.txt'):
    (root / 'list.txt').write_bytes(content)
    return dict(
        ann_file=ann_file,
        data_root=str(root),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        seg_map_suffix='_ids.png',
        metainfo=dict(classes=('soil', 'crop')),
    )


def read(root, content, **others):
    """Build the data set; its (image, annotation) below the data's folders."""
    settings = arguments(root, content) | others
    data = DATASETS.build(dict(type='CheckedSegDataset', **settings))
    samples = [data.get_data_info(index) for index in range(len(data))]
    return [
        tuple(
            sample[key].removeprefix(f'{root}/') for key in ('img_path', 'seg_map_path')
        )
        for sample in samples
    ]


A = ('img/a.jpg', 'ann/a_ids.png')
C = ('img/sub/c.jpg', 'ann/sub/c_ids.png')


def test_a_list_gives_its_samples_in_its_order_as_mmseg_does(root):
    content = b'sub/c\na\n'
    assert read(root, content) == [C, A]
    theirs = BaseSegDataset(**arguments(root, content))
    ours = DATASETS.build(dict(type='CheckedSegDataset', **arguments(root, content)))
    assert [theirs.get_data_info(i) for i in (0, 1)] == [
        ours.get_data_info(i) for i in (0, 1)
    ]


@pytest.mark.parametrize(
    'content',
    [
        b'sub/c\r\na\r\n',
        b'\n sub/c \n\n\ta\n\n',
        b'\xef\xbb\xbfsub/c\na',
        b'sub/c.jpg\na.jpg\n',
        b'sub/c\ra',
    ],
    ids=['CRLF', 'blank lines', 'byte order mark', 'with suffix', 'CR'],
)
def test_a_list_of_any_editor_is_read(content, root):
    assert read(root, content) == [C, A]


def test_a_line_that_stands_twice_counts_twice_as_in_mmseg(root):
    assert read(root, b'a\na\n') == [A, A]


def test_an_absolute_path_has_its_annotation_in_the_annotations_folder(root):
    assert read(root, f'{root}/img/sub/c.jpg\n{root}/img/a'.encode()) == [C, A]


def test_each_of_several_suffixes_is_looked_for(root):
    (root / 'img' / 'a.jpg').rename(root / 'img' / 'a.png')
    found = read(root, b'a\nsub/c', img_suffix=('.jpg', '.png'))
    assert found == [('img/a.png', A[1]), C]


def test_without_annotations_the_list_names_images_only(root):
    prefix = dict(img_path='img', seg_map_path=None)
    settings = arguments(root, b'a') | dict(data_prefix=prefix)
    data = DATASETS.build(dict(type='CheckedSegDataset', **settings))
    assert 'seg_map_path' not in data.get_data_info(0)


@pytest.mark.parametrize(
    ('content', 'texts'),
    [
        (b'a\n\nsub/x\n', ['1 of 2', 'line 3: no image', 'img/sub/x.jpg', 'remove']),
        (b'img/a.jpg\n', ['line 1: no image', 'img/img/a.jpg', 'below data_prefix']),
        (b'a ann/a.png\n', ['line 1: no image', 'a ann/a.png.jpg']),
        (b'x\n' * 9, ['9 of 9', 'line 5', 'and 4 more']),
        (b'\n\n', ['names no image', 'one in each line']),
        ('a\n'.encode('utf-16'), ['no text in UTF-8 (byte 0)']),
    ],
)
def test_a_faulty_list_is_named_with_its_line_and_the_fix(content, texts, root):
    with pytest.raises(ValueError) as error:
        read(root, content)
    assert str(error.value).startswith(f"ann_file='{root}/list.txt': ")
    for text in texts:
        assert text in str(error.value)


def test_an_image_of_a_list_without_annotation_is_named(root):
    (root / 'ann' / 'a_ids.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'line 2: no annotation .*a_ids\.png'):
        read(root, b'sub/c\na\n')


def test_a_list_that_is_not_there_is_named_with_what_it_holds(root):
    with pytest.raises(
        FileNotFoundError, match=r"no\.txt': no such list: .*img_suffix"
    ):
        read(root, b'', ann_file='no.txt')


def test_a_folder_is_no_list_as_in_mmseg(root):
    assert len(read(root, b'a', ann_file='ann')) == 3
