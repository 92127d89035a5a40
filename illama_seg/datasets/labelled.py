"""Images of a data set with their labels, one pair at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from illama_seg.datasets.decoding import as_picture, image_loader, loads_bgr
from illama_seg.errors import UserError

Pair = tuple[np.ndarray, np.ndarray, str]


class LabelledImages:
    """Images and labels of one of a config's data sets, as its loader reads them.

    Yields (image, labels (H, W) class numbers or 255, path). The image is (H, W, 3)
    uint8 BGR by the default loader, (H, W) or (H, W, bands) of any type by others.

    Args:
        cfg: config.
        split: 'train', 'val' or 'test'.

    Raises:
        UserError: if the images have no annotations.
    """

    def __init__(self, cfg: Config, split: str) -> None:
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        settings = cfg[f'{split}_dataloader'].dataset
        self.dataset = DATASETS.build(_only_loading(settings))
        if len(self.dataset) and 'seg_map_path' not in self.dataset.get_data_info(0):
            raise UserError(
                f'the images of {split}_dataloader.dataset have no annotations, which '
                'are needed here: set its data_prefix.seg_map_path'
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Pair:
        sample = self.dataset[index]
        return sample['img'], sample['gt_seg_map'], sample['img_path']

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    def picture(self, image: np.ndarray) -> np.ndarray:
        """Return a picture of one of the images, (H, W, 3) uint8, BGR."""
        return as_picture(image, loads_bgr(image_loader(self.dataset)))

    def name(self, index: int) -> str:
        """Return the file name of an image, without reading the file."""
        return Path(self.dataset.get_data_info(index)['img_path']).name


def _only_loading(settings: Mapping) -> dict[str, Any]:
    """Return the config of a data set, or of a wrapper, without augmentation."""
    if 'datasets' in settings:
        parts = [_only_loading(each) for each in settings['datasets']]
        return dict(settings, datasets=parts)
    if 'dataset' in settings:
        inner = _only_loading(settings['dataset'])
        # A wrapper with a pipeline mixes images, as for a mosaic.
        return inner if 'pipeline' in settings else dict(settings, dataset=inner)
    loading = ('LoadAnnotations', 'CheckAnnotations')
    first, *others = settings['pipeline']
    steps = [first, *(step for step in others if step['type'] in loading)]
    return dict(settings, pipeline=steps)
