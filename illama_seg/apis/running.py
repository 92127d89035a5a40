"""Build training and test runs, with every mistake met before the model is built."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS, RUNNERS, init_default_scope
from mmengine.runner import Runner

from illama_seg.apis.batches import (
    enable_auto_scale_lr,
    note_recipe,
    scaling_of_an_iteration,
    set_accumulation,
)
from illama_seg.apis.long_runs import SKIP_CORRUPT, build_long_run, use_safe_hooks
from illama_seg.apis.mistakes import check_writable, options_explained
from illama_seg.apis.names import find_config, nearest_names
from illama_seg.apis.overview import ESTIMATED_AFTER, OverviewHook
from illama_seg.apis.prediction import (
    annotation_ids,
    load_weights,
    write_image,
)
from illama_seg.apis.processes import join_processes_without_gpus
from illama_seg.apis.scores import ScoresWriter
from illama_seg.checkpoints import fetch_checkpoint, read_checkpoint
from illama_seg.engine import PlainCheckpointHook, TimeEstimateHook
from illama_seg.machine.precision import Precision, choose_precision
from illama_seg.pretrain import check_classes, check_topk
from illama_seg.quiet import quiet_terminal

# Variables of the configs, put in their places when the file is read.
_SUBSTITUTED = {
    'max_iters': 'train_cfg.max_iters (and the ends in param_scheduler)',
    'data_root': 'train_dataloader.dataset.data_root, and the same of val_ and test_',
}


def parse_cfg_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read what follows ``--cfg-options``, in mmengine's syntax of values.

    Args:
        pairs: ``KEY=VALUE`` each; the value a number, a string, True, None, or a list
            or tuple of values.

    Returns:
        Dotted key -> value.

    Raises:
        ValueError: names the pair that is none, or whose brackets do not match.
    """
    options = {}
    for pair in pairs or ():
        key, separator, value = pair.partition('=')
        if not separator:
            raise ValueError(f'--cfg-options {pair}: expected KEY=VALUE')
        try:
            options[key] = DictAction._parse_iterable(value)
        except AssertionError as error:  # mmengine's word for open brackets
            raise ValueError(f'--cfg-options {pair}: {error}') from error
    return options


def load_config(
    path: str | Path,
    cfg_options: dict | None = None,
    work_dir: str | Path | None = None,
    launcher: str = 'none',
) -> Config:
    """Read a config and set its work dir, by default ``work_dirs/<config name>``.

    Args:
        path: config file, or the name of a config of this package, which is looked for
            where there is no such file.
        cfg_options: overrides: dotted key -> value.
        work_dir: folder for logs and checkpoints.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        FileNotFoundError: if there is no such config; lists those beside it and the
            nearest names.
        ValueError: if the config cannot be read or an override does not fit it.
    """
    path = _config_file(Path(path))
    variable = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID'}.get(launcher)
    if variable and variable not in os.environ:
        raise ValueError(
            f'--launcher {launcher}, but {variable} is not set: start it with '
            f'{"torchrun (tools/dist_train.sh)" if variable == "RANK" else "srun"}'
        )
    for name, real in _SUBSTITUTED.items():
        if name in (cfg_options or {}):
            raise ValueError(
                f'--cfg-options {name} has no effect by itself: set {real}'
            )
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: it may raise anything
        raise ValueError(f'config {path}: {type(error).__name__}: {error}') from error
    note_recipe(cfg)
    try:
        cfg.merge_from_dict(cfg_options or {})
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise ValueError(
            f'--cfg-options {cfg_options} do not fit {path}: {error}'
        ) from error
    note_recipe(cfg)  # of a batch that only an override names
    cfg.launcher = launcher
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or f'work_dirs/{path.stem}')
    return cfg


def _config_file(path: Path) -> Path:
    found = path if path.is_file() else find_config(path)
    if found is not None:
        return found
    beside = sorted(file.name for file in path.parent.glob('*.py'))
    raise FileNotFoundError(
        f'no config {path}; '
        + (
            f'in {path.parent} there are: {", ".join(beside)}; '
            if beside and path.suffix == '.py'
            else ''
        )
        + f'the nearest that can be given by name: {", ".join(nearest_names(path))}'
    )


