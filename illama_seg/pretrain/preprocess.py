"""Normalise and augment a batch of 8-bit images on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import FUNCTIONS, MODELS
from timm.data import Mixup
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import default_collate

from illama_seg.errors import UserError
from illama_seg.pretrain.structures import DataSample


@MODELS.register_module()
class ClsDataPreprocessor(BaseDataPreprocessor):
    """Stack and normalise; in training erase parts and mix images, in this order.

    Args:
        num_classes: number of classes; needed for mixing.
        mixup: alpha of Mixup (arXiv 1710.09412); 0 for none.
        cutmix: alpha of CutMix (arXiv 1905.04899); 0 for none. With both, each batch
            uses one of them, chosen at random.
        erasing: probability of erasing a rectangle of an image, filled with noise for
            each pixel (arXiv 1708.04896).
        mean: mean of the red, green and blue channel of images in 0..1; ImageNet's by
            default.
        std: standard deviation of the same.

    Raises:
        UserError: for an argument out of its range.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        erasing: float = 0.0,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
    ) -> None:
        super().__init__()
        if min(mixup, cutmix) < 0 or not 0 <= erasing <= 1:
            raise UserError(
                f'ClsDataPreprocessor mixup={mixup}, cutmix={cutmix}, erasing='
                f'{erasing}: expected two numbers of 0 or more, and one in [0, 1]'
            )
        if (mixup or cutmix) and not num_classes:
            raise UserError('ClsDataPreprocessor: mixup and cutmix need num_classes')
        self.register_buffer('mean', 255 * torch.tensor(mean).view(-1, 1, 1), False)
        self.register_buffer('std', 255 * torch.tensor(std).view(-1, 1, 1), False)
        self._erase = RandomErasing(erasing, mode='pixel') if erasing else None
        # The head smooths the labels.
        self._mix = (
            Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=num_classes)
            if mixup or cutmix
            else None
        )

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Preprocess a batch of the data loader.

        Args:
            data: ``inputs``, uint8 RGB of one size, (B, 3, H, W) or a list of
                (3, H, W), and ``data_samples``, a list of :class:`DataSample`.
            training: augment the images.

        Returns:
            ``inputs`` (B, 3, H, W) float32 and ``data_samples``, which have a
            ``gt_score`` if images were mixed.

        Raises:
            UserError: if the images differ in size, or an odd number is to be mixed.
        """
        data = self.cast_data(data)  # type: ignore[assignment]
        images, samples = data['inputs'], data.get('data_samples')
        if not isinstance(images, Tensor):
            _check_one_shape(images)
            images = torch.stack(tuple(images))
        # On a CPU each extra copy of a large batch costs as much as the arithmetic.
        batch = torch.sub(images, self.mean).div_(self.std)
        if training and self._erase is not None:
            self._erase.device = batch.device
            batch = self._erase(batch)
        if training and self._mix is not None and samples is not None:
            batch, samples = self._mixed(batch, samples)
        return dict(inputs=batch, data_samples=samples)

    def _mixed(
        self, batch: Tensor, samples: list[DataSample]
    ) -> tuple[Tensor, list[DataSample]]:
        if len(batch) % 2:
            raise UserError(
                f'a batch of {len(batch)} images cannot be mixed in pairs: set an even '
                'train_dataloader.batch_size, and train_dataloader.drop_last=True'
            )
        labels = torch.cat([sample.gt_label for sample in samples])
        batch, scores = self._mix(batch, labels)
        for sample, score in zip(samples, scores, strict=True):
            sample.set_gt_score(score)
        return batch, samples


@FUNCTIONS.register_module()
def collate_images(batch: Sequence[dict]) -> dict[str, Any]:
    """Make a batch in the worker that loads it, so that it passes on one tensor.

    Args:
        batch: dicts of ``inputs``, (3, H, W) uint8, and ``data_samples``.

    Returns:
        ``inputs`` (B, 3, H, W), in shared memory in a worker, and ``data_samples``, a
        list of B.

    Raises:
        UserError: if the images differ in size.
    """
    images = [item['inputs'] for item in batch]
    _check_one_shape(images)
    samples = [item['data_samples'] for item in batch]
    return dict(inputs=default_collate(images), data_samples=samples)


def _check_one_shape(images: Sequence[Tensor]) -> None:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise UserError(
            f'images of a batch differ in shape: {sorted(shapes)}; expected a '
            'pipeline that makes them one size, as ClsTransform does'
        )
