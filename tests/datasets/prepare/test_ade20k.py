import hashlib
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from tiny_run import SPLITS, make_ade20k

from illama_seg.datasets.prepare import ade20k
from illama_seg.datasets.prepare.ade20k import prepare_ade20k

FOLDERS = [f'{kind}/{s}' for kind in ('images', 'annotations') for s in SPLITS]


@pytest.fixture
def source(tmp_path):
    root = make_ade20k(tmp_path / 'source')
    (root / 'objectInfo150.txt').write_text('Idx')
    return root


@pytest.fixture
def archive(source, tmp_path):
    path = tmp_path / 'ade.zip'
    with zipfile.ZipFile(path, 'w') as file:
        for entry in sorted(source.rglob('*')):
            name = entry.relative_to(source)
            file.write(entry, f'ADEChallengeData2016/{name}')
    return path


def content(root):
    return {
        str(file.relative_to(root)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in root.rglob('*')
        if file.is_file()
    }


def texts(root):
    return {name: data for name, (data, _) in content(root).items()}


def prepare(tmp_path, source=None, counts=SPLITS):
    return prepare_ade20k(tmp_path / 'ade' / 'data', source, counts, workers=1)


@pytest.mark.parametrize('form', ['folder', 'folder above', 'zip'])
def test_every_form_of_source_gives_the_same_data(form, source, archive, tmp_path):
    above = tmp_path / 'above'
    shutil.copytree(source, above / 'inner' / 'ADEChallengeData2016')
    before = content(tmp_path / 'source'), content(above)
    forms = {'folder': source, 'folder above': above, 'zip': archive}
    result = prepare(tmp_path, forms[form])
    assert result['made'] and texts(tmp_path / 'ade' / 'data') == texts(source)
    assert (content(source), content(above)) == before
    assert sorted(os.listdir(tmp_path / 'ade')) == [
        'data',
        'data_report.json',
        'data_report.txt',
    ]


def test_the_report_has_sizes_and_a_histogram(source, tmp_path):
    result = prepare(tmp_path, source)
    report = json.loads((tmp_path / 'ade' / 'data_report.json').read_text())
    for name, count in SPLITS.items():
        split = report['splits'][name]
        assert split['images'] == count
        assert split['smallest'] == split['largest'] == [64, 80]
        # A first row of 80 pixels without a label, then sky; a car of 12 x 20.
        assert split['labels'] == {
            'other': 80 * count,
            'sky': 80 * 31 * count,
            'road': (80 * 32 - 240) * count,
            'car': 240 * count,
        }
        assert split['label_images'] == dict.fromkeys(split['labels'], count)
    text = result['report'].read_text()
    assert 'training: 4 images, 64x80 to 64x80' in text
    assert '| car ' in text and '| wall ' in text


def test_a_zip_that_is_the_published_one_is_told_from_others(
    archive, tmp_path, monkeypatch
):
    assert prepare(tmp_path, archive)['published'] is False
    shutil.rmtree(tmp_path / 'ade')
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(ade20k, 'MD5', digest)
    assert prepare(tmp_path, archive)['published'] is True


def test_a_complete_data_set_is_verified_and_left_alone(source, tmp_path):
    prepare(tmp_path, source)
    before = content(tmp_path / 'ade' / 'data')
    shutil.rmtree(source)
    assert prepare(tmp_path)['made'] is False
    assert content(tmp_path / 'ade' / 'data') == before


def cut_image(root):
    file = root / 'images/training/training_1.jpg'
    file.write_bytes(file.read_bytes()[:-300])


def raise_label(root):
    file = root / 'annotations/training/training_2.png'
    Image.fromarray(np.full((64, 80), 151, np.uint8)).save(file)


def resize_annotation(root):
    file = root / 'annotations/validation/validation_0.png'
    Image.fromarray(np.ones((64, 79), np.uint8)).save(file)


def rename_annotation(root):
    folder = root / 'annotations/validation'
    (folder / 'validation_1.png').rename(folder / 'other.png')


def remove_pair(root):
    (root / 'images/training/training_0.jpg').unlink()
    (root / 'annotations/training/training_0.png').unlink()


def colour_annotation(root):
    file = root / 'annotations/training/training_3.png'
    Image.new('RGB', (80, 64)).save(file)


def remove_folder(root):
    shutil.rmtree(root / 'annotations/validation')


DAMAGES = [
    (cut_image, ['images/training/training_1.jpg', 'cannot be read']),
    (
        raise_label,
        ['training_2.png: label 151, in 5,120 pixels', '0 (other) and 1..15'],
    ),
    (resize_annotation, ['validation_0.png', '(64, 79)', '(64, 80)']),
    (
        rename_annotation,
        ['validation_1.jpg has no', 'annotations/validation/other.png has no image'],
    ),
    (remove_pair, ['images/training has 3, expected 4', 'annotations/training has 3']),
    (colour_annotation, ['training_3.png', 'colour image (RGB']),
    (remove_folder, ['annotations/validation', 'found none']),
]


@pytest.mark.parametrize(
    ('damage', 'names'), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES]
)
def test_a_damaged_source_is_named_and_no_data_are_made(
    damage, names, source, tmp_path
):
    damage(source)
    with pytest.raises(ValueError) as error:
        prepare(tmp_path, source)
    assert all(name in str(error.value) for name in names), error.value
    assert not (tmp_path / 'ade' / 'data').exists()
    assert not list((tmp_path / 'ade').glob('.*'))


