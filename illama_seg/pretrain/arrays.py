"""Small data sets held in memory: CIFAR-10, CIFAR-100, handwritten digits."""

from __future__ import annotations

import logging
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torchvision import datasets

from illama_seg.errors import MissingFileError, UserError
from illama_seg.files import atomic, digest_of, download

SIDE = 32


class ArrayDataset(BaseDataset):
    """Images and class numbers from memory.

    Args:
        split: 'train' or 'test'.
        data_root: folder of the data.
        kwargs: of mmengine's ``BaseDataset``: ``pipeline``, ``indices``, ...

    Raises:
        UserError: for another split.
    """

    def __init__(self, split: str, data_root: str = '', **kwargs) -> None:
        if split not in ('train', 'test'):
            raise UserError(
                f"{type(self).__name__} split={split!r}: expected 'train' or 'test'"
            )
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W) or (N, H, W, 3) uint8, class numbers (N,)."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        """Return a dict of ``img`` and ``gt_label`` for each image."""
        images, labels = self.read()
        num_classes = len(self.metainfo['classes'])
        wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if wrong.size:
            raise UserError(
                f'{type(self).__name__} in {self.data_root}: label {labels[wrong[0]]} '
                f'of image {wrong[0]}, expected 0 to {num_classes - 1}'
            )
        pairs = zip(images, labels.tolist(), strict=True)
        return [dict(img=image, gt_label=label) for image, label in pairs]


@DATASETS.register_module()
class DigitsDataset(ArrayDataset):
    """scikit-learn's bundled handwritten digits: 1,797 grey images of 8x8, 10 classes.

    A fixed stratified draw of 360 images is the test set.
    """

    METAINFO = dict(classes=tuple('0123456789'))
    SPLIT_SEED, NUM_TEST = 0, 360

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, 8, 8), grey values 0..16 stretched to 0..255."""
        # Seconds to import, and only this needs it.
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch: Any = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        train, test = train_test_split(
            np.arange(len(images)),
            test_size=self.NUM_TEST,
            random_state=self.SPLIT_SEED,
            stratify=bunch.target,
        )
        chosen = train if self.split == 'train' else test
        return images[chosen], bunch.target[chosen]


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of arrays and plain data; it refuses every other type."""

    NAMES = (
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', '_reconstruct'),
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('_codecs', 'encode'),
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return the function or class of this name."""
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(
                f'it asks for {module}.{name}, expected arrays only'
            )
        return super().find_class(module, name)


