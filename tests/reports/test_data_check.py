import json
import random
import shutil

import cv2
import numpy as np
import pytest
from tiny_run import CONFIG, ROOT, make_ade20k

from illama_seg.apis import load_config
from illama_seg.errors import UserError
from illama_seg.reports import browse_dataset, check_dataset, data_check


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_ade20k(tmp_path_factory.mktemp('data') / 'ade20k')


def config(data, **others):
    splits = ('train', 'val', 'test')
    options = {f'{s}_dataloader.dataset.data_root': str(data) for s in splits}
    return load_config(
        CONFIG,
        {
            **options,
            'train_dataloader.dataset.pipeline.3.scale': (80, 64),
            'train_dataloader.dataset.pipeline.4.crop_size': (64, 64),
            'val_dataloader.dataset.pipeline.1.scale': (160, 128),
            'model.data_preprocessor.size': (64, 64),
            **others,
        },
    )


def near(picture, colour):
    """Pixels of about this RGB colour in a picture of OpenCV."""
    return (np.abs(picture.astype(int) - colour[::-1]).max(-1) < 4).sum()


@pytest.fixture(scope='module')
def checked(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('checked')
    return out, *check_dataset(config(data), out, num_images=4, workers=1)


def test_the_report_is_also_in_a_file(checked):
    out, report, text = checked
    assert json.loads((out / 'report.json').read_text()) == json.loads(
        json.dumps(report)
    )
    assert report['faults'] == 0
    assert [f['kind'] for f in report['findings']] == ['class absent'] * 2
    assert report['splits']['train']['images'] == 4
    assert 'val: 2 images, 64x80 to 64x80, 1.6 % of the pixels ignored' in text
    assert 'faults: 0, warnings: 2' in text


def test_the_table_has_the_classes_that_occur_and_their_shares(checked):
    _, _, text = checked
    rows = [line.split('|')[1:-1] for line in text.splitlines() if '|' in line]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert cells['sky'] == ['48.438', '4', '48.438', '2']  # 31 of 64 rows
    assert set(cells) == {'class', 'sky', 'road', 'car'}


def test_data_sets_of_a_wrapper_that_name_other_classes_are_refused(data, tmp_path):
    cfg = config(data)
    part = cfg.train_dataloader.dataset | dict(metainfo=dict(classes=('a', 'b')))
    other = part | dict(metainfo=dict(classes=('b', 'a')))
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[part, other])
    with pytest.raises(UserError, match=r'dataset\.datasets\.1\.metainfo='):
        check_dataset(cfg, tmp_path, workers=1)


def test_the_contact_sheet_shows_labels_and_names_their_colours(checked):
    picture = cv2.imread(str(checked[0] / 'contact_sheet.png'))
    for colour in ([6, 230, 230], [0, 102, 200]):  # sky and car, of the legend
        assert near(picture, colour) > 150
    assert near(picture, [4, 200, 3]) == 0  # there is no tree
    assert picture.shape[1] == 1600


