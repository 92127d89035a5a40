"""Published data sets in their layouts: small folders through the real tools.

Over 300 lines: the layouts stand beside the tests that all read them.
"""

import json
import re
from dataclasses import dataclass

import mmseg.datasets
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from tiny_run import ROOT, fails, model_options, run_options, run_tool

from illama_seg.apis import load_config
from illama_seg.errors import MissingFileError, UserError

SIZE = 64, 96
VOC = 'ImageSets/Segmentation/{}.txt'
CONTEXT = 'ImageSets/SegmentationContext/{}.txt'


@dataclass
class Layout:
    """Names of a data set's files, and the labels in them.

    ``train`` and ``val`` have for each list or folder of a split: image, annotation,
    list; ``{}`` is the name of an image.
    """

    kind: str  # of mmseg
    labels: list
    ignored: int
    train: list
    val: list
    palette: bool = False


def folders(images, annotations, *, train='train', val='val'):
    return {
        split: [(images.format(s=name), annotations.format(s=name), None)]
        for split, name in (('train', train), ('val', val))
    }


LAYOUTS = {
    'cityscapes': Layout(
        'CityscapesDataset',
        [*range(19), 255],
        255,
        **folders(
            'leftImg8bit/{s}/ulm/ulm_{{}}_leftImg8bit.png',
            'gtFine/{s}/ulm/ulm_{{}}_gtFine_labelTrainIds.png',
        ),
    ),
    'voc12aug': Layout(
        'PascalVOCDataset',
        [*range(21), 255],
        255,
        [
            ('JPEGImages/{}.jpg', 'SegmentationClass/{}.png', VOC.format('train')),
            ('JPEGImages/{}.jpg', 'SegmentationClassAug/{}.png', VOC.format('aug')),
        ],
        [('JPEGImages/{}.jpg', 'SegmentationClass/{}.png', VOC.format('val'))],
        palette=True,
    ),
    'pascal_context': Layout(
        'PascalContextDataset',
        [*range(60)],
        255,
        *(
            [
                (
                    'JPEGImages/{}.jpg',
                    'SegmentationClassContext/{}.png',
                    CONTEXT.format(s),
                )
            ]
            for s in ('train', 'val')
        ),
    ),
    'coco_stuff164k': Layout(
        'COCOStuffDataset',
        [*range(171), 255],
        255,
        **folders(
            'images/{s}/{{}}.jpg',
            'annotations/{s}/{{}}_labelTrainIds.png',
            train='train2017',
            val='val2017',
        ),
    ),
    'loveda': Layout(
        'LoveDADataset',
        [*range(8)],
        0,
        **folders('img_dir/{s}/{{}}.png', 'ann_dir/{s}/{{}}.png'),
    ),
    'potsdam': Layout(
        'PotsdamDataset',
        [*range(7)],
        0,
        **folders('img_dir/{s}/{{}}.png', 'ann_dir/{s}/{{}}.png'),
    ),
}
FAST = 'voc12aug'  # of several parts, with lists and a palette
every_set = pytest.mark.parametrize('name', LAYOUTS)
slow = pytest.mark.slow