def build_trainer(
    cfg: Config,
    amp: bool = False,
    resume: bool = False,
    auto_scale_lr: bool = False,
    skip_corrupt: bool = False,
) -> Runner:
    """Check data, weights, schedule and work dir, then build the training run.

    It says what it is about to do right before its first iteration.

    Args:
        cfg: config of :func:`load_config`.
        amp: half precision where it is faster here: ``AutocastOptimWrapper``.
        resume: go on from the newest whole checkpoint in the work dir.
        auto_scale_lr: scale the learning rate with the batch, from the one that the
            config's ``auto_scale_lr.base_batch_size`` or ``effective_batch`` names.
        skip_corrupt: skip images that cannot be read, up to the share of them that the
            config's ``skip_corrupt`` is, else one in a hundred.

    Raises:
        FileNotFoundError: data or a checkpoint is missing.
        ValueError: data, checkpoint, work dir or an option cannot be used.
    """
    check_writable(cfg.work_dir, '--work-dir')
    _check_data(cfg, ('train', 'val'))
    _check_pretrained(cfg)
    _check_schedule(cfg)
    set_accumulation(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    _keep_freed_memory()
    if amp:
        _set_amp(cfg)
    if skip_corrupt:
        cfg.skip_corrupt = cfg.get('skip_corrupt') or SKIP_CORRUPT
    cfg.resume = resume or cfg.get('resume', False)
    runner_type = _runner_type(cfg)
    join_processes_without_gpus(cfg)
    with options_explained(cfg):
        runner = build_long_run(cfg, runner_type)
    runner.auto_scale_lr = scaling_of_an_iteration(cfg)
    runner.register_hook(TimeEstimateHook(ESTIMATED_AFTER))
    runner.register_hook(PlainCheckpointHook())
    runner.register_hook(OverviewHook())
    return runner


def build_tester(
    cfg: Config,
    checkpoint: str | Path,
    tta: bool = False,
    out: str | Path | None = None,
    show_dir: str | Path | None = None,
    amp: bool = False,
) -> Runner:
    """Build a test run and load the weights, all of them.

    Of a segmentor it also writes what :func:`illama_seg.apis.write_scores` does, into
    the work dir.

    Args:
        cfg: config of :func:`load_config`.
        checkpoint: a checkpoint of this segmentor or classifier.
        tta: multi-scale and flip test, as the config's ``tta_pipeline`` says.
        out: folder for the predictions as label PNGs; of a segmentor only.
        show_dir: folder for the predictions painted over the images, likewise.
        amp: half precision where it is faster here.

    Raises:
        FileNotFoundError: data or the checkpoint is missing.
        ValueError: the checkpoint is not of this model, or an option cannot be used.
    """
    check_writable(cfg.work_dir, '--work-dir')
    segments = 'head' not in cfg.model
    for folder, option in ((out, '--out'), (show_dir, '--show-dir')):
        if folder is not None:
            if not segments:
                raise ValueError(
                    f'{option}: {cfg.filename} classifies; only a segmentation can be '
                    'drawn. Its metrics are in the work dir'
                )
            check_writable(folder, option)
    _check_data(cfg, ('test',))
    state = read_checkpoint(fetch_checkpoint(checkpoint), mmap=True)
    if show_dir is not None:
        cfg.default_hooks.visualization.update(draw=True)
        cfg.visualizer.save_dir = str(show_dir)
    # The runner would load these over the checkpoint that is to be tested.
    cfg.load_from, cfg.resume = None, False
    cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
    if tta:
        if 'tta_pipeline' not in cfg:
            raise ValueError(
                f'--tta: {cfg.filename} has no tta_pipeline; leave --tta out, or take '
                "configs/_base_/ade20k.py's over"
            )
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(cfg.tta_model, module=cfg.model)
    precision = _test_precision(cfg, amp)
    use_safe_hooks(cfg)
    join_processes_without_gpus(cfg)
    with options_explained(cfg), quiet_terminal(Runner):
        runner = Runner.from_cfg(cfg)
    print_log(f'precision: {precision.reason}', logger='current')
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model.module if tta else model, state, checkpoint)
    if segments:
        runner.register_hook(ScoresWriter(cfg.work_dir, precision.name))
    if out is not None:
        dataset = runner.test_loop.dataloader.dataset
        folder = getattr(dataset, 'data_prefix', {}).get('img_path')
        ids = annotation_ids(dataset.metainfo)
        runner.register_hook(_LabelWriter(out, folder, ids))
    return runner


