"""Optimiser construction and precision, registered with MMEngine's root registries."""

from illama_seg.engine.optim import BFloat16OptimWrapper, LayerDecayConstructor

__all__ = ['BFloat16OptimWrapper', 'LayerDecayConstructor']
