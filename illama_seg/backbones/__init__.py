"""The backbone, registered with MMEngine's root registry."""

from illama_seg.backbones.illama import ARCHITECTURES, ILLaMA

__all__ = ['ARCHITECTURES', 'ILLaMA']
