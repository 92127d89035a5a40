"""Latency, throughput, peak memory, parameters and multiply-accumulates of a model."""

from __future__ import annotations

import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from prettytable import PrettyTable
from torch import nn
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.models import load_weights, usable_device
from illama_seg.apis.runs.overview import count_tokens, describe_attention
from illama_seg.apis.user_errors import check_writable, options_explained
from illama_seg.errors import UserError
from illama_seg.machine import choices
from illama_seg.machine.choices import device_name
from illama_seg.machine.precision import choose_precision
from illama_seg.studies.complexity.counts import count_multiply_accumulates

# Crops of the ADE20K recipe, and the largest picture that its test resizes to.
SHAPES = ((512, 512), (512, 2048))
WARM_UP = 3  # passes
MIB = 2**20
NOTES = dict(
    multiply_accumulates='multiply-accumulates, not FLOPs: torch counts 2 for each',
    time='forward pass from the normalised images to the logits',
    cpu="resident, the whole process's: Python, libraries, weights and the pass",
    cuda="the allocator's: weights and the pass",
)


def run_benchmark(
    config: str | Path,
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    shape: tuple[int, int] | None = None,
    batch_sizes: Sequence[int] = (1,),
    repeat: int = 10,
    amp: bool = False,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Measure a segmentor or classifier of a config, and write the numbers.

    Args:
        config: config file.
        checkpoint: of this model; by default the weights are random, which takes as
            long.
        out: JSON file to write; by default ``benchmark.json`` in the config's work dir.
        shape: (height, width) of the images timed; by default that of the training.
        batch_sizes: images to a pass.
        repeat: passes timed, after three to warm up.
        amp: half precision where it is faster here.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.
        cfg_options: overrides of the config.

    Returns:
        The numbers, as in the file, and a text of tables.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if an option is out of its range or the checkpoint does not fit.
    """
    if min(batch_sizes) < 1 or repeat < 1 or min(shape or (1, 1)) < 1:
        raise UserError(
            f'--batch-sizes {list(batch_sizes)} --repeat {repeat} --shape {shape}: '
            'expected numbers from 1 on'
        )
    cfg = load_config(config, cfg_options)
    on = torch.device(usable_device(device))
    out = Path(out or Path(cfg.work_dir) / 'benchmark.json')
    check_writable(out.parent, '--out')
    model = _build(cfg)
    shape = shape or training_shape(model)
    counts = _counts(cfg, shape)  # cheap, and refuses what is no such model
    if checkpoint is not None:
        load_weights(model, checkpoint)
    model.to(on)
    precision = choose_precision(on.type, 'auto' if amp else 'float32')
    dtype = precision.dtype
    tokens = count_tokens(model, shape)
    attention = [
        describe_attention(model, dtype, tokens, size, training=False)
        for size in batch_sizes
    ]
    # The child that the memory is measured in measures nothing else.
    case = str(config), cfg_options, shape, dtype, choices.made()
    passes = tqdm(total=len(batch_sizes) * (repeat + WARM_UP), unit='pass')
    with passes:
        timings = [
            _measure(model, shape, size, repeat, dtype, case, passes.update)
            for size in batch_sizes
        ]
    numbers = dict(
        config=str(config),
        checkpoint=checkpoint and str(checkpoint),
        shape=shape,
        precision=precision.name,
        precision_reason=precision.reason,
        attention='; '.join(dict.fromkeys(attention)),
        device=device_name(on.type),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        parameters=_parameters(model),
        multiply_accumulates=counts,
        timings=timings,
        notes=dict(
            multiply_accumulates=NOTES['multiply_accumulates'],
            time=NOTES['time'],
            peak_memory_mib=NOTES[on.type],
        ),
    )
    out.write_text(json.dumps(numbers, indent=1))
    return numbers, _tables(numbers)


def _build(cfg: Config) -> nn.Module:
    """The config's model in eval mode, its weights random."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
    with options_explained(cfg):
        return MODELS.build(cfg.model).eval()


def training_shape(model: nn.Module) -> tuple[int, int]:
    """(height, width) in pixels of the images that a model is trained on."""
    parts: Any = model
    if size := getattr(parts.data_preprocessor, 'size', None):
        return tuple(size)
    patch = parts.backbone.patch_embed.proj.stride
    height, width = parts.backbone.grid_size
    return height * patch[0], width * patch[1]


def _counts(cfg: Config, shape: tuple[int, int]) -> list[dict]:
    with torch.device('meta'):
        model = _build(cfg)
    segments = hasattr(model, 'decode_head')
    shapes = dict.fromkeys((shape, *(SHAPES if segments else ())))
    # A row for each way to count; a classifier has no auxiliary head.
    heads = (False, True) if getattr(model, 'auxiliary_head', None) else (False,)
    rows = []
    for size in shapes:
        try:
            macs = count_multiply_accumulates(model, size)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f'an image of {size[0]}x{size[1]} (--shape) does not go through the '
                f'model: {str(error).splitlines()[0]}'
            ) from error
        rows += [
            dict(
                shape=size,
                attention_products=attention,
                auxiliary_head=auxiliary,
                count=macs.total(attention, auxiliary),
            )
            for auxiliary in heads
            for attention in (False, True)
        ]
    return rows


