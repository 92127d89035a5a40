"""What a script imports: make data, build runs, load models, predict, draw."""

from illama_seg.apis.benchmark import run_benchmark
from illama_seg.apis.compare import compare_runs
from illama_seg.apis.draw import add_legend, draw_curves, draw_rows, overlay
from illama_seg.apis.infer import segment_files
from illama_seg.apis.mistakes import mistakes_explained
from illama_seg.apis.predict import find_images, load_segmentor, predict, read_image
from illama_seg.apis.report import LabelledImages, evaluate, report_run
from illama_seg.apis.roadmap import run_roadmap
from illama_seg.apis.running import (
    CfgOptions,
    build_tester,
    build_trainer,
    load_config,
)
from illama_seg.checkpoints import (
    convert_checkpoint,
    select_llama_weights,
    write_weights,
)
from illama_seg.datasets.camvid import prepare_camvid
from illama_seg.datasets.scenes import write_scene_crops, write_scenes

__all__ = [
    'CfgOptions',
    'LabelledImages',
    'add_legend',
    'build_tester',
    'build_trainer',
    'compare_runs',
    'convert_checkpoint',
    'draw_curves',
    'draw_rows',
    'evaluate',
    'find_images',
    'load_config',
    'load_segmentor',
    'mistakes_explained',
    'overlay',
    'predict',
    'prepare_camvid',
    'read_image',
    'report_run',
    'run_benchmark',
    'run_roadmap',
    'segment_files',
    'select_llama_weights',
    'write_scene_crops',
    'write_scenes',
    'write_weights',
]
