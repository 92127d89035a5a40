import json
import shutil

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from illama_seg.pretrain import ImageNet21KPDataset, ImageNetDataset, check_classes

PIPELINE = [
    dict(type='LoadRGBImage'),
    dict(type='ClsTransform', input_size=8),
    dict(type='PackClsInputs'),
]


@pytest.fixture
def root(tmp_path):
    """Three classes, two images each, in train and val."""
    for split in ('train', 'val'):
        for shade, name in enumerate(('ant', 'bee', 'cat')):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                pixels = np.full((9, 9, 3), 50 * shade, np.uint8)
                Image.fromarray(pixels).save(folder / f'{number}.JPEG')
    return tmp_path


def build(root, split='train', kind='ImageFolderDataset', **settings):
    return DATASETS.build(
        dict(
            type=kind,
            data_root=str(root),
            data_prefix=split,
            pipeline=PIPELINE,
            **settings,
        )
    )


def labels(data):
    return [data.get_data_info(i)['gt_label'] for i in range(len(data))]


def test_classes_are_the_folders_in_the_order_of_their_names(root):
    data = build(root)
    assert data.metainfo['classes'] == ('ant', 'bee', 'cat')
    assert labels(data) == [0, 0, 1, 1, 2, 2]
    sample = data[4]
    assert sample['data_samples'].gt_label.tolist() == [2]
    assert abs(int(sample['inputs'].max()) - 100) < 3
    assert sample['data_samples'].img_path.endswith('train/cat/0.JPEG')


NAMED = [['cat', 'Cat'], ['ant', 'Ant'], ['bee', 'A bee']]


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('index.json', json.dumps({str(i): row for i, row in enumerate(NAMED)})),
        ('index.json', json.dumps(NAMED)),
        ('index.txt', '\n'.join(map(' '.join, NAMED))),
    ],
    ids=['imagenet json', 'list', 'text'],
)
def test_a_class_index_gives_order_and_names(name, text, root):
    (root / name).write_text(text)
    data = build(root, class_index=name)
    assert data.metainfo['classes'] == ('Cat', 'Ant', 'A bee')
    assert labels(data) == [0, 0, 1, 1, 2, 2]
    assert data.get_data_info(0)['img_path'].endswith('cat/0.JPEG')


def test_hidden_files_and_folders_are_no_classes_and_no_images(root):
    for folder in (root / 'train', root / 'train' / 'ant'):
        hidden = folder / '.ipynb_checkpoints'
        shutil.copytree(root / 'train' / 'bee', hidden)
        (folder / '.DS_Store').touch()
    data = build(root)
    assert data.metainfo['classes'] == ('ant', 'bee', 'cat')
    assert labels(data) == [0, 0, 1, 1, 2, 2]


def test_a_class_index_without_names_gives_the_folders(root):
    (root / 'index.txt').write_text('bee\ncat\nant\n')
    data = build(root, class_index='index.txt')
    assert data.metainfo['classes'] == ('bee', 'cat', 'ant')


def test_a_list_of_images_takes_the_place_of_the_folders(root):
    (root / 'index.txt').write_text('ant\nbee\ncat\n')
    (root / 'list.txt').write_text('cat/1.JPEG 2\n\nant/0.JPEG\t0\n')
    data = build(root, class_index='index.txt', ann_file='list.txt')
    assert labels(data) == [2, 0]
    assert data.get_data_info(0)['img_path'].endswith('train/cat/1.JPEG')


@pytest.mark.parametrize('line', ['ant/0.JPEG 3', 'ant/0.JPEG -1', 'ant/0.JPEG', '7'])
def test_a_label_out_of_range_is_named_with_its_line(line, root):
    (root / 'index.txt').write_text('ant\nbee\ncat\n')
    (root / 'list.txt').write_text(f'cat/1.JPEG 2\n{line}\n')
    with pytest.raises(ValueError, match=r'list\.txt, line 2: .* label from 0 to 2'):
        build(root, class_index='index.txt', ann_file='list.txt')


