"""Measurements of trained models, one room for each property.

Each study has its measure, its drawing and its section of the report. A name is
imported when it is first used; ``__init__.pyi`` lists them. They share these:

Args:
    config: config file, or the name of a config.
    sources: checkpoints of this config; for a classification also 'random' and timm's
        models, see :func:`build_classifier`.
    out: folder of the results; by default one of the study's name in the config's work
        dir.
    beside: JSON files of earlier calls; their models are shown too.
    seed: seed of the images drawn.
    batch_size: images at once; for a segmentation, windows.
    device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.
    cfg_options: overrides of the config.

Returns:
    Content of the JSON file, and readable tables.

Raises:
    MissingFileError: if a file or folder is missing.
    ConnectionError: if weights cannot be downloaded.
    UserError: if a parameter is out of range, or a model or the data do not fit.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
