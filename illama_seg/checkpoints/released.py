"""The files that the authors of iLLaMA released."""

from dataclasses import dataclass

_BASE_URL = 'https://huggingface.co/techmonsterwang/iLLaMA/resolve/main/'


@dataclass(frozen=True)
class ReleasedFile:
    """One released classifier.

    Attributes:
        url: address of the file.
        arch: ``arch`` of the backbone that it fits.
        img_size: image side in pixels at the end of its training.
        data: training data as in timm's tags: 'in1k', or 'in21k_ft_in1k'.
        top1: ImageNet-1K top-1 accuracy in percent (arXiv 2404.06773).
    """

    url: str
    arch: str
    img_size: int
    data: str
    top1: float


RELEASED = {
    name: ReleasedFile(_BASE_URL + name, arch, img_size, data, top1)
    for name, arch, img_size, data, top1 in (
        ('illama-tiny-in1k-75.0.pth', 'tiny', 224, 'in1k', 75.0),
        ('illama-small-in1k-79.9.pth', 'small', 224, 'in1k', 79.9),
        ('illama-base-in1k-81.6.pth', 'base', 224, 'in1k', 81.6),
        ('illama-base-in1k-384-83.0.pth', 'base', 384, 'in1k', 83.0),
        ('illama-base-in21kin1k-224-83.6.pth', 'base', 224, 'in21k_ft_in1k', 83.6),
        ('illama-base-in21kin1k-384-85.0.pth', 'base', 384, 'in21k_ft_in1k', 85.0),
        ('illama-large-in21kin1k-224-84.8.pth', 'large', 224, 'in21k_ft_in1k', 84.8),
        ('illama-large-in21kin1k-384-86.0.pth', 'large', 384, 'in21k_ft_in1k', 86.0),
    )
}
