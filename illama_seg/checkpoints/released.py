"""The files that the authors of iLLaMA released."""

from dataclasses import dataclass

_BASE_URL = 'https://huggingface.co/techmonsterwang/iLLaMA/resolve/main/'

# Embedding width -> name and depth (arXiv 2404.06773, Table 11).
SIZES = {192: ('Tiny', 12), 384: ('Small', 12), 768: ('Base', 12), 1024: ('Large', 24)}


@dataclass(frozen=True)
class ReleasedFile:
    """One released classifier.

    Attributes:
        url: where the file is.
        arch: ``arch`` of the backbone it fits.
        img_size: image side it was trained at last.
        top1: ImageNet-1K top-1 accuracy in percent (arXiv 2404.06773).
    """

    url: str
    arch: str
    img_size: int
    top1: float


RELEASED = {
    name: ReleasedFile(_BASE_URL + name, arch, img_size, top1)
    for name, arch, img_size, top1 in (
        ('illama-tiny-in1k-75.0.pth', 'tiny', 224, 75.0),
        ('illama-small-in1k-79.9.pth', 'small', 224, 79.9),
        ('illama-base-in1k-81.6.pth', 'base', 224, 81.6),
        ('illama-base-in1k-384-83.0.pth', 'base', 384, 83.0),
        ('illama-base-in21kin1k-224-83.6.pth', 'base', 224, 83.6),
        ('illama-base-in21kin1k-384-85.0.pth', 'base', 384, 85.0),
        ('illama-large-in21kin1k-224-84.8.pth', 'large', 224, 84.8),
        ('illama-large-in21kin1k-384-86.0.pth', 'large', 384, 86.0),
    )
}