class _LabelWriter(Hook):
    """Write predictions as label PNGs, named as the images, with the data set's ids."""

    def __init__(self, out: str | Path, img_dir: str | None, ids: np.ndarray) -> None:
        self.out, self.img_dir, self.ids = Path(out), img_dir, ids

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | None = None,
    ) -> None:
        for sample in outputs or ():
            labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
            path = Path(sample.img_path)
            name = path.relative_to(self.img_dir) if self.img_dir else Path(path.name)
            write_image(self.out / name.with_suffix('.png'), self.ids[labels])


def _keep_freed_memory() -> None:
    """On a CPU, let the next iteration use again what the last one freed.

    glibc gives every large block back to the system, and touching it anew costs the
    demo a twelfth of its time, losses over more classes more. Other C libraries know no
    mallopt.
    """
    if os.name != 'posix' or torch.cuda.is_available():
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
        mallopt(-4, 0)  # M_MMAP_MAX: none


def _check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """List the data sets: a missing folder or annotation shows in a second."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    classes = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            with options_explained(cfg):
                dataset = DATASETS.build(loader.dataset)
            print_log(f'{split} data: {len(dataset)} images', logger='current')
            classes[split] = dataset.metainfo.get('classes') or ()
    if 'head' in cfg.model:
        check_classes(cfg.model.head.num_classes, classes)
        for split in splits:
            option = f'{split}_evaluator'
            check_topk(option, cfg.get(option), cfg.model.head.num_classes)


def _check_pretrained(cfg: Config) -> None:
    """Fetch and read the checkpoints now, not after the model is built."""
    if cfg.get('load_from'):
        read_checkpoint(fetch_checkpoint(cfg.load_from), mmap=True)
    for module in (cfg.model, cfg.model.backbone):
        init_cfgs = module.get('init_cfg') or []
        for init_cfg in init_cfgs if isinstance(init_cfgs, list) else [init_cfgs]:
            if isinstance(init_cfg, dict) and init_cfg.get('checkpoint'):
                read_checkpoint(fetch_checkpoint(init_cfg['checkpoint']), mmap=True)


def _runner_type(cfg: Config) -> type[Runner]:
    """What the config's ``runner_type`` names, mmengine's key for it."""
    name = cfg.get('runner_type', 'Runner')
    found = RUNNERS.get(name) if isinstance(name, str) else name
    if not isinstance(found, type) or not issubclass(found, Runner):
        raise ValueError(
            f"runner_type={name!r}: expected 'Runner', or 'ShardedRunner' to shard the "
            'weights over the processes (FSDP)'
        )
    return found


def _check_schedule(cfg: Config) -> None:
    for number, step in enumerate(cfg.get('param_scheduler', [])):
        if step.get('end', float('inf')) <= step.get('begin', 0):
            raise ValueError(
                f'param_scheduler.{number} ends at iteration {step.end}, before it '
                f'begins, at {step.begin}: set both by --cfg-options '
                f'param_scheduler.{number}.begin=... param_scheduler.{number}.end=...'
            )
    max_iters = cfg.train_cfg.get('max_iters')
    ends = [step.end for step in cfg.get('param_scheduler', []) if 'end' in step]
    if max_iters and ends and max(ends) != max_iters:
        print_log(
            f'train_cfg.max_iters={max_iters}, but the learning rate is scheduled for '
            f'{max(ends)} iterations. To fit it: --cfg-options '
            f'param_scheduler.{len(ends) - 1}.end={max_iters} (and a shorter warmup: '
            'param_scheduler.0.end, param_scheduler.1.begin)',
            logger='current',
            level=30,
        )


def _test_precision(cfg: Config, amp: bool) -> Precision:
    """Choose a test's precision, and write it into the config for mmengine's loop."""
    device = get_device()
    precision = choose_precision(device, 'auto' if amp else 'float32')
    if precision.name == 'float16' and device == 'cpu':
        raise ValueError(
            f'{precision.reason}: mmengine tests in float32 or bfloat16 on a CPU'
        )
    if precision.name != 'float32':
        cfg.test_cfg.fp16 = True  # autocast, in the dtype that is set next
        torch.set_autocast_dtype(device, precision.dtype)
    return precision


def _set_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    if wrapper.type == 'OptimWrapper':
        wrapper.type = 'AutocastOptimWrapper'
    else:
        print_log(f'--amp: the config already has {wrapper.type}', logger='current')
