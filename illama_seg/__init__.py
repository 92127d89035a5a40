"""iLLaMA, the decoder-only vision transformer, for OpenMMLab.

``import illama_seg`` checks the versions and registers everything below with MMEngine's
root registries, so that the names resolve unprefixed from the scopes of mmseg,
mmpretrain and mmdet alike; and, where timm is installed, its models with timm's.
"""

from importlib.util import find_spec

from illama_seg.version import __version__, check_versions

check_versions()

from illama_seg import backbones, datasets, engine  # noqa: E402

if find_spec('timm'):
    from illama_seg import timm_models  # noqa: F401

__all__ = ['__version__', 'backbones', 'datasets', 'engine']