def test_all_faults_are_in_the_report_at_once(source, tmp_path):
    for damage in (cut_image, raise_label, resize_annotation, colour_annotation):
        damage(source)
    with pytest.raises(ValueError, match=r'All of them are in .*data_report\.json'):
        prepare(tmp_path, source)
    report = json.loads((tmp_path / 'ade' / 'data_report.json').read_text())
    assert {(f['split'], f['kind']) for f in report['findings']} == {
        ('training', 'image unreadable'),
        ('training', 'label out of range'),
        ('training', 'not class numbers'),
        ('validation', 'size mismatch'),
    }


def test_an_incomplete_folder_is_neither_taken_nor_changed(source, tmp_path):
    out = tmp_path / 'ade' / 'data'
    shutil.copytree(source, out)
    remove_pair(out)
    before = content(out)
    with pytest.raises(ValueError, match='is not a complete ADE20K; nothing in it was'):
        prepare(tmp_path, source)
    assert content(out) == before


def test_the_published_counts_are_expected_by_default(source, tmp_path):
    with pytest.raises(ValueError, match='images/training has 4, expected 20,210'):
        prepare_ade20k(tmp_path / 'out', source)


def test_a_zip_that_climbs_out_makes_nothing(archive, tmp_path):
    with zipfile.ZipFile(archive, 'a') as file:
        file.writestr('../../escaped.txt', 'x')
    with pytest.raises(ValueError, match='unsafe'):
        prepare(tmp_path, archive)
    assert not list((tmp_path / 'ade').iterdir())


@pytest.mark.parametrize('there', [True, False])
def test_a_link_to_another_disk_is_followed(there, source, tmp_path):
    disk = tmp_path / 'disk' / 'ade'
    if there:
        disk.mkdir(parents=True)
    (tmp_path / 'ade').mkdir()
    (tmp_path / 'ade' / 'data').symlink_to(disk)
    assert prepare(tmp_path, source)['made']
    assert (tmp_path / 'ade' / 'data').is_symlink() and texts(disk) == texts(source)


def test_a_mounted_folder_is_filled_in_its_place(source, tmp_path, monkeypatch):
    out = tmp_path / 'ade' / 'data'
    out.mkdir(parents=True)
    inode = out.stat().st_ino
    monkeypatch.setattr(os.path, 'ismount', lambda path: path == out)
    assert prepare(tmp_path, source)['made'] and texts(out) == texts(source)
    assert out.stat().st_ino == inode


def test_a_zip_packed_on_a_mac_is_taken(archive, source, tmp_path):
    with zipfile.ZipFile(archive, 'a') as file:
        for entry in sorted(source.rglob('*')):
            name = f'__MACOSX/ADEChallengeData2016/{entry.relative_to(source)}'
            if entry.is_dir():
                file.writestr(f'{name}/', '')
            else:
                file.writestr(f'{name.rpartition("/")[0]}/._{entry.name}', 'mac')
        file.writestr('ADEChallengeData2016/images/training/._training_0.jpg', 'mac')
    assert prepare(tmp_path, archive)['splits']['training']['images'] == 4


def test_labels_that_count_from_0_are_refused(source, tmp_path):
    file = source / 'annotations' / 'training' / 'training_0.png'
    labels = np.array(Image.open(file))
    labels.flat[:150] = np.arange(150)
    for path in (source / 'annotations' / 'training').iterdir():
        Image.fromarray(np.minimum(labels, 149)).save(path)
    with pytest.raises(ValueError, match=r'every label from 0 to 149 occurs, 150 \(fl'):
        prepare(tmp_path, source)


def test_the_checksum_is_the_one_that_others_have_for_the_published_zip():
    assert ade20k.MD5 == '7328b3957e407ddae1d3cbf487f149ef'


def test_a_download_is_kept_beside_the_data_and_used_again(
    archive, source, tmp_path, monkeypatch
):
    calls = []

    def download(url, target, md5):
        calls.append((url, md5))
        shutil.copyfile(archive, target)

    monkeypatch.setattr(ade20k, 'download', download)
    monkeypatch.setattr(ade20k, 'MD5', hashlib.md5(archive.read_bytes()).hexdigest())
    for _ in range(2):
        result = prepare(tmp_path)
        assert result['made'] and texts(tmp_path / 'ade' / 'data') == texts(source)
        shutil.rmtree(tmp_path / 'ade' / 'data')
    assert calls == [(ade20k.URL, ade20k.MD5)]


def test_a_broken_zip_from_elsewhere_is_not_used_but_can_be_completed(
    archive, tmp_path
):
    there = tmp_path / 'ade' / 'ADEChallengeData2016.zip'
    there.parent.mkdir()
    there.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r'ADEChallengeData2016\.zip\.part'):
        prepare(tmp_path)
    assert there.is_file()


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(ade20k, 'URL', 'http://127.0.0.1:9/ade.zip')
    monkeypatch.setattr('illama_seg.files._WAIT', 0)
    with pytest.raises(ConnectionError) as error:
        prepare(tmp_path)
    for text in ('127.0.0.1:9/ade.zip', 'bytes are kept', '.zip.part', 'as the source'):
        assert text in str(error.value)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no folder or zip .*nowhere'):
        prepare(tmp_path, tmp_path / 'nowhere')
