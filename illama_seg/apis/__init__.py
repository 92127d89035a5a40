"""Functions for scripts: make data, build runs, load models, predict, draw.

A name is imported when it is first used: training needs nothing that draws.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from illama_seg.apis.attention_rank import measure_attention_rank
    from illama_seg.apis.benchmark import run_benchmark
    from illama_seg.apis.calibration import measure_calibration
    from illama_seg.apis.classifiers import build_classifier
    from illama_seg.apis.compare import compare_runs
    from illama_seg.apis.complexity import compare_complexity
    from illama_seg.apis.data_check import browse_dataset, check_dataset
    from illama_seg.apis.draw import add_legend, draw_curves, draw_rows, overlay
    from illama_seg.apis.evaluate_files import evaluate_predictions
    from illama_seg.apis.hub import get_config, get_model
    from illama_seg.apis.image_comparison import compare_images
    from illama_seg.apis.infer import segment_files
    from illama_seg.apis.loggers import add_tensorboard, add_wandb
    from illama_seg.apis.loss_landscape import measure_loss_landscape
    from illama_seg.apis.mistakes import mistakes_explained
    from illama_seg.apis.names import list_models
    from illama_seg.apis.prediction import (
        find_images,
        load_segmentor,
        predict,
        read_image,
    )
    from illama_seg.apis.quantize import (
        compare_precisions,
        export_quantized,
        quantize_after_training,
    )
    from illama_seg.apis.report import LabelledImages, evaluate, report_run
    from illama_seg.apis.report_page import write_page
    from illama_seg.apis.roadmap import run_roadmap
    from illama_seg.apis.running import (
        build_tester,
        build_trainer,
        load_config,
        parse_cfg_options,
    )
    from illama_seg.apis.scores import write_scores
    from illama_seg.apis.shape_bias import measure_shape_bias
    from illama_seg.apis.sliding import sliding_logits
    from illama_seg.apis.soft_mask import run_soft_mask_ablation
    from illama_seg.checkpoints import (
        convert_checkpoint,
        select_llama_weights,
        weights_path,
        write_weights,
    )
    from illama_seg.datasets.ade20k import prepare_ade20k
    from illama_seg.datasets.camvid import prepare_camvid
    from illama_seg.datasets.scenes import write_scene_crops, write_scenes

__all__ = [
    'LabelledImages',
    'add_legend',
    'add_tensorboard',
    'add_wandb',
    'browse_dataset',
    'build_classifier',
    'build_tester',
    'build_trainer',
    'check_dataset',
    'compare_complexity',
    'compare_images',
    'compare_precisions',
    'compare_runs',
    'convert_checkpoint',
    'draw_curves',
    'draw_rows',
    'evaluate',
    'evaluate_predictions',
    'export_quantized',
    'find_images',
    'get_config',
    'get_model',
    'list_models',
    'load_config',
    'load_segmentor',
    'measure_attention_rank',
    'measure_calibration',
    'measure_loss_landscape',
    'measure_shape_bias',
    'mistakes_explained',
    'overlay',
    'parse_cfg_options',
    'predict',
    'prepare_ade20k',
    'prepare_camvid',
    'quantize_after_training',
    'read_image',
    'report_run',
    'run_benchmark',
    'run_roadmap',
    'run_soft_mask_ablation',
    'segment_files',
    'select_llama_weights',
    'sliding_logits',
    'weights_path',
    'write_page',
    'write_scene_crops',
    'write_scenes',
    'write_scores',
    'write_weights',
]

_MODULES = {
    'LabelledImages': 'illama_seg.apis.report',
    'add_legend': 'illama_seg.apis.draw',
    'add_tensorboard': 'illama_seg.apis.loggers',
    'add_wandb': 'illama_seg.apis.loggers',
    'browse_dataset': 'illama_seg.apis.data_check',
    'build_classifier': 'illama_seg.apis.classifiers',
    'build_tester': 'illama_seg.apis.running',
    'build_trainer': 'illama_seg.apis.running',
    'check_dataset': 'illama_seg.apis.data_check',
    'compare_complexity': 'illama_seg.apis.complexity',
    'compare_images': 'illama_seg.apis.image_comparison',
    'compare_precisions': 'illama_seg.apis.quantize',
    'compare_runs': 'illama_seg.apis.compare',
    'convert_checkpoint': 'illama_seg.checkpoints',
    'draw_curves': 'illama_seg.apis.draw',
    'draw_rows': 'illama_seg.apis.draw',
    'evaluate': 'illama_seg.apis.report',
    'evaluate_predictions': 'illama_seg.apis.evaluate_files',
    'export_quantized': 'illama_seg.apis.quantize',
    'find_images': 'illama_seg.apis.prediction',
    'get_config': 'illama_seg.apis.hub',
    'get_model': 'illama_seg.apis.hub',
    'list_models': 'illama_seg.apis.names',
    'load_config': 'illama_seg.apis.running',
    'load_segmentor': 'illama_seg.apis.prediction',
    'measure_attention_rank': 'illama_seg.apis.attention_rank',
    'measure_calibration': 'illama_seg.apis.calibration',
    'measure_loss_landscape': 'illama_seg.apis.loss_landscape',
    'measure_shape_bias': 'illama_seg.apis.shape_bias',
    'mistakes_explained': 'illama_seg.apis.mistakes',
    'overlay': 'illama_seg.apis.draw',
    'parse_cfg_options': 'illama_seg.apis.running',
    'predict': 'illama_seg.apis.prediction',
    'prepare_ade20k': 'illama_seg.datasets.ade20k',
    'prepare_camvid': 'illama_seg.datasets.camvid',
    'quantize_after_training': 'illama_seg.apis.quantize',
    'read_image': 'illama_seg.apis.prediction',
    'report_run': 'illama_seg.apis.report',
    'run_benchmark': 'illama_seg.apis.benchmark',
    'run_roadmap': 'illama_seg.apis.roadmap',
    'run_soft_mask_ablation': 'illama_seg.apis.soft_mask',
    'segment_files': 'illama_seg.apis.infer',
    'select_llama_weights': 'illama_seg.checkpoints',
    'sliding_logits': 'illama_seg.apis.sliding',
    'weights_path': 'illama_seg.checkpoints',
    'write_page': 'illama_seg.apis.report_page',
    'write_scene_crops': 'illama_seg.datasets.scenes',
    'write_scenes': 'illama_seg.datasets.scenes',
    'write_scores': 'illama_seg.apis.scores',
    'write_weights': 'illama_seg.checkpoints',
}


if not TYPE_CHECKING:  # else every misspelt name would pass for one of these

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
