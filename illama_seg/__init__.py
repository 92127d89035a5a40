"""iLLaMA, the decoder-only vision transformer, for OpenMMLab.

``import illama_seg`` checks the versions and registers everything below with MMEngine's
root registries, so that the names resolve unprefixed from the scopes of mmseg,
mmpretrain and mmdet alike. ``illama_seg.integrations`` lists the changes that it makes
in other libraries.
"""

from importlib.util import find_spec

from illama_seg.integrations.mmengine_optimizers import defer_transformers
from illama_seg.integrations.opencv import limit_pixels
from illama_seg.machine.threads import set_wait_policy
from illama_seg.quiet import ignore_known_warnings, quiet_imports
from illama_seg.version import __version__, check_versions

set_wait_policy()  # before anything loads torch
limit_pixels()  # before anything loads OpenCV

# Where there is no torch, exported files can be run, and nothing else.
if find_spec('torch') is not None:
    check_versions()
    ignore_known_warnings()

    with quiet_imports():
        defer_transformers()  # before anything loads mmengine's optimisers
        from illama_seg import (
            backbones,
            datasets,
            engine,
            heads,
            pretrain,
            quantization,
        )
        from illama_seg.integrations import (
            image_loaders,
            mmengine_hub,
            mmengine_loading,
            timm_features,
            timm_models,
            visualization_hook,
        )
        from illama_seg.questions import Question, ask

__all__ = [
    'Question',
    '__version__',
    'ask',
    'backbones',
    'datasets',
    'engine',
    'heads',
    'image_loaders',
    'mmengine_hub',
    'mmengine_loading',
    'pretrain',
    'quantization',
    'timm_features',
    'timm_models',
    'visualization_hook',
]


def __getattr__(name: str) -> object:
    """Say what is missing where torch is."""
    if find_spec('torch') is None:
        check_versions()
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
