"""Latency, throughput, peak memory, parameters and multiply-accumulates of a model."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config
from torch import nn
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.models import load_weights, usable_device
from illama_seg.apis.runs.overview import (
    count_tokens,
    describe_attention,
    describe_linear_layers,
)
from illama_seg.deploy import ExportedModel, is_exported
from illama_seg.errors import UserError
from illama_seg.machine import choices
from illama_seg.machine.choices import device_name
from illama_seg.machine.precision import Precision, precision_with
from illama_seg.studies.common import (
    build_model,
    build_on_meta,
    check_at_least,
    image_channels,
    results_path,
    training_shape,
    write_results,
)
from illama_seg.studies.complexity.counts import count_multiply_accumulates
from illama_seg.studies.peak_memory import (
    MIB,
    forward_pass,
    peak_in_child,
    peak_of_file,
)
from illama_seg.studies.tables import Section, Table, as_text

# Crops of the ADE20K recipe, and the largest image that its test pipeline makes.
SHAPES = ((512, 512), (512, 2048))
WARM_UP = 3  # passes
NOTES = dict(
    multiply_accumulates=(
        'multiply-accumulates, not FLOPs: torch counts 2 for each; as papers count '
        'them, and those that run'
    ),
    time='forward pass from the normalised images to the logits',
    cpu='resident memory of the process: Python, libraries, weights and the pass',
    file='resident memory of a process without torch: libraries, weights, the pass',
    cuda='memory of the CUDA allocator: weights and the pass',
)
SECTION = Section(
    title='Speed and memory',
    files='benchmark.json',
    about='Medians over forward passes; seconds for each batch.',
    command='python tools/analysis/benchmark.py {config} {checkpoint}',
)


def run_benchmark(
    config: str | Path,
    checkpoint: str | Path | None = None,
    *,
    out: str | Path | None = None,
    shape: tuple[int, int] | None = None,
    batch_sizes: Sequence[int] = (1,),
    repeat: int = 10,
    amp: bool = False,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Measure time, memory and size of a config's model and write the numbers.

    See :mod:`illama_seg.studies` for the other parameters, the result and errors.

    Args:
        checkpoint: checkpoint of this model; by default the weights are random, which
            takes the same time. Or a file of :func:`illama_seg.apis.export_model`,
            which is timed in its runtime.
        out: JSON file to write; by default ``benchmark.json`` in the config's work dir.
        shape: (height, width) of the timed images in pixels; by default that of the
            training.
        batch_sizes: numbers of images in a forward pass.
        repeat: number of timed passes, after ``WARM_UP`` untimed ones.
        amp: half precision where it is faster on this machine.
    """
    check_at_least(1, batch_sizes=batch_sizes, repeat=repeat, shape=shape)
    cfg = load_config(config, cfg_options)
    is_file = checkpoint is not None and is_exported(checkpoint)
    file = ExportedModel(cast(Any, checkpoint)) if is_file else None
    on = torch.device('cpu' if file else usable_device(device))
    path = results_path(out, cfg, 'benchmark.json')
    model = build_model(cfg)
    of_file: Any = file and file.sidecar.size and tuple(file.sidecar.size)
    shape = shape or of_file or training_shape(model)
    counts = _counts(cfg, shape)  # cheap, so a wrong shape is refused early
    if checkpoint is not None and file is None:
        load_weights(model, checkpoint)
    model.to(on)
    precision = precision_with(amp, on.type)
    if file is not None:
        precision = Precision(file.sidecar.precision, 'of the exported file')
    attention, linear = ['by the runtime'], {'linear layers': 'by the runtime'}
    dtype = torch.float32
    if file is None:
        dtype, tokens = precision.dtype, count_tokens(model, shape)
        attention = [
            describe_attention(model, dtype, tokens, size, training=False)
            for size in batch_sizes
        ]
        linear = describe_linear_layers(model, dtype, training=False)
    # Arguments of the child process in which the peak memory is measured.
    case = str(config), cfg_options, shape, dtype, choices.made()
    with tqdm(total=len(batch_sizes) * (repeat + WARM_UP), unit='pass') as passes:
        timings = [
            _measure(
                model,
                shape,
                size,
                repeat=repeat,
                dtype=dtype,
                case=case,
                progress=passes.update,
                file=file,
            )
            for size in batch_sizes
        ]
    numbers: dict[str, Any] = dict(
        config=str(config),
        checkpoint=checkpoint and str(checkpoint),
        shape=shape,
        precision=precision.name,
        precision_reason=precision.reason,
        attention='; '.join(dict.fromkeys(attention)),
        linear_layers=linear.get('linear layers', 'one way'),
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
            peak_memory_mib=NOTES['file' if file else on.type],
        ),
    )
    tables = _tables(numbers)
    return write_results(path, tables, **numbers), as_text(tables)


