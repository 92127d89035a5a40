"""Build test runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.fileio import isfile
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from illama_seg.apis.checks import check_data
from illama_seg.apis.label_images import LabelWriter, begin_labels, keep_labels
from illama_seg.apis.models import annotation_ids, load_weights
from illama_seg.apis.prediction import without_annotations
from illama_seg.apis.runs import overview  # registers the config's hook  # noqa: F401
from illama_seg.apis.runs.foreign import complete_hooks
from illama_seg.apis.runs.loggers import check_loggers
from illama_seg.apis.runs.processes import join_processes_without_gpus
from illama_seg.apis.scores import ScoresWriter
from illama_seg.apis.user_errors import (
    check_writable,
    explain_building,
    options_explained,
)
from illama_seg.checkpoints import open_checkpoint
from illama_seg.datasets.segmentation import (
    CheckedSegDataset,
    MissingAnnotationsError,
)
from illama_seg.deploy import is_exported
from illama_seg.deploy.in_place import with_exported
from illama_seg.engine.sizes import misfit_labels, unequal_sizes
from illama_seg.errors import MissingFileError, UserError
from illama_seg.machine.precision import Precision, precision_with
from illama_seg.quiet import quiet_terminal


def build_tester(
    cfg: Config,
    checkpoint: str | Path,
    *,
    tta: bool = False,
    out: str | Path | None = None,
    show_dir: str | Path | None = None,
    amp: bool = False,
    resume: bool = False,
) -> Runner:
    """Build a test run and load all weights.

    The test of a segmentor also calls :func:`illama_seg.apis.write_scores` for the work
    dir.

    Args:
        cfg: config of :func:`load_config`.
        checkpoint: a checkpoint of this segmentor or classifier, or a segmentor's file
            that :func:`export_model` wrote.
        tta: multi-scale and flip test, by the config's ``tta_pipeline``.
        out: folder for the predictions as label PNGs; segmentation only.
        show_dir: folder for the predictions over the images; segmentation only.
        amp: half precision where it is faster here.
        resume: score the label PNGs that ``out`` has already, of the same test, and
            predict those that are missing.

    Raises:
        MissingFileError: data or the checkpoint is missing.
        UserError: the checkpoint is not of this model, an option cannot be used, or
            images without annotations would be scored.
    """
    check_writable(cfg.work_dir, 'work_dir')
    segments = 'head' not in cfg.model
    for name, folder in dict(out=out, show_dir=show_dir).items():
        if folder is not None:
            if not segments:
                raise UserError(
                    f'{cfg.filename} classifies; only a segmentation can be drawn. '
                    'Leave it out: the metrics are in the work dir',
                    **{name: str(folder)},
                )
            check_writable(folder, name)
    check_loggers(cfg)
    try:
        datasets = check_data(cfg, ('test',))
    except MissingAnnotationsError as error:
        raise MissingFileError(f'{error}\n{_advice()}') from error
    if resume and out is None:
        raise UserError('needs out, the folder with the label PNGs', resume=True)
    exported = is_exported(checkpoint)
    weights = None if exported else open_checkpoint(checkpoint)
    if show_dir is not None:
        cfg.default_hooks.visualization.update(draw=True)
        cfg.visualizer.save_dir = str(show_dir)
    if out is not None:
        file = Path(checkpoint) if weights is None else weights.path
        begin_labels(cfg, out, file=file, tta=tta, amp=amp, resume=resume)
    # Else the runner loads these over the tested checkpoint.
    cfg.load_from, cfg.resume = None, False
    cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
    if exported:
        cfg = with_exported(cfg, str(checkpoint))
    if tta:
        if 'tta_pipeline' not in cfg:
            raise UserError(
                f'{cfg.filename} has no tta_pipeline: leave tta out, or copy the one '
                'of configs/_base_/ade20k.py',
                tta=True,
            )
        _check_tta_model(cfg)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(cfg.tta_model, module=cfg.model)
    if segments and 'test' in datasets:
        _check_annotations(cfg, datasets['test'])
    precision = _test_precision(cfg, amp)
    complete_hooks(cfg)
    join_processes_without_gpus(cfg)
    with options_explained(cfg), quiet_terminal(Runner):
        runner = Runner.from_cfg(cfg)
    explain_building(runner, cfg)
    print_log(f'precision: {precision.reason}', logger='current')
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if weights is not None:
        load_weights(model.module if tta else model, weights)
    if segments:
        runner.register_hook(ScoresWriter(cfg.work_dir, precision.name))
        if not tta:  # whose batches are of one image in several sizes
            runner.register_hook(_SizesCheck())
        _explain_scoring(runner)
    if out is not None:
        dataset = runner.test_loop.dataloader.dataset
        folder = getattr(dataset, 'data_prefix', {}).get('img_path')
        ids = annotation_ids(dataset.metainfo)
        writer = LabelWriter(out, folder, ids)
        runner.register_hook(writer)
        if resume:
            keep_labels(runner, writer)
    return runner


def _check_tta_model(cfg: Config) -> None:
    """Refuse mmseg's merging of views for one channel: it applies two sigmoids.

    Raises:
        UserError: names the model that averages the probabilities.
    """
    kind = cfg.tta_model.get('type')
    channels = (cfg.model.get('decode_head') or {}).get('out_channels')
    if channels == 1 and kind in ('SegTTAModel', 'mmseg.SegTTAModel'):
        raise UserError(
            f'tta_model.type={kind!r} with model.decode_head.out_channels=1 applies '
            'the sigmoid twice, so that every pixel becomes foreground: set '
            'tta_model.type=AveragingTTAModel'
        )


def _check_annotations(cfg: Config, dataset: Any) -> None:
    """Prepare a test of images without annotations, or refuse it with the settings.

    Raises:
        MissingFileError: the annotations named are not there.
        UserError: there are none, but they would be compared with; or mmseg's metric
            has no folder for what it writes instead.
    """
    metrics = cfg.get('test_evaluator') or []
    metrics = [metrics] if isinstance(metrics, Mapping) else metrics
    metrics = [m for m in metrics if m.get('type') in ('IoUMetric', 'CityscapesMetric')]
    for metric in metrics:
        if metric.get('format_only') and not metric.get('output_dir'):
            raise UserError(
                f'test_evaluator (type={metric["type"]}) with format_only=True needs a '
                'folder for its label images: set test_evaluator.output_dir=DIR'
            )
    only_written = all(metric.get('format_only') for metric in metrics)
    settings, sample = cfg.test_dataloader.dataset, dataset.get_data_info(0)
    annotation = sample.get('seg_map_path')
    is_loaded = 'Annotations' in str(settings.get('pipeline', 'LoadAnnotations'))
    if annotation is not None and is_loaded:
        is_lost = not isfile(annotation, getattr(dataset, 'backend_args', None))
        if is_lost and not isinstance(dataset, CheckedSegDataset):
            text = f'image {sample["img_path"]} has no annotation: expected'
            raise MissingFileError(f'{text} {annotation}\n{_advice(dataset)}')
        return
    if not only_written:
        raise UserError(
            f'the test images, such as {sample["img_path"]}, have no annotations to '
            'compare with (data_prefix.seg_map_path of the data, LoadAnnotations of '
            'the pipeline): set test_evaluator.format_only=True '
            'test_evaluator.output_dir=DIR, and their label images are written '
            'instead of scores'
        )
    folders = ', '.join(str(metric['output_dir']) for metric in metrics)
    print_log(f'no annotations, no scores; label images: {folders}', logger='current')
    if 'pipeline' in settings:
        settings.pipeline = without_annotations(settings.pipeline)


def _advice(dataset: Any = None) -> str:
    """Return the settings for a test without annotations; by default of our class."""
    key = 'test_dataloader.dataset.data_prefix'
    is_ours = dataset is None or isinstance(dataset, CheckedSegDataset)
    how = f'{key}.seg_map_path=None' if is_ours else f'{key} without its seg_map_path,'
    return (
        f'To test images that have no annotations, set {how} '
        'test_evaluator.format_only=True test_evaluator.output_dir=DIR: their label '
        'images are written instead of scores'
    )


def _explain_scoring(runner: Runner) -> None:
    """Name an annotation whose size is not that of its prediction."""
    evaluator = runner.test_loop.evaluator
    process = evaluator.process

    def explained(data_samples: Sequence, data_batch: Any = None) -> None:
        try:
            process(data_samples, data_batch)
        except Exception as error:
            if text := misfit_labels(data_samples, 'test'):
                raise UserError(text) from error
            raise

    evaluator.process = explained


class _SizesCheck(Hook):
    """Refuse a batch of images of different sizes."""

    def before_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        if text := unequal_sizes(data_batch, 'test'):
            raise UserError(text)


def _test_precision(cfg: Config, amp: bool) -> Precision:
    """Choose a test's precision and set it in the config."""
    device = get_device()
    precision = precision_with(amp, device)
    if precision.name == 'float16' and device == 'cpu':
        raise UserError(
            f'{precision.reason}: mmengine tests in float32 or bfloat16 on a CPU'
        )
    if precision.name != 'float32':
        cfg.test_cfg.fp16 = True  # mmengine's name for autocast, in any dtype
        torch.set_autocast_dtype(device, precision.dtype)
    return precision
