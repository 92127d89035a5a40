"""Images in a folder for each class: ImageNet and other data in its layout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from PIL import Image

from illama_seg.errors import MissingFileError, UserError

SUFFIXES = frozenset(Image.registered_extensions())


@DATASETS.register_module()
class ImageFolderDataset(BaseDataset):
    """Images in a folder for each class, or listed in a file.

    The classes are the folders in the order of their names, or those of an index file:
    JSON as ImageNet's (``{"0": ["n01440764", "tench"], ...}``, or a list), or a line
    for each class, the folder and, after a space, its name. A list of images, one
    ``PATH LABEL`` to a line, replaces the folders; it needs the index file.
    Hidden files and folders are left out.

    Args:
        data_root: folder of all data.
        data_prefix: folder of these images below it.
        class_index: the index file, below ``data_root``.
        ann_file: the list of images, below ``data_root``.
        kwargs: arguments of mmengine's ``BaseDataset``: ``pipeline``, ``indices``, ...

    Raises:
        MissingFileError: if a folder or file is missing; shows the expected layout.
        UserError: if a class has no image, a file is no image by its name, a label is
            out of range, or the classes are not those of the data set.
    """

    NUM_CLASSES: int | None = None
    HOW_TO_GET = 'Expected layout: DATA_ROOT/{train,val}/CLASS/IMAGE'

    def __init__(
        self,
        data_root: str,
        data_prefix: str = '',
        class_index: str = '',
        ann_file: str = '',
        **kwargs,
    ) -> None:
        self._class_index = os.path.join(data_root, class_index) if class_index else ''
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(img_path=data_prefix),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """List paths and class numbers, in the order of classes and names."""
        root = self.data_prefix['img_path']
        if not os.path.isdir(root):
            raise MissingFileError(
                f'no folder {root} ({type(self).__name__})\n\n{self.HOW_TO_GET}'
            )
        index = self._read_index() if self._class_index else None
        if self.ann_file:
            if index is None:
                raise UserError(
                    f'{self.ann_file}: a list of images needs a class_index file'
                )
            folders = list(index)
            samples = list(self._listed(root, len(folders)))
        else:
            found = sorted(
                entry.name
                for entry in os.scandir(root)
                if entry.is_dir() and entry.name[0] != '.'
            )
            folders = found if index is None else list(index)
            if index is not None and set(folders) != set(found):
                raise UserError(
                    f'{root} and {self._class_index} differ in their classes, by '
                    f'{_some(set(folders) ^ set(found))}'
                )
            samples = list(self._walked(root, folders))
        expected = self.NUM_CLASSES
        if not samples or (expected and len(folders) != expected):
            raise UserError(
                f'{root}: {len(folders)} classes and {len(samples)} images, expected '
                f'{expected or "some"} classes\n\n{self.HOW_TO_GET}'
            )
        names = [index[folder] for folder in folders] if index else folders
        self._metainfo['classes'] = tuple(names)
        return samples

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on an image; an error in it names the file."""
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            if path in str(error):
                raise
            raise UserError(f'{path}: {type(error).__name__}: {error}') from error

    def _walked(self, root: str, folders: list[str]) -> Iterator[dict]:
        for label, folder in enumerate(folders):
            paths = sorted(_files(os.path.join(root, folder)))
            if not paths:
                raise UserError(
                    f'class folder {os.path.join(root, folder)} is empty: expected '
                    'images in it; fill it, or remove it'
                )
            for path in paths:
                yield dict(img_path=_image(path), gt_label=label)

    def _listed(self, root: str, num_classes: int) -> Iterator[dict]:
        lines = _read(self.ann_file).splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            name, label = ['', *line.strip().rsplit(None, 1)][-2:]
            if not name or not label.isdecimal() or int(label) >= num_classes:
                raise UserError(
                    f'{self.ann_file}, line {number}: {line!r}, expected PATH LABEL '
                    f'with a label from 0 to {num_classes - 1}'
                )
            path = os.path.join(root, name)
            yield dict(img_path=_image(path), gt_label=int(label))

    def _read_index(self) -> dict[str, str]:
        """Folder -> name of each class, in order."""
        path, text = self._class_index, _read(self._class_index)
        try:
            if path.endswith('.json'):
                content = json.loads(text)
                if isinstance(content, dict):
                    content = [content[str(number)] for number in range(len(content))]
                rows = [row if isinstance(row, list) else [row] for row in content]
            else:
                rows = [
                    line.split(None, 1) for line in text.splitlines() if line.strip()
                ]
            index = {str(row[0]): str(row[-1]).strip() for row in rows}
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(
                f'{path} is no class index: {type(error).__name__}: {error}; expected '
                'JSON {"0": ["FOLDER", "NAME"], ...}, or a line FOLDER NAME for each'
            ) from error
        if len(index) != len(rows):
            raise UserError(f'{path} names a folder twice')
        return index


@DATASETS.register_module()
class ImageNetDataset(ImageFolderDataset):
    """ImageNet-1K: 1,281,167 images to train, 50,000 to validate, 1000 classes."""

    NUM_CLASSES = 1000
    HOW_TO_GET = """\
Expected layout (ILSVRC2012, the validation images moved into their classes' folders):
  DATA_ROOT/train/n01440764/*.JPEG ...    1000 folders, 1,281,167 images
  DATA_ROOT/val/n01440764/*.JPEG ...      1000 folders, 50,000 images
Get it: https://image-net.org/download.php (registration), in data/imagenet, or set
your own folder: train_dataloader.dataset.data_root=DIR \
val_dataloader.dataset.data_root=DIR test_dataloader.dataset.data_root=DIR
Validation images in one folder: class_index=FILE for all three of them, and \
ann_file=LIST for val_ and test_"""


@DATASETS.register_module()
class ImageNet21KPDataset(ImageFolderDataset):
    """ImageNet-21K-P of Winter 2021 (arXiv 2104.10972): 10,450 classes."""

    NUM_CLASSES = 10450
    HOW_TO_GET = """\
Expected layout (as https://github.com/Alibaba-MIIL/ImageNet21K writes it):
  DATA_ROOT/imagenet21k_train/n00005787/*.JPEG ...    10,450 folders
  DATA_ROOT/imagenet21k_val/n00005787/*.JPEG ...      10,450 folders
in data/imagenet21k, or set your own folder: \
train_dataloader.dataset.data_root=DIR val_dataloader.dataset.data_root=DIR \
test_dataloader.dataset.data_root=DIR"""


def _files(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != '.')
        yield from (os.path.join(parent, name) for name in names if name[0] != '.')


def _image(path: str) -> str:
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise UserError(
            f'{path} is no image by its name: expected .jpg, .png or the like; '
            'remove it from the class folder'
        )
    return path


def _read(path: str) -> str:
    if not os.path.isfile(path):
        raise MissingFileError(f'no file {path}')
    return Path(path).read_text()


def _some(names: set[str]) -> str:
    shown = sorted(names)[:5]
    return ', '.join(shown) + (' ...' if len(names) > len(shown) else '')
