"""Procedural outdoor scenes in ADE20K's layout, label ids and class names.

A scene is a ground plane seen by a pinhole camera: X metres to the right, Z metres
ahead, Y metres up.  Things are drawn from far to near, image and label from the same
masks, on a canvas of twice the asked size, which is then reduced.
"""

from illama_seg.datasets.scenes.canvas import SCENE_CLASSES, SCENE_IDS
from illama_seg.datasets.scenes.crops import write_scene_crops
from illama_seg.datasets.scenes.writer import make_scene, write_scenes

__all__ = [
    'SCENE_CLASSES',
    'SCENE_IDS',
    'make_scene',
    'write_scene_crops',
    'write_scenes',
]