def labels_of(layout):
    """(H, W): every label of the files, in runs of the reading order."""
    count = SIZE[0] * SIZE[1]
    numbers = np.array(layout.labels, np.uint8)
    return numbers[np.arange(count) * len(numbers) // count].reshape(SIZE)


def write(name, root):
    """Two images of each list or folder; their names say which it is."""
    layout, rng = LAYOUTS[name], np.random.default_rng(0)
    labels = Image.fromarray(labels_of(layout))
    if layout.palette:
        colours = np.resize(mmseg_class(name).METAINFO['palette'], 768)
        labels.putpalette(colours.tolist())  # makes it an image of mode 'P'
    for split in ('train', 'val'):
        for part, (image, annotation, listed) in enumerate(getattr(layout, split)):
            names = [f'{split}{part}{letter}' for letter in 'ab']
            for each in names:
                pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
                for path, picture in (
                    (image, Image.fromarray(pixels)),
                    (annotation, labels),
                ):
                    file = root / path.format(each)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    picture.save(file)
            if listed:
                (root / listed).parent.mkdir(parents=True, exist_ok=True)
                (root / listed).write_text('\n'.join(names) + '\n')
    return root


def mmseg_class(name):
    return getattr(mmseg.datasets, LAYOUTS[name].kind)


def config(name, size='tiny'):
    return ROOT / 'configs' / f'upernet_illama_{size}_{name}.py'


def options(name, root):
    """The options of a small model and of the data, after --cfg-options."""
    found = [*model_options(), *run_options()]
    splits = ('train', 'val', 'test')
    found += [f'{split}_dataloader.dataset.data_root={root}' for split in splits]
    if name != 'voc12aug':
        return found
    start = 'train_dataloader.dataset.'
    return [
        option.replace(start, start + part, 1)
        for option in found
        for part in (('datasets.0.', 'datasets.1.') if start in option else ('',))
    ]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Write each data set once, for tests that only read it."""
    written = {}

    def get(name):
        if name not in written:
            written[name] = write(name, tmp_path_factory.mktemp(name))
        return written[name]

    return get


def check(name, root, out, *more):
    """Exit status and report of check_dataset; None for a report not written."""
    chosen = [o for o in options(name, root) if '_dataloader.dataset' in o]
    arguments = [config(name), '--out', out, '--num-images', 1]
    with pytest.raises(SystemExit) as end:
        run_tool('data/check_dataset', *arguments, '--cfg-options', *chosen, *more)
    return end.value.code, json.loads((out / 'report.json').read_text())


# Right data


@every_set
def test_check_dataset_finds_no_fault_all_classes_and_the_ignored_share(
    name, data, tmp_path
):
    code, report = check(name, data(name), tmp_path)
    assert code == 0 and report['faults'] == 0
    layout = LAYOUTS[name]
    for split, found in report['splits'].items():
        assert found['images'] == 2 * len(getattr(layout, split))
        assert [*found['classes']] == [*mmseg_class(name).METAINFO['classes']]
        assert all(row['share'] > 0 for row in found['classes'].values())
        assert found['ignored'] == (labels_of(layout) == layout.ignored).mean()


@every_set
def test_labels_are_the_classes_that_mmsegs_own_data_set_reads(name, data):
    init_default_scope('mmseg')
    settings = load_config(config(name)).val_dataloader.dataset
    settings.update(data_root=str(data(name)))
    settings.pipeline = [settings.pipeline[0], *settings.pipeline[2:4]]
    ours = DATASETS.build(settings)
    theirs = DATASETS.build(
        {**settings, 'type': f'mmseg.{LAYOUTS[name].kind}', 'lazy_init': False}
    )
    assert len(ours) == len(theirs) == 2
    assert ours.metainfo == theirs.metainfo
    found, expected = (dataset[1]['gt_seg_map'] for dataset in (ours, theirs))
    assert found.dtype == np.uint8 and (found == expected).all()
    number = len(ours.metainfo['classes'])
    assert {*np.unique(found)} - {255} == {*range(number)}


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        pytest.param(name, size, marks=() if name == FAST and size == 'tiny' else slow)
        for name in LAYOUTS
        for size in ('tiny', 'base')
    ],
)
def test_every_config_trains_and_validates_and_names_its_data(
    name, size, data, tmp_path
):
    chosen = ['--work-dir', tmp_path, '--cfg-options', *options(name, data(name))]
    run_tool('train', config(name, size), *chosen)
    assert (tmp_path / 'iter_2.pth').is_file()
    (log,) = (path.read_text() for path in tmp_path.glob('*/*.log'))
    cfg, classes = load_config(config(name)), mmseg_class(name).METAINFO['classes']
    for split in ('train', 'val'):
        parts = parts_of(cfg[f'{split}_dataloader'].dataset)
        places = [
            str(data(name) / (part.get('ann_file') or part.data_prefix.img_path))
            for part in parts
        ]
        row = f'{2 * len(parts)} images, {len(classes)} classes: '
        assert f'\n{split} data'.ljust(16) + row + ' and '.join(places) + '\n' in log
    scored = re.findall(r'^\| +(\S.*?) +\| +[\d.]+ +\| +[\d.]+ +\|$', log, re.M)
    assert scored == [*classes]


@every_set
def test_the_two_sizes_differ_in_the_model_alone(name):
    tiny, base = (load_config(config(name, size)) for size in ('tiny', 'base'))
    assert tiny.model.backbone.arch == 'tiny' and base.model.backbone.arch == 'base'
    for key in ('train_dataloader', 'val_dataloader', 'train_cfg', 'optim_wrapper'):
        assert tiny[key] == base[key]
    (crop,) = {
        tuple(step['crop_size'])
        for part in parts_of(tiny.train_dataloader.dataset)
        for step in part.pipeline
        if step['type'] == 'RandomCrop'
    }
    preprocessor = tuple(tiny.model.data_preprocessor.size)
    assert crop == preprocessor == tuple(tiny.model.test_cfg.crop_size)
    size = tiny.model.backbone.img_size
    assert crop == (tuple(size) if isinstance(size, list | tuple) else (size, size))
    assert tiny.param_scheduler[-1].end == tiny.train_cfg.max_iters


def parts_of(dataset):
    return dataset.get('datasets') or [dataset]


# Usual mistakes


@every_set
def test_absent_data_are_shown_with_the_layout_and_the_source(name, tmp_path):
    init_default_scope('mmseg')
    for split in ('train', 'val'):
        cfg = load_config(config(name))[f'{split}_dataloader'].dataset
        for part in parts_of(cfg):
            with pytest.raises(MissingFileError) as error:
                DATASETS.build({**part, 'data_root': str(tmp_path / 'none')})
            message = str(error.value)
            for text in ('Expected layout', 'DATA_ROOT/', 'Get it: ', "mmseg's"):
                assert text in message
            assert str(tmp_path / 'none') in message and 'tools/' not in message


def test_cityscapes_without_train_ids_names_what_makes_them(tmp_path):
    root = write('cityscapes', tmp_path / 'data')
    for path in [*root.rglob('*_labelTrainIds.png')]:
        path.rename(path.with_name(path.name.replace('TrainIds', 'Ids')))
    message = fails_in_both('cityscapes', root, tmp_path)
    assert 'expected files ending in _gtFine_labelTrainIds.png' in message
    assert 'csCreateTrainIdLabelImgs' in message


@pytest.mark.parametrize(
    ('name', 'label', 'mode', 'fix'),
    [
        ('cityscapes', 33, 'L', 'csCreateTrainIdLabelImgs of cityscapesscripts'),
        ('voc12aug', 0, 'RGB', 'Take SegmentationClass from the archive again'),
        ('pascal_context', 459, 'I;16', 'dataset_converters/pascal_context.py'),
        ('coco_stuff164k', 181, 'L', 'dataset_converters/coco_stuff164k.py makes'),
        ('loveda', 8, 'L', 'LoveDA needs 0 (no data) and 1..7'),
        ('potsdam', 0, 'RGB', 'dataset_converters/potsdam.py makes these numbers'),
    ],
)
def test_labels_of_another_numbering_are_named_with_the_cure(
    name, label, mode, fix, tmp_path
):
    root = write(name, tmp_path / 'data')
    (_, path, _), *_ = LAYOUTS[name].train
    path = root / path.format('train0a')
    image = Image.open(path)
    if mode == 'RGB':
        image = image.convert('RGB')
    else:
        kind = np.uint8 if mode == 'L' else np.uint16
        image = np.asarray(image).astype(kind)
        image[3:5] = label
        image = Image.fromarray(image)
    image.save(path)
    kind = 'not class numbers' if mode == 'RGB' else 'label out of range'
    code, report = check(name, root, tmp_path / 'check')
    assert code == 1
    (found,) = (f for f in report['findings'] if f['kind'] == kind)
    assert found['split'] == 'train' and len(found['files']) == 1
    (text,) = found['messages']
    assert str(path) in text and fix in text
    # The sample as a training reads it.
    cfg, *_ = parts_of(load_config(config(name)).train_dataloader.dataset)
    with pytest.raises(UserError) as error:
        DATASETS.build({**cfg, 'data_root': str(root)}).prepare_data(0)
    assert str(path) in str(error.value) and fix in str(error.value)
    if mode != 'RGB':
        assert f'label {label} in' in text and f'label {label} in' in str(error.value)


def test_a_training_on_published_coco_ids_ends_before_its_first_iteration(tmp_path):
    root = write('coco_stuff164k', tmp_path / 'data')
    for path in [*root.rglob('*_labelTrainIds.png')]:
        published = np.arange(SIZE[0] * SIZE[1]) % 182
        Image.fromarray(published.astype(np.uint8).reshape(SIZE)).save(path)
    arguments = [config('coco_stuff164k'), '--work-dir', tmp_path / 'run']
    message = fails(
        'train', *arguments, '--cfg-options', *options('coco_stuff164k', root)
    )
    assert 'label 171 in' in message and 'not the published ids 0..181' in message
    assert not [*(tmp_path / 'run').glob('*.pth')]


@pytest.mark.parametrize('lost', ['SegmentationClassAug', 'aug.txt'])
def test_voc_without_sbd_is_shown_what_makes_it(lost, tmp_path):
    root = write('voc12aug', tmp_path / 'data')
    for path in [*root.rglob(lost)]:
        path.rename(path.with_name('elsewhere'))
    message = fails_in_both('voc12aug', root, tmp_path)
    assert str(root) in message and 'aug.txt' in message.splitlines()[0]
    assert 'voc_aug.py makes SegmentationClassAug and aug.txt' in message


def fails_in_both(name, root, folder):
    """The message that check_dataset and a training end with: the same."""
    more = ['--cfg-options', *options(name, root)]
    found = [
        fails(tool, config(name), option, folder / 'out', *more)
        for tool, option in (('train', '--work-dir'), ('data/check_dataset', '--out'))
    ]
    assert found[0] == found[1]
    return found[0]
