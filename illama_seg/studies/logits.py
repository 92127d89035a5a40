"""Logits and labels of a model on the images of a config."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from illama_seg.apis.models import dataset_meta, load_segmentor
from illama_seg.apis.prediction import logit_blocks
from illama_seg.apis.user_errors import options_explained
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import UserError
from illama_seg.studies.subjects import Classifier, build_classifier, source_name

# Logits (N, num_classes), labels (N,), and the number of samples of the whole image.
Batch = tuple[Tensor, Tensor, int]


class ImageLogits:
    """Samples of a classification: one image each.

    Raises a UserError if the data have another number of classes than the model.
    """

    kind = 'classification'
    ignore_index = -1  # every number is a class

    def __init__(
        self, classifier: Classifier, cfg: Config, split: str, batch_size: int | None
    ) -> None:
        loader = cfg[f'{split}_dataloader']
        self.num_workers = loader.num_workers
        self.batch_size = batch_size or loader.batch_size
        images = load_images(cfg, split)
        self.classes = tuple(images.metainfo['classes'])
        self.classifier, self.name = classifier, classifier.name
        self.module = classifier.module or nn.Identity()
        self.num_images = len(images)
        if len(self.classes) != (number := classifier.num_classes):
            raise UserError(
                f'{self.name} has {number} classes, the {split} data of '
                f'{cfg.filename} {len(self.classes)}: expected the same'
            )
        self._samples: Any = _Loaded(images, classifier)

    def keep(self, indices: Sequence[int]) -> None:
        """Load these images once and keep them in memory."""
        self._samples = {index: self._samples[index] for index in indices}
        self.num_workers = 0

    def batches(self, indices: Sequence[int], title: str = '') -> Iterator[Batch]:
        """Compute logits of these images; the progress is shown with a title."""
        loader = DataLoader(
            self._samples,
            self.batch_size,
            sampler=indices,
            num_workers=self.num_workers,
        )
        for images, labels in tqdm(loader, title, unit='batch', disable=not title):
            yield self.classifier.logits(list(images)), labels, 1


class PixelLogits:
    """Samples of a segmentation: one pixel each.

    A head of one channel for two classes has the logits 0 and x: their softmax is the
    sigmoid of x. Raises a UserError if any other model lacks a logit for each class.
    """

    kind = 'segmentation'
    ignore_index = 255

    def __init__(
        self, model: nn.Module, name: str, pairs: LabelledImages, batch_size: int
    ) -> None:
        self.module, self.name, self.batch_size = model, name, batch_size
        self.classes = tuple(dataset_meta(model)['classes'])
        self.num_images, self._pairs = len(pairs), pairs
        channels = cast(Any, model).out_channels
        if channels != len(self.classes) and (channels, len(self.classes)) != (1, 2):
            raise UserError(
                f'{name} has {channels} logits for {len(self.classes)} classes: '
                'expected one for each class'
            )

    def keep(self, indices: Sequence[int]) -> None:
        """Raise a UserError if no pixel of these images is labelled."""
        if all((self._pairs[index][1] == 255).all() for index in indices):
            raise UserError(
                'the images drawn have no labelled pixel; draw more, or with another '
                'seed',
                num_images=len(indices),
            )

    def batches(self, indices: Sequence[int], title: str = '') -> Iterator[Batch]:
        """Compute logits of these images' pixels, block by block."""
        for index in tqdm(indices, title, unit='image', disable=not title):
            image, label, _ = self._pairs[index]
            truth = torch.from_numpy(label.astype(np.int64))
            for rows, columns, logits in logit_blocks(
                self.module, image, self.batch_size
            ):
                flat = logits.flatten(1).T.float().cpu()
                if flat.shape[1] == 1:
                    flat = torch.cat([torch.zeros_like(flat), flat], dim=1)
                yield flat, truth[rows, columns].flatten(), truth.numel()


def model_logits(
    cfg: Config,
    source: str | Path,
    split: str,
    batch_size: int | None,
    device: str | None,
) -> ImageLogits | PixelLogits:
    """Build a model and its 'train' or 'test' data, which are loaded as for a test.

    The other parameters are those of :mod:`illama_seg.studies`; ``batch_size`` is by
    default the config's, for a segmentation 1.
    """
    if 'decode_head' not in cfg.model:
        classifier = build_classifier(cfg, source, device)
        return ImageLogits(classifier, cfg, split, batch_size)
    model, name = load_segmentor(cfg, source, device), source_name(source)
    return PixelLogits(model, name, LabelledImages(cfg, split), batch_size or 1)


def load_images(cfg: Config, split: str) -> Any:
    """Build a classification's data without pipeline; a UserError if options misfit."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with options_explained(cfg):
        return DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, pipeline=[]))


class _Loaded(Dataset):
    """Images of a data set in a classifier's own preprocessing, and their labels."""

    def __init__(self, images: Any, classifier: Classifier) -> None:
        self.images, self.load = images, classifier.load

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        info = self.images.get_data_info(index)
        return self.load(info), int(info['gt_label'])
