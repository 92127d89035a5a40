"""timm's image transforms as steps of an mmengine pipeline."""

from __future__ import annotations

from typing import Any

from mmengine.registry import TRANSFORMS
from PIL import Image
from timm.data import auto_augment, create_transform

from illama_seg.datasets.images import bombs_refused, open_image
from illama_seg.errors import UserError
from illama_seg.pretrain.structures import DataSample


@TRANSFORMS.register_module()
class LoadRGBImage:
    """Read ``img_path``, or take ``img``, (H, W) or (H, W, 3) uint8 -> PIL image, RGB.

    Raises:
        UserError: if the file is no image, is damaged, or declares too many pixels;
            names the file.
    """

    def __call__(self, results: dict) -> dict:
        """Set ``img``."""
        if 'img' in results:
            return dict(results, img=Image.fromarray(results['img']).convert('RGB'))
        path = results['img_path']
        try:
            with bombs_refused(path), open_image(path) as image:
                return dict(results, img=image.convert('RGB'))
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, FileNotFoundError) or str(error).startswith(str(path)):
                raise
            raise UserError(f'{path} is no image, or is damaged: {error}') from error


@TRANSFORMS.register_module()
class ClsTransform:
    """``timm.data.create_transform``, up to a (3, H, W) uint8 tensor.

    ``ClsDataPreprocessor`` normalises and erases on the device. timm drops colour
    jitter if there is an ``auto_augment``.

    Args:
        options: arguments of ``create_transform``: ``input_size``, ``is_training``,
            ``auto_augment``, ``interpolation``, ``crop_pct``, ``crop_mode``, ...

    Raises:
        UserError: if timm does not know an option, or ``ClsDataPreprocessor`` has it.
    """

    def __init__(self, **options: Any) -> None:
        later = {'re_prob', 're_mode', 'mean', 'std', 'normalize'} & set(options)
        if later:
            raise UserError(
                f'ClsTransform {sorted(later)}: normalisation and erasing are options '
                'of model.data_preprocessor'
            )
        try:
            self._transform = create_transform(normalize=False, **options)
        except TypeError as error:
            raise UserError(f'ClsTransform {options}: {error}') from error
        for step in getattr(self._transform, 'transforms', ()):
            for op in getattr(step, 'ops', ()):
                if op.aug_fn is auto_augment.posterize:
                    op.aug_fn = _posterize

    def __call__(self, results: dict) -> dict:
        """Transform ``img``."""
        return dict(results, img=self._transform(results['img']))

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self._transform})'


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Posterize as timm; black at the 0 bits that RandAugment may draw."""
    if bits == 0:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits)


@TRANSFORMS.register_module()
class PackClsInputs:
    """``img`` and ``gt_label`` -> ``inputs`` and a :class:`DataSample`."""

    def __call__(self, results: dict) -> dict:
        """Pack, with the path and number of the image for messages."""
        kept = ('img_path', 'sample_idx')
        meta = {key: results[key] for key in kept if key in results}
        sample = DataSample(metainfo=meta)
        if 'gt_label' in results:
            sample.set_gt_label(results['gt_label'])
        return dict(inputs=results['img'], data_samples=sample)
