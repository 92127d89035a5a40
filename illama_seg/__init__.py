"""iLLaMA, the decoder-only vision transformer, for OpenMMLab.

``import illama_seg`` checks the versions and registers everything below with MMEngine's
root registries, so that the names resolve unprefixed from the scopes of mmseg,
mmpretrain and mmdet alike; and the models with timm. It lets mmengine read checkpoints
without running the code in them. Where torch is not loaded yet, it lets waiting threads
of OpenMP sleep at once (``illama_seg.machine.threads``).
"""

from illama_seg.machine.threads import set_wait_policy
from illama_seg.quiet import ignore_known_warnings, quiet_imports
from illama_seg.version import __version__, check_versions

set_wait_policy()  # before anything loads torch
check_versions()
ignore_known_warnings()

with quiet_imports():
    from illama_seg import (
        backbones,
        datasets,
        engine,
        hub,
        mmengine_loading,
        pretrain,
        quantization,
        timm_models,
    )

__all__ = [
    '__version__',
    'backbones',
    'datasets',
    'engine',
    'hub',
    'mmengine_loading',
    'pretrain',
    'quantization',
    'timm_models',
]
