"""Exported models: a file of ONNX or OpenVINO with its sidecar, run without torch.

``python -m illama_seg.deploy FILE IMAGES...`` segments or classifies images. What needs
torch, the conversion, is in ``illama_seg.deploy.graph``; ``illama_seg.apis`` calls it.
"""

from illama_seg.deploy.runtime import ExportedModel
from illama_seg.deploy.sidecar import Sidecar, is_exported, read_sidecar

__all__ = ['ExportedModel', 'Sidecar', 'is_exported', 'read_sidecar']
