import hashlib
import os
import pickle
import tarfile

import numpy as np
import pytest
from mmengine.registry import DATASETS
from torchvision import datasets

from illama_seg.pretrain import CIFAR10Dataset, CIFAR100Dataset, arrays

LOAD = [dict(type='LoadRGBImage'), dict(type='ClsTransform', input_size=32)]
PIPELINE = [*LOAD, dict(type='PackClsInputs')]
TYPES = {10: 'CIFAR10Dataset', 100: 'CIFAR100Dataset'}
COUNT = 3  # images in each file


def build(kind, split='train', **settings):
    return DATASETS.build(dict(type=kind, split=split, **settings))


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def draw(name):
    rng = np.random.default_rng(len(name) + sum(map(ord, name)))
    return rng.integers(0, 256, (COUNT, 3072), np.uint8), rng.integers(0, 10, COUNT)


def write_binary(root, number):
    kind = {10: CIFAR10Dataset, 100: CIFAR100Dataset}[number]
    folder = root / kind.BINARY[0]
    folder.mkdir(parents=True)
    for name in (*kind.FILES['train'], *kind.FILES['test']):
        pixels, labels = draw(name)
        columns = [labels[:, None].astype(np.uint8), pixels]
        if number == 100:  # the coarse label comes first
            columns.insert(0, np.full((COUNT, 1), 77, np.uint8))
        (folder / name).write_bytes(np.concatenate(columns, 1).tobytes())
    return folder


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr('urllib.request.urlopen', refuse)


@pytest.mark.parametrize('number', [10, 100])
@pytest.mark.parametrize('split', ['train', 'test'])
def test_the_binary_version_is_read(number, split, tmp_path):
    folder = write_binary(tmp_path, number)
    data = build(TYPES[number], split, data_root=str(tmp_path), pipeline=PIPELINE)
    names = DATASETS.get(TYPES[number]).FILES[split]
    assert len(data) == COUNT * len(names) and folder.is_dir()
    pixels, labels = draw(names[-1])
    last = data.get_data_info(len(data) - 1)
    assert last['gt_label'] == labels[-1]
    expected = pixels[-1].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(last['img'], expected)
    packed = data[len(data) - 1]
    assert packed['inputs'].shape == (3, 32, 32)
    assert packed['data_samples'].gt_label.tolist() == [labels[-1]]


def test_the_binary_archive_is_unpacked_once_its_checksum_is_right(
    tmp_path, monkeypatch
):
    source = write_binary(tmp_path / 'source', 10)
    archive = tmp_path / CIFAR10Dataset.BINARY[1]
    with tarfile.open(archive, 'w:gz') as file:
        file.add(source, source.name)
    with pytest.raises(ValueError, match=r'cifar-10-binary\.tar\.gz is damaged'):
        build('CIFAR10Dataset', data_root=str(tmp_path))
    binary = (*CIFAR10Dataset.BINARY[:2], md5(archive))
    monkeypatch.setattr(CIFAR10Dataset, 'BINARY', binary)
    assert len(build('CIFAR10Dataset', data_root=str(tmp_path))) == 5 * COUNT


@pytest.fixture
def python_archive(tmp_path, monkeypatch):
    """CIFAR-10's python version in small, with checksums that fit it."""
    source = tmp_path / 'source' / 'cifar-10-batches-py'
    source.mkdir(parents=True)
    reader = type('CIFAR10', (datasets.CIFAR10,), {})
    for listed in ('train_list', 'test_list'):
        entries = []
        for name, _ in getattr(datasets.CIFAR10, listed):
            pixels, labels = draw(name)
            content = dict(data=pixels, labels=labels.tolist())
            (source / name).write_bytes(pickle.dumps(content, 2))
            entries.append([name, md5(source / name)])
        setattr(reader, listed, entries)
    meta = dict(label_names=list(CIFAR10Dataset.METAINFO['classes']))
    (source / 'batches.meta').write_bytes(pickle.dumps(meta, 2))
    reader.meta = dict(datasets.CIFAR10.meta, md5=md5(source / 'batches.meta'))
    archive = tmp_path / 'root' / datasets.CIFAR10.filename
    archive.parent.mkdir()
    with tarfile.open(archive, 'w:gz') as file:
        file.add(source, source.name)
    reader.tgz_md5 = md5(archive)
    monkeypatch.setattr(CIFAR10Dataset, 'READER', reader)
    return archive