def test_a_list_without_an_index_is_refused(root):
    (root / 'list.txt').write_text('cat/1.JPEG 2\n')
    with pytest.raises(ValueError, match='needs a class_index'):
        build(root, ann_file='list.txt')


@pytest.mark.parametrize('text', ['ant\nbee\n', 'ant\nbee\ncat\ndog\n'])
def test_an_index_of_other_classes_is_shown_with_what_differs(text, root):
    (root / 'index.txt').write_text(text)
    with pytest.raises(ValueError, match=r'index\.txt differ in their .*(cat|dog)'):
        build(root, class_index='index.txt')


@pytest.mark.parametrize(
    ('name', 'text', 'reason'),
    [
        ('index.json', '{"0": ', 'is no class index'),
        ('index.json', '{"1": ["ant"]}', 'is no class index'),
        ('index.json', '5', 'is no class index'),
        ('index.txt', 'ant\nant\n', 'names a folder twice'),
    ],
)
def test_a_broken_index_is_named(name, text, reason, root):
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=rf'{name}.* {reason}|{name} {reason}'):
        build(root, class_index=name)


def test_an_empty_class_folder_is_named(root):
    shutil.rmtree(root / 'train' / 'bee')
    (root / 'train' / 'bee').mkdir()
    with pytest.raises(ValueError, match=r'class folder .*train/bee is empty'):
        build(root)


def test_a_file_that_is_no_image_by_its_name_is_named(root):
    (root / 'train' / 'bee' / 'notes.txt').touch()
    (root / 'train' / 'bee' / '.hidden').touch()
    with pytest.raises(ValueError, match=r'bee/notes\.txt is no image by its name'):
        build(root)


def test_a_file_that_is_no_image_by_its_content_is_named_when_read(root):
    (root / 'train' / 'ant' / '0.JPEG').write_bytes(b'nonsense')
    data = build(root, test_mode=True)
    with pytest.raises(ValueError, match=r'train/ant/0\.JPEG is no image'):
        data[0]


@pytest.mark.parametrize(
    ('kind', 'prefix', 'layout'),
    [
        ('ImageNetDataset', 'train', 'DATA_ROOT/val/n01440764'),
        ('ImageNet21KPDataset', 'imagenet21k_train', 'DATA_ROOT/imagenet21k_val/'),
    ],
)
def test_a_missing_imagenet_is_shown_with_its_layout(kind, prefix, layout, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        build(tmp_path / 'nowhere', prefix, kind)
    for text in ('nowhere', layout, 'train_dataloader.dataset.data_root=DIR'):
        assert text in str(error.value)


@pytest.mark.parametrize('kind', ['ImageNetDataset', 'ImageNet21KPDataset'])
def test_imagenet_with_other_than_its_classes_is_refused(kind, root):
    number = DATASETS.get(kind).NUM_CLASSES
    with pytest.raises(ValueError, match=f'3 classes and 6 images, expected {number}'):
        build(root, kind=kind)


def test_the_imagenets_have_as_many_classes_as_published():
    assert ImageNetDataset.NUM_CLASSES == 1000
    assert ImageNet21KPDataset.NUM_CLASSES == 10450


# Splits and head


def test_splits_and_head_of_the_same_classes_are_fine(root):
    classes = {s: build(root, s).metainfo['classes'] for s in ('train', 'val')}
    check_classes(3, classes)


@pytest.mark.parametrize(
    ('val', 'text'),
    [
        (('ant', 'bee'), "val data has 2 classes, train data 3, .*'cat'"),
        (('ant', 'bee', 'dog'), "differ, first in 'cat'"),
        (('bee', 'ant', 'cat'), 'their order differs'),
    ],
)
def test_validation_classes_other_than_those_of_training_are_refused(val, text):
    with pytest.raises(ValueError, match=text):
        check_classes(3, dict(train=('ant', 'bee', 'cat'), val=val))


def test_a_head_of_another_number_of_classes_is_refused_with_the_options():
    with pytest.raises(
        ValueError, match=r'num_classes=5, .* train data has 2'
    ) as error:
        check_classes(5, dict(train=('ant', 'bee')))
    assert 'model.head.num_classes=2' in str(error.value)