def _counts(cfg: Config, shape: tuple[int, int]) -> list[dict]:
    model = build_on_meta(cfg)
    segments = hasattr(model, 'decode_head')
    heads = (False, True) if getattr(model, 'auxiliary_head', None) else (False,)
    rows = []
    for size in dict.fromkeys((shape, *(SHAPES if segments else ()))):
        try:
            macs = count_multiply_accumulates(model, size)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                'the model does not accept images of this size: '
                f'{str(error).splitlines()[0]}',
                shape=size,
            ) from error
        rows += [
            dict(
                shape=size,
                attention_products=attention,
                auxiliary_head=auxiliary,
                count=macs.total(attention, auxiliary),
                executed=macs.total(attention, auxiliary, executed=True),
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


def _measure(
    model: nn.Module,
    shape: tuple[int, int],
    batch_size: int,
    *,
    repeat: int,
    dtype: torch.dtype,
    case: tuple,
    progress: Callable[[], Any],
    file: ExportedModel | None = None,
) -> dict:
    row: dict[str, Any] = dict(batch_size=batch_size)
    device = next(model.parameters()).device
    if file is not None:
        device = torch.device('cpu')
    if device.type == 'cpu':  # running out of memory kills the child only
        row['peak_memory_mib'] = (
            peak_in_child(*case, batch_size)
            if file is None
            else peak_of_file(file.path, (batch_size, image_channels(model), *shape))
        )
        if row['peak_memory_mib'] is None:
            return row | dict(out_of_memory=True)
    else:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    try:
        image = torch.randn(batch_size, image_channels(model), *shape, device=device)
        for _ in range(WARM_UP + repeat):
            start = time.perf_counter()
            if file is None:
                forward_pass(model, image, dtype)
            else:
                file.logits(image.numpy())
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


def _tables(numbers: dict) -> list[Table]:
    notes, shape = numbers['notes'], 'x'.join(map(str, numbers['shape']))
    settings = dict(numbers, precision=numbers['precision_reason'])
    names = (
        'config', 'device', 'threads', 'precision', 'attention', 'linear_layers',
        'torch',
    )  # fmt: skip
    templates = (
        '{batch_size:,}',
        '{seconds:.4g}',
        '{fastest:.4g} to {slowest:.4g}',
        '{images_per_second:.4g}',
        '{peak_memory_mib:,.0f}',
    )
    columns = ('images', 'seconds', 'range', 'images/s', 'peak, MiB')
    speed = [
        [f'{row["batch_size"]:,}', 'out of memory', '-', '-', '-']
        if row.get('out_of_memory')
        else [template.format(**row) for template in templates]
        for row in numbers['timings']
    ]
    share = {True: 'with', False: 'without'}
    macs = [
        [
            'x'.join(map(str, row['shape'])),
            share[row['attention_products']],
            share[row['auxiliary_head']],
            f'{row["count"] / 1e9:,.2f}',
            f'{row["executed"] / 1e9:,.2f}',
        ]
        for row in numbers['multiply_accumulates']
    ]
    parameters = [[k, f'{n / 1e6:,.3f}'] for k, n in numbers['parameters'].items()]
    return [
        Table([], [[name, str(settings[name])] for name in names]),
        Table(
            columns,
            speed,
            title=f'images of {shape} pixels: medians and their range',
            note=f'time: {notes["time"]}\npeak memory: {notes["peak_memory_mib"]}',
        ),
        Table(
            [
                'image',
                'attention products',
                'auxiliary head',
                'G of papers',
                'G that run',
            ],
            macs,
            title=notes['multiply_accumulates'],
        ),
        Table(['parameters', 'M'], parameters),
    ]