def test_the_contact_sheet_has_what_the_training_pipeline_makes_and_its_padding(
    data, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(data_check, 'draw_sheet', lambda rows, *_: drawn.extend(rows))
    cfg = config(data, **{'model.data_preprocessor.size': (70, 90)})
    steps = cfg.train_dataloader.dataset.pipeline
    upside = dict(type='RandomFlip', prob=1.0, direction='vertical')
    cfg.train_dataloader.dataset.pipeline = [*steps[:3], upside, steps[-1]]
    check_dataset(cfg, tmp_path, num_images=4, workers=1)
    assert [len(row) for row in drawn] == [3, 1]
    picture, caption = drawn[1][0]
    assert caption == 'training_3.jpg: 70x90, 20 % ignored'
    image = cv2.imread(str(data / 'images' / 'training' / 'training_3.jpg'))
    np.testing.assert_array_equal(picture[:64, :80], image[::-1, :, ::-1])
    assert not picture[64:, :90].any() and not picture[:, 80:90].any()
    # The row without labels was the first, and is the last.
    np.testing.assert_array_equal(picture[63, -90:-10], image[0, :, ::-1] // 4)


def test_the_check_only_reads_the_data_and_leaves_random_numbers_alone(data, tmp_path):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in data.rglob('*')}

    before, numbers = state(), []
    for task in (
        lambda: None,
        lambda: check_dataset(config(data), tmp_path, workers=1),
    ):
        np.random.seed(5)
        random.seed(5)
        task()
        numbers.append((np.random.random(), random.random()))
    assert state() == before
    assert numbers[0] == numbers[1]


def test_no_image_is_made_where_none_is_asked_for(data, tmp_path):
    check_dataset(config(data), tmp_path, num_images=0, workers=1)
    assert [file.name for file in tmp_path.iterdir()] == ['report.json']


def test_test_data_of_its_own_are_said_not_to_be_checked(data, tmp_path):
    said = 'test_dataloader has data of its own'
    assert said not in check_dataset(config(data), tmp_path, num_images=0, workers=1)[1]
    option = {'test_dataloader.dataset.data_prefix.img_path': 'images/training'}
    assert (
        said
        in check_dataset(config(data, **option), tmp_path, num_images=0, workers=1)[1]
    )


def test_a_training_pipeline_that_fails_is_a_fault(data, tmp_path):
    option = {'train_dataloader.dataset.pipeline.2.num_classes': 3}
    report, text = check_dataset(config(data, **option), tmp_path, workers=1)
    assert report['findings'][0]['kind'] == 'pipeline fails'
    assert report['faults'] == 2 and 'label 7 in 2560 pixels; 3 classes' in text


def test_a_head_of_another_number_of_classes_is_found(data, tmp_path):
    option = {'model.decode_head.num_classes': 149}
    report, text = check_dataset(
        config(data, **option), tmp_path, num_images=0, workers=1
    )
    assert report['faults'] == 2  # train and val
    assert 'model.decode_head.num_classes=149, but the train data set names 150' in text


@pytest.mark.parametrize('wrapper', ['ConcatDataset', 'RepeatDataset', 'mixed'])
def test_data_sets_in_a_wrapper_are_browsed(wrapper, data, tmp_path):
    cfg = config(data)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = {
        'ConcatDataset': dict(type='ConcatDataset', datasets=[inner, inner]),
        'RepeatDataset': dict(type='RepeatDataset', times=2, dataset=inner),
        'mixed': dict(type='MultiImageMixDataset', dataset=inner, pipeline=[]),
    }[wrapper]
    browse_dataset(cfg, out=tmp_path / 'wrapped.png', num_images=8, draws=1)
    browse_dataset(config(data), out=tmp_path / 'plain.png', num_images=4, draws=1)
    wrapped, plain = (
        cv2.imread(str(tmp_path / f'{name}.png')) for name in ('wrapped', 'plain')
    )
    twice = wrapper != 'mixed'
    assert (wrapped.shape[0] > 1.5 * plain.shape[0]) == twice


@pytest.mark.parametrize('tool', [check_dataset, browse_dataset])
def test_a_classification_is_refused(tool):
    cfg = load_config(ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py')
    with pytest.raises(ValueError, match='expected the config of a segmentation'):
        tool(cfg)


def test_browsing_draws_the_file_and_its_augmentations(data, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(data_check, 'draw_sheet', lambda rows, *_: drawn.append(rows))
    out = tmp_path / 'deep' / 'train.png'
    for seed in (0, 0, 1):
        assert (
            browse_dataset(
                config(data), 'train', out=out, num_images=2, draws=3, seed=seed
            )
            == out
        )
    first, same, other = drawn
    assert [len(row) for row in first] == [4, 4]
    image = cv2.imread(str(data / 'images' / 'training' / 'training_3.jpg'))
    file, caption = first[1][0]
    assert caption == 'training_3.jpg, 64x80'
    np.testing.assert_array_equal(file[:, :80], image[..., ::-1])
    for row in (0, 1):
        np.testing.assert_array_equal(first[row][3][0], same[row][3][0])
        assert not np.array_equal(first[row][3][0], other[row][3][0])


def test_browsing_takes_a_test_pipeline_that_resizes_the_image_alone(data, tmp_path):
    browse_dataset(config(data), 'val', out=tmp_path / 'val.png', num_images=1, draws=1)
    picture = cv2.imread(str(tmp_path / 'val.png'))
    assert near(picture, [6, 230, 230]) > 150


@pytest.mark.parametrize('option', ['num_images', 'draws'])
def test_nothing_to_browse_is_refused(option, data):
    with pytest.raises(ValueError, match=f'{option}=0: expected at least 1'):
        browse_dataset(config(data), **{option: 0})


def test_masks_of_0_and_255_are_a_fault(data, tmp_path):
    """The object is 255, which is ignored: a class that can never come."""
    root = shutil.copytree(data, tmp_path / 'masks')
    for path in (root / 'annotations').rglob('*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == 3, 255, 0).astype(np.uint8))
    cfg = config(root)
    for split in ('train', 'val'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.update(type='CheckedSegDataset', reduce_zero_label=False)
        dataset.update(img_suffix='.jpg', seg_map_suffix='.png')
        dataset.metainfo = dict(classes=('ground', 'sky'))
        for step in dataset.pipeline:
            if step.type == 'CheckAnnotations':
                step.num_classes = 2
    cfg.model.decode_head.num_classes = cfg.model.auxiliary_head.num_classes = 2
    report, text = check_dataset(cfg, tmp_path / 'out', num_images=0, workers=1)
    kinds = [f['kind'] for f in report['findings'] if f['level'] == 'fault']
    assert kinds.count('every label but 0 is ignored') == 1, text
    assert 'write 1 for the object' in ' '.join(text.split())
