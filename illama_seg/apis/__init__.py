"""What a script imports: build runs, load models, predict, draw, report."""

from illama_seg.apis.draw import add_legend, draw_curves, draw_rows, overlay
from illama_seg.apis.predict import find_images, load_segmentor, predict, read_image
from illama_seg.apis.report import evaluate, read_pairs, report_run
from illama_seg.apis.running import (
    CfgOptions,
    build_tester,
    build_trainer,
    load_config,
)

__all__ = [
    'CfgOptions',
    'add_legend',
    'build_tester',
    'build_trainer',
    'draw_curves',
    'draw_rows',
    'evaluate',
    'find_images',
    'load_config',
    'load_segmentor',
    'overlay',
    'predict',
    'read_image',
    'read_pairs',
    'report_run',
]
