import shutil

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image
from tiny_run import make_ade20k

import illama_seg  # noqa: F401 (registers the data sets)
from illama_seg.datasets import inspection
from illama_seg.datasets.inspection import inspect_pairs
from illama_seg.datasets.validation import check_splits

CLASSES = ('sky', 'road', 'car', 'tree')
COUNTS = {'train': 4, 'val': 2}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


@pytest.fixture
def root(tmp_path):
    """A sound data set of mmseg's kind: labels 0..3 in columns, ignored below."""
    for split, count in COUNTS.items():
        for kind in ('img', 'ann'):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(count):
            write(tmp_path, split, index, columns(0, 1, 2, 3))
    return tmp_path


def columns(*labels, dtype=np.uint8):
    """(8, 12) labels in columns of equal width, and a last row of 255."""
    array = np.repeat(np.array(labels, dtype), 12 // len(labels))[None].repeat(8, 0)
    array[-1] = 255
    return array


def write(root, split, index, labels):
    seed = 10 * index + (split == 'val')
    image = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(image).save(root / 'img' / split / f'{index}.jpg')
    Image.fromarray(labels).save(root / 'ann' / split / f'{index}.png')


def rewrite(root, *labels):
    for split, count in COUNTS.items():
        for index in range(count):
            write(root, split, index, columns(*labels))


def settings(root, reduced=(False, False), kind='BaseSegDataset', **others):
    return {
        split: dict(
            type=kind,
            data_root=str(root),
            data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'),
            metainfo=dict(classes=CLASSES),
            reduce_zero_label=flag,
            **others,
        )
        for split, flag in zip(COUNTS, reduced, strict=True)
    }


def check(root, **options):
    return check_splits(settings(root, **options), workers=1)


# The planted faults: what is done, then kind, split and words of what is found.


def labels_from_1_kept(root):
    rewrite(root, 0, 1, 2, 3, 4, 4)
    return {}


def labels_from_0_reduced(root):
    return dict(reduced=(True, True))


def reduced_in_train_only(root):
    rewrite(root, 0, 1, 2, 3, 4, 4)
    return dict(reduced=(True, False))


def label_beyond_the_classes(root):
    write(root, 'train', 2, columns(0, 1, 2, 9))
    return {}


def label_of_16_bits(root):
    write(root, 'val', 1, columns(0, 1, 2, 258, dtype=np.uint16))
    return {}


def class_in_val_only(root):
    for index in range(COUNTS['train']):
        write(root, 'train', index, columns(0, 1, 2))
    return {}


def truncated_image(root):
    file = root / 'img' / 'train' / '1.jpg'
    file.write_bytes(file.read_bytes()[:-60])
    return {}


def text_for_an_annotation(root):
    (root / 'ann' / 'val' / '0.png').write_text('labels')
    return {}


def image_without_annotation(root):
    (root / 'ann' / 'train' / '3.png').unlink()
    return {}


def annotation_without_image(root):
    (root / 'img' / 'val' / '1.jpg').unlink()
    return {}


def annotation_of_another_size(root):
    Image.fromarray(columns(0, 1, 2, 3)[:, :10]).save(root / 'ann/train/0.png')
    return {}


def colours_for_an_annotation(root):
    Image.new('RGB', (12, 8), 'red').save(root / 'ann' / 'train' / '0.png')
    return {}


def training_image_in_validation(root):
    shutil.copyfile(root / 'img' / 'train' / '2.jpg', root / 'img' / 'val' / '1.jpg')
    return {}


def jpeg_for_an_annotation(root):
    image = Image.fromarray(columns(0, 1, 2, 3))
    image.save(root / 'ann' / 'train' / '0.png', format='JPEG', quality=100)
    return {}


def turned_picture_with_the_annotation_as_stored(root):
    exif = Image.Exif()
    exif[0x112] = 6  # shown, and loaded by OpenCV, as 12 high and 8 wide
    picture = Image.open(root / 'img' / 'train' / '0.jpg')
    picture.save(root / 'img' / 'train' / '0.jpg', exif=exif)
    return {}


def nothing_annotated(root):
    write(root, 'train', 1, columns(255))
    return {}


PLANTED = {
    labels_from_1_kept: (
        'reduce_zero_label',
        'train and val',
        [
            'the labels are 0..4, with 4 classes, which are 0..3',
            'Either they count from 1',
            'Or 4 (33 % of the pixels) means not annotated',
            "learnt as 'sky'",
            'train_dataloader.dataset.reduce_zero_label=True',
        ],
    ),
    labels_from_0_reduced: (
        'reduce_zero_label',
        'train and val',
        [
            '0..3, with 4 classes: they seem to count from 0',
            "'sky' is learnt from label",
            'label 0 (25 %',
            'val_dataloader.dataset.reduce_zero_label=False',
        ],
    ),
    reduced_in_train_only: (
        'reduce_zero_label',
        'train and val',
        [
            'train_dataloader.dataset.reduce_zero_label=True, val_dataloader.',
            'expected the same of each',
        ],
    ),
    label_beyond_the_classes: (
        'label out of range',
        'train',
        ['ann/train/2.png: label 9 in 21 pixels', '4 classes need 0..3 or 255'],
    ),
    label_of_16_bits: ('label out of range', 'val', ['ann/val/1.png: label 258']),
    class_in_val_only: ('class never seen', 'train', ['tree (3)', 'but in val']),
    truncated_image: ('image unreadable', 'train', ['img/train/1.jpg', 'truncated']),
    text_for_an_annotation: (
        'annotation unreadable',
        'val',
        ['ann/val/0.png cannot be read: it is no image'],
    ),
    image_without_annotation: (
        'image without annotation',
        'train',
        ['img/train/3.jpg: expected', 'ann/train/3.png'],
    ),
    annotation_without_image: (
        'annotation without image',
        'val',
        ['ann/val/1.png: expected its image in', 'img/val, ending in .jpg'],
    ),
    annotation_of_another_size: (
        'size mismatch',
        'train',
        ['ann/train/0.png: the annotation is (8, 10)', 'img/train/0.jpg is (8, 12)'],
    ),
    colours_for_an_annotation: (
        'not class numbers',
        'train',
        ['ann/train/0.png: the annotation is a colour image (RGB, (8, 12, 3))'],
    ),
    jpeg_for_an_annotation: (
        'lossy annotation',
        'train',
        ['ann/train/0.png is a JPEG', 'Expected a PNG'],
    ),
    turned_picture_with_the_annotation_as_stored: (
        'size mismatch',
        'train',
        ['ann/train/0.png: the annotation is (8, 12)', 'img/train/0.jpg is (12, 8)'],
    ),
    training_image_in_validation: (
        'the same image in both',
        'train and val',
        ['img/val/1.jpg is', 'img/train/2.jpg, byte for byte', 'Remove it from'],
    ),
    nothing_annotated: (
        'nothing annotated',
        'train',
        ['ann/train/1.png: all of its pixels are ignored', 'only 255'],
    ),
}


def test_a_sound_data_set_has_no_findings(root):
    splits, findings = check(root)
    assert findings == []
    summary = splits['train'].summary()
    assert summary['images'] == len(splits['train'].sound) == 4
    assert summary['labels'] == {'0': 84, '1': 84, '2': 84, '3': 84, '255': 48}
    assert summary['classes']['car'] == dict(share=84 / 384, images=4)
    assert summary['ignored'] == 48 / 384


@pytest.mark.parametrize('plant', PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_named(plant, root):
    kind, split, words = PLANTED[plant]
    options = plant(root)
    findings = check(root, **options)[1]
    found = {(f.kind, f.split): f for f in findings}
    text = '\n'.join(found[kind, split].messages)
    assert all(word in text for word in words), text
    level = 'warning' if plant is nothing_annotated else 'fault'
    assert found[kind, split].level == level


def test_ten_faults_planted_together_are_all_found_and_nothing_else(root):
    for split, count in (('train', 9), ('val', 5)):
        for index in range(count):
            write(root, split, index, columns(0, 1, 2, 3))
    write(root, 'train', 0, columns(0, 1, 2, 9))
    write(root, 'val', 0, columns(0, 1, 2, 258, dtype=np.uint16))
    truncated_image(root)
    write(root, 'train', 2, columns(255))
    (root / 'ann' / 'train' / '3.png').unlink()
    (root / 'img' / 'val' / '1.jpg').unlink()
    Image.fromarray(columns(0, 1, 2, 3)[:, :10]).save(root / 'ann/train/4.png')
    Image.new('RGB', (12, 8), 'red').save(root / 'ann/train/5.png')
    shutil.copyfile(root / 'img/train/6.jpg', root / 'img/val/2.jpg')
    (root / 'ann/val/3.png').write_text('labels')
    files = {
        (f.kind, f.split): [file.rpartition('/')[2] for file in f.files]
        for f in check(root)[1]
    }
    assert files == {
        ('label out of range', 'train'): ['0.jpg'],
        ('label out of range', 'val'): ['0.jpg'],
        ('image unreadable', 'train'): ['1.jpg'],
        ('nothing annotated', 'train'): ['2.jpg'],
        ('image without annotation', 'train'): ['3.jpg'],
        ('annotation without image', 'val'): ['1.png'],
        ('size mismatch', 'train'): ['4.jpg'],
        ('not class numbers', 'train'): ['5.jpg'],
        ('the same image in both', 'train and val'): ['2.jpg'],
        ('annotation unreadable', 'val'): ['3.jpg'],
    }


def test_a_picture_that_is_turned_when_loaded_fits_an_annotation_that_is(root):
    turned_picture_with_the_annotation_as_stored(root)
    Image.fromarray(columns(0, 1, 2, 3).T).save(root / 'ann' / 'train' / '0.png')
    assert check(root)[1] == []


def test_an_image_of_a_few_pixels_can_be_read(root):
    Image.new('RGB', (3, 1)).save(root / 'img' / 'train' / '0.jpg')
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(root / 'ann/train/0.png')
    assert check(root)[1] == []


def test_only_sound_samples_go_to_the_contact_sheet(root):
    truncated_image(root)
    image_without_annotation(root)
    splits, _ = check(root)
    names = [sample['img_path'][-5:] for _, sample in splits['train'].sound]
    assert names == ['0.jpg', '2.jpg']


def test_a_class_that_occurs_nowhere_is_a_warning(root):
    rewrite(root, 0, 1, 2)
    found = {(f.kind, f.split): f for f in check(root)[1]}
    assert set(found) == {('class absent', 'train'), ('class absent', 'val')}
    assert {f.level for f in found.values()} == {'warning'}
    assert (
        'tree (3): in no annotation of train'
        in found['class absent', 'train'].messages[0]
    )


def test_ade20k_with_few_of_its_classes_is_not_taken_for_another_numbering(tmp_path):
    root = make_ade20k(tmp_path / 'ade')
    prefix = dict(img_path='images/training', seg_map_path='annotations/training')
    train = dict(type='ADE20KDataset', data_root=str(root), data_prefix=prefix)
    splits, findings = check_splits({'train': train}, workers=1)
    assert [f.kind for f in findings] == ['class absent']
    assert splits['train'].summary()['ignored'] == 80 / (64 * 80)


def test_labels_that_lack_0_and_a_class_are_asked_about(root):
    rewrite(root, 1, 2, 3)
    (finding,) = [f for f in check(root)[1] if f.kind == 'reduce_zero_label']
    assert finding.level == 'warning' and "no pixel is 0, 'sky'" in finding.messages[0]


def test_a_label_that_the_label_map_ignores_is_no_fault(root):
    """CamVid's void is 11, with 11 classes: not a numbering from 1."""
    rewrite(root, *range(12))
    options = settings(root, kind='CamVidDataset')
    for split in options.values():
        split.pop('metainfo')
    splits, findings = check_splits(options, workers=1)
    assert findings == []
    assert splits['val'].images == dict.fromkeys([*range(11), 255], 2)


def test_wrapped_and_joined_data_sets_are_looked_into(root):
    options = settings(root)
    train = options['train']
    options['train'] = dict(type='RepeatDataset', times=3, dataset=train)
    assert check_splits(options, 1)[0]['train'].summary()['images'] == 4
    options['train'] = dict(type='ConcatDataset', datasets=[train, options['val']])
    splits, findings = check_splits(options, 1)
    assert splits['train'].summary()['images'] == 6
    assert [len(f.files) for f in findings] == [2]  # val is a part of train


def test_a_missing_folder_is_named(root):
    shutil.rmtree(root / 'ann' / 'val')
    with pytest.raises(FileNotFoundError, match=r'no folder .*ann/val'):
        check(root)


def test_nothing_is_written_or_touched(root):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob('*')}

    before = state()
    check(root)
    assert state() == before


@pytest.mark.parametrize('workers', [1, 3])
def test_processes_find_what_one_finds_in_the_same_order(workers, root, monkeypatch):
    monkeypatch.setattr(inspection, '_FEW', 1)
    truncated_image(root)
    folders = root / 'img' / 'train', root / 'ann' / 'train'
    pairs = [
        tuple(
            str(f / f'{i}{s}') for f, s in zip(folders, ('.jpg', '.png'), strict=True)
        )
        for i in range(4)
    ]
    facts = list(inspect_pairs(pairs, 'checking', workers))
    assert [f.image for f in facts] == [image for image, _ in pairs]
    assert [bool(f.faults) for f in facts] == [False, True, False, False]
    assert facts[0].labels == {0: 21, 1: 21, 2: 21, 3: 21, 255: 12}


def test_no_processes_at_all_is_refused(root):
    with pytest.raises(ValueError, match='workers=0: expected at least 1'):
        check_splits(settings(root), workers=0)
