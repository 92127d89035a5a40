"""The backbone, registered with MMEngine's root registry."""

from illama_seg.backbones.illama import ILLaMA
from illama_seg.backbones.reading import Reading
from illama_seg.layers.architectures import ARCHITECTURES

__all__ = ['ARCHITECTURES', 'ILLaMA', 'Reading']