def test_the_python_archive_is_checked_unpacked_and_read(python_archive, offline):
    data = build('CIFAR10Dataset', 'test', data_root=str(python_archive.parent))
    pixels, labels = draw('test_batch')
    assert [data.get_data_info(i)['gt_label'] for i in range(COUNT)] == labels.tolist()
    expected = pixels[0].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(data.get_data_info(0)['img'], expected)
    python_archive.unlink()  # what was unpacked is enough
    assert len(build('CIFAR10Dataset', data_root=str(python_archive.parent))) == 15


def test_a_damaged_python_batch_is_not_read(python_archive, offline):
    build('CIFAR10Dataset', data_root=str(python_archive.parent))
    folder = python_archive.parent / 'cifar-10-batches-py'
    (folder / 'data_batch_3').write_bytes(b'nonsense')
    python_archive.write_bytes(b'nonsense')
    with pytest.raises(ValueError, match=r'batches-py and .*damaged.*cifar-10-python'):
        build('CIFAR10Dataset', data_root=str(python_archive.parent))


def test_a_python_batch_that_runs_code_is_refused_whatever_its_checksum(
    python_archive, tmp_path
):
    class Attack:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path / "ran"}',)

    build('CIFAR10Dataset', data_root=str(python_archive.parent))
    batch = python_archive.parent / 'cifar-10-batches-py' / 'data_batch_3'
    batch.write_bytes(pickle.dumps(dict(data=Attack(), labels=[]), 2))
    CIFAR10Dataset.READER.train_list[2][1] = md5(batch)
    with pytest.raises(ValueError, match=r'data_batch_3 was refused: .*\.system'):
        build('CIFAR10Dataset', data_root=str(python_archive.parent))
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('number', [10, 100])
def test_without_data_and_network_the_way_out_is_shown(number, tmp_path, offline):
    with pytest.raises(ConnectionError) as error:
        build(TYPES[number], data_root=str(tmp_path / 'nowhere'))
    for text in (
        'nowhere',
        f'cifar-{number}-python.tar.gz',
        f'cifar-{number}-binary.tar.gz',
        'train_dataloader.dataset.data_root=DIR',
    ):
        assert text in str(error.value)


def test_a_truncated_binary_file_is_named(tmp_path):
    file = write_binary(tmp_path, 10) / 'data_batch_2.bin'
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r'data_batch_2\.bin has 9218 bytes.*3073'):
        build('CIFAR10Dataset', data_root=str(tmp_path))


def test_fewer_images_than_published_are_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(arrays, 'print_log', lambda text, **_: said.append(text))
    write_binary(tmp_path, 10)
    build('CIFAR10Dataset', 'test', data_root=str(tmp_path))
    assert len(said) == 1 and '3 images to test, 10000 are published' in said[0]
    monkeypatch.setattr(CIFAR10Dataset, 'PUBLISHED', dict(test=COUNT))
    build('CIFAR10Dataset', 'test', data_root=str(tmp_path))
    assert len(said) == 1


def test_a_label_out_of_range_is_named(tmp_path):
    file = write_binary(tmp_path, 10) / 'test_batch.bin'
    content = bytearray(file.read_bytes())
    content[3073] = 10
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r'label 10 of image 1, expected 0 to 9'):
        build('CIFAR10Dataset', 'test', data_root=str(tmp_path))


def test_the_published_archives_are_told_by_their_checksums():
    assert CIFAR10Dataset.READER.tgz_md5 == 'c58f30108f718f92721af3b95e74349a'
    assert CIFAR100Dataset.READER.tgz_md5 == 'eb9058c3a382ffc7106e4002c42a8d85'
    assert CIFAR10Dataset.BINARY[2] == 'c32a1d4ab5d03f1284b67883e8d87530'
    assert CIFAR100Dataset.BINARY[2] == '03b5dce01913d631647c71ecec9e9cb8'


# Digits


def test_digits_are_split_once_and_for_all():
    train, test = (build('DigitsDataset', split) for split in ('train', 'test'))
    assert (len(train), len(test)) == (1437, 360)
    infos = [data.get_data_info(i) for data in (train, test) for i in range(len(data))]
    assert all(info['img'].shape == (8, 8) for info in infos)
    assert max(info['img'].max() for info in infos) == 255
    counts = np.bincount([info['gt_label'] for info in infos[1437:]])
    assert counts.tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    digest = hashlib.sha256(b''.join(info['img'].tobytes() for info in infos))
    assert digest.hexdigest().startswith('58ac6f310f174dd7')


@pytest.mark.parametrize('kind', ['DigitsDataset', 'CIFAR10Dataset'])
def test_an_unknown_split_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind} split='val': expected 'train' or"):
        build(kind, 'val')


def test_sklearn_is_not_imported_before_it_is_needed():
    assert not hasattr(arrays, 'load_digits')