def _parameters(model: nn.Module) -> dict[str, int]:
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in model.named_children()
    }
    return {name: n for name, n in counts.items() if n} | {'all': sum(counts.values())}


def _pass(model: nn.Module, image: torch.Tensor, dtype: torch.dtype) -> None:
    device = image.device
    amp = dtype != torch.float32
    precision: Any = torch.autocast(device.type, dtype) if amp else nullcontext()
    with precision, torch.inference_mode():
        model(image)  # mode 'tensor': the logits
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _measure(
    model: nn.Module,
    shape: tuple[int, int],
    batch_size: int,
    repeat: int,
    dtype: torch.dtype,
    case: tuple,
    progress: Callable[[], Any],
) -> dict:
    row: dict[str, Any] = dict(batch_size=batch_size)
    device = next(model.parameters()).device
    if device.type == 'cpu':  # a memory too small ends the child, not this process
        row['peak_memory_mib'] = _peak_in_child(*case, batch_size)
        if row['peak_memory_mib'] is None:
            return row | dict(out_of_memory=True)
    else:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    try:
        image = torch.randn(batch_size, 3, *shape, device=device)
        for _ in range(WARM_UP + repeat):
            start = time.perf_counter()
            _pass(model, image, dtype)
            seconds.append(time.perf_counter() - start)
            progress()
    except torch.OutOfMemoryError:
        return row | dict(out_of_memory=True)
    if device.type == 'cuda':
        row['peak_memory_mib'] = torch.cuda.max_memory_allocated(device) / MIB
    seconds = seconds[WARM_UP:]
    median = statistics.median(seconds)
    return row | dict(
        seconds=median,
        fastest=min(seconds),
        slowest=max(seconds),
        images_per_second=batch_size / median,
        all_seconds=seconds,
    )


def _peak_in_child(*case: Any) -> float | None:
    """MiB that a new process takes at its peak; None where it was ended."""
    spawn = multiprocessing.get_context('spawn')
    work = partial(_peak, torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            return pool.submit(work, *case).result()
        except BrokenProcessPool:
            return None


def _peak(
    threads: int,
    config: str,
    cfg_options: dict | None,
    shape: tuple[int, int],
    dtype: torch.dtype,
    chosen: dict[str, str],
    batch_size: int,
) -> float:
    torch.set_num_threads(threads)
    choices.resume(chosen)
    model = _build(load_config(config, cfg_options))
    image = torch.randn(batch_size, 3, *shape)
    _pass(model, image, dtype)
    return _resident_peak()


def _resident_peak() -> float:
    """MiB. On Linux not getrusage's, which starts at the parent's."""
    status = Path('/proc/self/status')
    if status.is_file():
        return int(status.read_text().split('VmHWM:')[1].split()[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if platform.system() == 'Darwin' else 1024)


def _tables(numbers: dict) -> str:
    notes = numbers['notes']
    title = (
        f'{numbers["config"]}: {numbers["device"]}, {numbers["threads"]} threads, '
        f'torch {numbers["torch"]}, {numbers["precision_reason"]}, attention '
        f'{numbers["attention"]}'
    )
    shape = 'x'.join(map(str, numbers['shape']))
    speed = _table('images', f'{shape}: seconds', 'range', 'images/s', 'peak, MiB')
    for row in numbers['timings']:
        if row.get('out_of_memory'):
            speed.add_row([row['batch_size'], 'out of memory', '-', '-', '-'])
            continue
        speed.add_row(
            [
                row['batch_size'],
                f'{row["seconds"]:.4g}',
                f'{row["fastest"]:.4g} to {row["slowest"]:.4g}',
                f'{row["images_per_second"]:.4g}',
                f'{row["peak_memory_mib"]:,.0f}',
            ]
        )
    macs = _table('image', 'attention products', 'auxiliary head', 'G')
    for row in numbers['multiply_accumulates']:
        with_each = (row['attention_products'], row['auxiliary_head'])
        macs.add_row(
            [
                'x'.join(map(str, row['shape'])),
                *('with' if each else 'without' for each in with_each),
                f'{row["count"] / 1e9:,.2f}',
            ]
        )
    parameters = _table('parameters', 'M')
    for name, count in numbers['parameters'].items():
        parameters.add_row([name, f'{count / 1e6:,.3f}'])
    return '\n'.join(
        [
            title,
            f'time: medians and their range; {notes["time"]}',
            f'peak memory: {notes["peak_memory_mib"]}',
            str(speed),
            notes['multiply_accumulates'],
            str(macs),
            str(parameters),
        ]
    )


def _table(*columns: str) -> PrettyTable:
    table = PrettyTable(columns, align='r')
    table.align[columns[0]] = 'l'
    return table