class _CIFARDataset(ArrayDataset):
    """CIFAR from its python or binary version, unpacked or as the archive.

    If ``data_root`` has neither, the python version is downloaded and checked.

    Raises:
        ConnectionError: if it is missing and cannot be downloaded.
        UserError: if a file is damaged.
    """

    READER: type[datasets.CIFAR10]
    BINARY: tuple[str, str, str]  # folder, archive, md5 of the archive
    FILES: dict[str, tuple[str, ...]]
    LABEL_BYTES: int
    PUBLISHED = dict(train=50_000, test=10_000)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, 32, 32, 3), RGB."""
        root = Path(self.data_root)
        folder, archive = (root / name for name in self.BINARY[:2])
        python = root / self.READER.base_folder, root / self.READER.filename
        is_binary = folder.is_dir() or archive.is_file()
        if any(path.exists() for path in python) or not is_binary:
            return self._read_python(root)
        if not folder.is_dir():
            with FileLock(root / f'.{folder.name}.lock'):
                if not folder.is_dir():  # another process may have unpacked it
                    if not _has_md5(archive, self.BINARY[2]):
                        raise UserError(
                            f'{archive} is damaged: its md5 is not the published '
                            f'{self.BINARY[2]}'
                        )
                    _unpack(archive, folder)
        return self._read_binary(folder)

    def _read_binary(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        size = self.LABEL_BYTES + 3 * SIDE * SIDE
        parts = []
        for name in self.FILES[self.split]:
            if not (folder / name).is_file():
                raise MissingFileError(f'no file {folder / name}')
            part = np.fromfile(folder / name, np.uint8)
            if not part.size or part.size % size:
                raise UserError(
                    f'{folder / name} has {part.size} bytes, expected a multiple of '
                    f'{size}: it is truncated, or not of {type(self).__name__}'
                )
            parts.append(part.reshape(-1, size))
        rows = np.concatenate(parts)
        if len(rows) != self.PUBLISHED[self.split]:
            print_log(
                f'{folder}: {len(rows)} images to {self.split}, '
                f'{self.PUBLISHED[self.split]} are published',
                logger='current',
                level=logging.WARNING,
            )
        images = rows[:, self.LABEL_BYTES :].reshape(-1, 3, SIDE, SIDE)
        # CIFAR-100 has the coarse label first.
        labels = rows[:, self.LABEL_BYTES - 1].astype(np.int64)
        return images.transpose(0, 2, 3, 1), labels

    def _read_python(self, root: Path) -> tuple[np.ndarray, np.ndarray]:
        reader = self.READER
        folder, archive = root / reader.base_folder, root / reader.filename
        if not self._is_complete(folder):
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f'.{folder.name}.lock'):
                if not self._is_complete(folder):  # another process may have done it
                    if not _has_md5(archive, reader.tgz_md5):
                        self._download(archive)
                    _unpack(archive, folder)
        return self._read_batches(folder)

    def _is_complete(self, folder: Path) -> bool:
        """Return True if all batches exist with the published checksums."""
        batches = self.READER.train_list + self.READER.test_list
        return all(_has_md5(folder / name, md5) for name, md5 in batches)

    def _download(self, archive: Path) -> None:
        url, root = self.READER.url, archive.parent
        try:
            download(url, archive, self.READER.tgz_md5, attempts=1)
        except ConnectionError as error:
            found = root / self.READER.base_folder, archive
            damaged = ' and '.join(str(path) for path in found if path.exists())
            if damaged:
                raise UserError(
                    f'{damaged}: damaged or incomplete. {error}. Remove what is '
                    f'damaged, or put a complete {archive.name} there'
                ) from error
            raise ConnectionError(
                f'no {type(self).__name__} in {root}. {error}\nWithout a network, put '
                f'{archive.name} or {self.BINARY[1]} there, or set '
                'train_dataloader.dataset.data_root=DIR '
                'val_dataloader.dataset.data_root=DIR '
                'test_dataloader.dataset.data_root=DIR'
            ) from error

    def _read_batches(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        train = self.split == 'train'
        pixels, labels = [], []
        for name, _ in self.READER.train_list if train else self.READER.test_list:
            try:
                with open(folder / name, 'rb') as file:
                    batch = _ArrayUnpickler(file, encoding='latin1').load()
            except pickle.UnpicklingError as error:
                raise UserError(f'{folder / name} was refused: {error}') from error
            pixels.append(batch['data'])
            labels += batch['labels' if 'labels' in batch else 'fine_labels']
        images = np.concatenate(pixels).reshape(-1, 3, SIDE, SIDE)
        return images.transpose(0, 2, 3, 1), np.asarray(labels)


@DATASETS.register_module()
class CIFAR10Dataset(_CIFARDataset):
    """CIFAR-10: 50,000 images of 32x32 to train, 10,000 to test, 10 classes."""

    # fmt: off
    METAINFO = dict(
        classes=(
            'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse',
            'ship', 'truck',
        )
    )
    # fmt: on
    READER = datasets.CIFAR10
    BINARY = (
        'cifar-10-batches-bin',
        'cifar-10-binary.tar.gz',
        'c32a1d4ab5d03f1284b67883e8d87530',
    )
    FILES = dict(
        train=tuple(f'data_batch_{number}.bin' for number in range(1, 6)),
        test=('test_batch.bin',),
    )
    LABEL_BYTES = 1


@DATASETS.register_module()
class CIFAR100Dataset(_CIFARDataset):
    """CIFAR-100. Class names are not in the files, so the indices serve as names."""

    METAINFO = dict(classes=tuple(map(str, range(100))))
    READER = datasets.CIFAR100
    BINARY = (
        'cifar-100-binary',
        'cifar-100-binary.tar.gz',
        '03b5dce01913d631647c71ecec9e9cb8',
    )
    FILES = dict(train=('train.bin',), test=('test.bin',))
    LABEL_BYTES = 2


def _has_md5(path: Path, md5: str) -> bool:
    return path.is_file() and digest_of(path, 'md5') == md5


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive that holds only this folder; replace an incomplete one."""
    with atomic(folder) as part:
        with tarfile.open(archive) as file:
            file.extractall(part.parent, filter='data')
        shutil.rmtree(folder, ignore_errors=True)
