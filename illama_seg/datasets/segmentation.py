"""Segmentation data sets whose errors name the folder or file."""

from __future__ import annotations

import os.path as osp
import traceback
from collections.abc import Mapping, Sequence

from mmengine.fileio import isdir, list_dir_or_file
from mmengine.registry import DATASETS
from mmseg.datasets import ADE20KDataset, BaseSegDataset

from illama_seg.datasets.annotations import IGNORED
from illama_seg.datasets.groups import grouped
from illama_seg.datasets.lists import (
    check_listed,
    has_list,
    how_to_get,
    listed_pairs,
)
from illama_seg.errors import MissingFileError, UserError


class MissingAnnotationsError(MissingFileError):
    """A folder of annotations that is not there, or is empty."""


@DATASETS.register_module()
class CheckedSegDataset(BaseSegDataset):
    """Data set of an image folder and an annotation folder, checked when listed.

    Suitable for your own data, with ``metainfo=dict(classes=..., palette=...)``. The
    arguments are those of mmseg's ``BaseSegDataset``, with one or more ``img_suffix``;
    ``data_prefix.seg_map_path`` may be None, as for images without annotations.

    Args:
        img_suffix: ends of the images' names; by default those of mmseg's class.
        groups: name of a new class -> names of the classes that it unites; a class in
            no group is ignored.
        lazy_init: list the files later, by ``full_init``.
        kwargs: of mmseg's ``BaseSegDataset``.

    Attributes:
        HOW_TO_GET: expected layout and source, for messages about missing files.
        LABELS: expected labels and a usual mistake, for messages about wrong ones.

    Raises:
        MissingFileError: a folder, a list or an annotation is missing; the message
            shows the expected layout and how to get the data.
        UserError: no image is in the folder; a file or list cannot be read; a group
            names no class, or one of another group.
    """

    HOW_TO_GET = ''
    LABELS = ''
    img_suffix: tuple[str, ...]

    def __init__(
        self,
        img_suffix: str | Sequence[str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        if img_suffix is not None:
            kwargs['img_suffix'] = img_suffix
        if 'data_prefix' in kwargs:  # mmengine joins strings only
            given = kwargs['data_prefix'].items()
            kwargs['data_prefix'] = {k: v for k, v in given if v is not None}
        super().__init__(lazy_init=True, **kwargs)
        ends: str | Sequence[str] = self.img_suffix
        self.img_suffix = (ends,) if isinstance(ends, str) else tuple(ends)
        if groups is not None:
            known = self.METAINFO.get('classes') or self._metainfo.get('classes') or ()
            united = grouped(self._metainfo, groups, len(known))
            self._metainfo.update(united)
            self.label_map = self._metainfo['label_map']
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """List the pairs of image and annotation by name, or in the list's order."""
        if has_list(self):
            listed = listed_pairs(self)
            check_listed(self, listed)
            return [self._sample(s.image, s.annotation) for s in listed]
        img_dir = self.data_prefix['img_path']
        ann_dir = self.data_prefix.get('seg_map_path')
        images = list_files(self, img_dir, self.img_suffix)
        if not images:
            raise UserError(
                f'no image in {img_dir}: expected files ending in '
                f'{" or ".join(self.img_suffix)}{how_to_get(self)}'
            )
        annotations = set(list_annotations(self, ann_dir)) if ann_dir else set()
        samples = []
        for image in images:
            path, partner = osp.join(img_dir, image), None
            if ann_dir:
                annotation = annotation_of(image, self.img_suffix, self.seg_map_suffix)
                partner = osp.join(ann_dir, annotation)
                if annotation not in annotations:
                    raise MissingFileError(
                        f'image {path} has no annotation: expected {partner}. Add it, '
                        'or remove the image'
                    )
            samples.append(self._sample(path, partner))
        return samples

    def _sample(self, image: str, annotation: str | None) -> dict:
        """Return a sample as mmseg's pipelines expect it."""
        sample: dict = dict(
            img_path=image,
            label_map=self.label_map,
            reduce_zero_label=self.reduce_zero_label,
            seg_fields=[],
        )
        return sample if annotation is None else sample | dict(seg_map_path=annotation)

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on a sample; an error in it names the sample's files."""
        try:
            return super().prepare_data(idx)
        except Exception as error:
            sample = self.get_data_info(idx)
            files = [
                sample[key] for key in ('img_path', 'seg_map_path') if key in sample
            ]
            text = str(error)
            if any(file in text for file in files):
                if self.LABELS and text.startswith(f'{sample.get("seg_map_path")}: '):
                    text += f'. {self.LABELS}'
                raise UserError(text) from error
            line = traceback.extract_tb(error.__traceback__)[-1].line
            raise UserError(
                f'cannot read sample {idx}, {" with ".join(files)}: '
                f'{type(error).__name__}: {str(error) or f"at `{line}`"}'
            ) from error


def list_files(
    dataset: BaseSegDataset, folder: str, suffix: str | tuple[str, ...]
) -> list[str]:
    """Return the sorted names of the files below one of a data set's folders.

    Raises:
        MissingFileError: if there is no such folder.
    """
    if not isdir(folder, backend_args=dataset.backend_args):
        raise MissingFileError(
            f'no folder {folder} ({type(dataset).__name__}){how_to_get(dataset)}'
        )
    return sorted(
        list_dir_or_file(
            folder,
            list_dir=False,
            suffix=suffix,
            recursive=True,
            backend_args=dataset.backend_args,
        )
    )


def list_annotations(dataset: BaseSegDataset, folder: str) -> list[str]:
    """Return the sorted names of a data set's annotations.

    Raises:
        MissingAnnotationsError: if there is no such folder, or no annotation in it.
    """
    suffix = dataset.seg_map_suffix
    try:
        found = list_files(dataset, folder, suffix)
    except MissingFileError as error:
        raise MissingAnnotationsError(str(error)) from error
    if not found:
        raise MissingAnnotationsError(
            f'no annotation in {folder}: expected files ending in {suffix}'
            f'{how_to_get(dataset)}'
        )
    return found


def annotation_of(image: str, suffixes: Sequence[str], annotation_suffix: str) -> str:
    """Return the name of an image's annotation: its suffix replaces the image's."""
    suffix = max((s for s in suffixes if image.endswith(s)), key=len, default='')
    return image[: len(image) - len(suffix)] + annotation_suffix


@DATASETS.register_module()
class CheckedADE20KDataset(CheckedSegDataset, ADE20KDataset):
    """ADE20K's scene parsing benchmark (SceneParse150) as ADEChallengeData2016.

    Labels are 0 (other, ignored) and 1..150; 150 classes after ``reduce_zero_label``.
    """

    HOW_TO_GET = """\
Expected layout (ADEChallengeData2016 as published):
  DATA_ROOT/images/{training,validation}/*.jpg
  DATA_ROOT/annotations/{training,validation}/*.png    labels 0 (other) and 1..150
Get it: illama_seg.datasets.prepare.prepare_ade20k('data/ade/ADEChallengeData2016')
It downloads http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip
(923 MB) into data/ade/ADEChallengeData2016. Or set your own folder, for training and
validation: train_dataloader.dataset.data_root=DIR \
val_dataloader.dataset.data_root=DIR test_dataloader.dataset.data_root=DIR
To see the program run without it: configs/upernet_illama_demo.py (`make demo`)."""


@DATASETS.register_module()
class ScenesDataset(CheckedADE20KDataset):
    """Procedural scenes in ADE20K's layout, see ``illama_seg.datasets.scenes``."""

    HOW_TO_GET = "Make it: illama_seg.datasets.scenes.write_scenes('data/scenes')"


@DATASETS.register_module()
class CamVidDataset(CheckedSegDataset):
    """CamVid in the split and the 11 classes of SegNet (arXiv 1511.00561).

    480x360 video frames, 367 to train, 101 to validate, 233 to test; label 11 is void
    and ignored. Images may be .png, as published, or .jpg.
    """

    METAINFO = dict(
        classes=(
            'Sky',
            'Building',
            'Pole',
            'Road',
            'Pavement',
            'Tree',
            'SignSymbol',
            'Fence',
            'Car',
            'Pedestrian',
            'Bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )
    HOW_TO_GET = """\
Expected layout (CamVid as published with SegNet):
  DATA_ROOT/{train,val}/*.png or *.jpg
  DATA_ROOT/{trainannot,valannot}/*.png    labels 0..10, 11 is void
Get it: illama_seg.datasets.prepare.prepare_camvid('data/camvid')"""

    def __init__(self, img_suffix: Sequence[str] = ('.png', '.jpg'), **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes: Sequence | None = None) -> dict[int, int]:
        """Return mmseg's mapping, with label 11 (void) ignored."""
        return {**(super().get_label_map(new_classes) or {}), 11: IGNORED}
