"""Everything that ``import illama_seg`` changes in other libraries, one module each.

- ``opencv``: the environment variable of OpenCV's limit on pixels.
- ``image_loaders``: Pillow's limit on pixels; mmcv's ``LoadImageFromFile`` and mmseg's
  ``LoadAnnotations``, which then check the size in an image's header before decoding;
  the former also refuses bands that its decoder would leave out.
- ``visualization_hook``: mmseg's ``SegVisualizationHook``, which then reads images as
  the config's loader does.
- ``mmengine_loading``: mmengine's checkpoint readers, which then run no code of a file.
- ``mmengine_optimizers``: transformers, which mmengine imports at every start.
- ``mmengine_hub``: the configs of this package in ``mmengine.hub``.
- ``timm_models``: the models in timm's registry.

Two modules change nothing. ``timm_features`` is the backbone ``TimmFeatures``: any
model of timm. ``transformers`` converts a strictly causal backbone to a ``LlamaModel``
and back.

Outside this room: ``illama_seg.machine.threads`` sets how OpenMP's threads wait, and
``illama_seg.quiet`` filters known warnings.
"""
