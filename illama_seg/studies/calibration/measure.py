"""Calibration of classifiers and segmentors, before and after temperature scaling."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from illama_seg.apis.configs import load_config
from illama_seg.apis.user_errors import check_seed
from illama_seg.errors import UserError
from illama_seg.studies.calibration.counts import (
    SCORES,
    CalibrationCounts,
    fit_temperature,
)
from illama_seg.studies.calibration.draw import draw_calibration
from illama_seg.studies.common import (
    check_at_least,
    check_share,
    read_earlier,
    results_path,
    write_csv,
    write_results,
)
from illama_seg.studies.logits import ImageLogits, PixelLogits, model_logits
from illama_seg.studies.tables import Section, Table

FILES = ('calibration.json', 'calibration.png', 'calibration_per_class.csv')
KINDS = ('all', 'before', 'after')
FITTED = 200_000  # samples that a temperature is fitted to; images have many pixels
NOTES = dict(
    samples='images, or labelled pixels of a segmentation',
    all='all images, model unchanged',
    before='images not held out, model unchanged',
    after='the same images, logits divided by the temperature fitted to those held out',
    per_class='samples predicted as the class',
)
SECTION = Section(
    title='Calibration',
    files='calibration*.json',
    about='Is the model right as often as it is confident? Errors are fractions.',
    command='python tools/analysis/calibration.py {config} {checkpoint}',
    images={
        FILES[1]: 'Reliability diagrams with the histogram of confidence, before and '
        'after temperature scaling'
    },
)


def measure_calibration(
    config: str | Path,
    sources: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    beside: Sequence[str | Path] = (),
    num_bins: int = 15,
    held_out: float = 0.5,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Measure models on a config's test data and write the files ``FILES``.

    A temperature is fitted to some of the images, the same for all models, and judged
    on the others. See :mod:`illama_seg.studies` for the other parameters, the result
    and errors.

    Args:
        num_bins: number of confidence bins.
        held_out: share of the images that the temperature is fitted to.
        seed: seed that selects these images.
    """
    check_at_least(1, num_bins=num_bins, batch_size=batch_size)
    check_share(held_out=held_out)
    check_seed(seed)
    cfg = load_config(config, cfg_options)
    earlier = read_earlier(beside, FILES[0], _table)
    folder = results_path(out, cfg, 'calibration')
    results: list[dict] = []
    for source in sources:
        model = model_logits(cfg.copy(), source, 'test', batch_size, device)
        total = model.num_images
        if total < 2:
            raise UserError(
                f'{total} image in the test data of {cfg.filename}: expected at least '
                '2, one to hold out and one to judge by'
            )
        order = np.random.default_rng(seed).permutation(total).tolist()
        count = min(max(round(held_out * total), 1), total - 1)
        empty = CalibrationCounts(model.classes, num_bins, model.ignore_index)
        results.append(
            dict(
                name=model.name,
                source=str(source),
                config=str(config),
                kind=model.kind,
                data=cfg.test_dataloader.dataset.type,
                seed=seed,
                **_measure(model, empty, order[:count], order[count:]),
            )
        )
        # Written after each model, so that a failing one loses none.
        numbers = _write(folder, results, earlier)
    return numbers, str(_table(numbers['models']))


def _measure(
    model: ImageLogits | PixelLogits,
    empty: CalibrationCounts,
    held_out: list[int],
    judged: list[int],
) -> dict:
    """Stream the images held out, fit the temperature, stream the others."""
    counts = {kind: copy.deepcopy(empty) for kind in KINDS}
    generator = torch.Generator().manual_seed(0)
    fitted: list[tuple[Tensor, Tensor]] = []
    for logits, labels, samples in model.batches(held_out, model.name):
        counts['all'].update(logits, labels)
        share = FITTED / len(held_out) / samples
        chosen = torch.rand(len(labels), generator=generator) < share
        chosen &= labels != empty.ignore_index
        fitted.append((logits[chosen], labels[chosen]))
    logits, labels = map(torch.cat, zip(*fitted, strict=True))
    temperature = fit_temperature(logits, labels)
    if not 0.02 < temperature < 50:
        print_log(
            f'the fitted temperature {temperature:.3g} is at an end of the range: '
            f'{len(labels)} samples held out do not determine it',
            logger='current',
            level=30,
        )
    for logits, labels, _ in model.batches(judged, model.name):
        counts['all'].update(logits, labels)
        counts['before'].update(logits, labels)
        counts['after'].update(logits, labels, temperature)
    return dict(
        images=len(held_out) + len(judged),
        held_out=len(held_out),
        bins=empty.num_bins,
        temperature=temperature,
        **{kind: dict(c.summary(), diagram=c.diagram()) for kind, c in counts.items()},
        per_class=counts['all'].per_class(),
    )


def _write(folder: Path, results: list[dict], earlier: list[dict]) -> dict:
    models = [*results, *earlier]
    draw_calibration(models, folder / FILES[1])
    columns = ('class', 'samples', 'confidence', 'accuracy', 'ece')
    rows = (
        [result['name'], *(row[name] for name in columns)]
        for result in results
        for row in result['per_class']
    )
    write_csv(folder / FILES[2], ['model', *columns], rows)
    return write_results(
        folder / FILES[0],
        [_table(models)],
        models=models,
        notes=NOTES,
        precision='float32',
    )


def _table(models: Sequence[dict]) -> Table:
    rows = []
    for model in models:
        for kind in KINDS:
            # An earlier file without a diagram is refused before anything is drawn.
            row, _ = model[kind], model[kind]['diagram']
            label = f'after, T {model["temperature"]:.3g}' if kind == 'after' else kind
            rows.append(dict(row, model=model['name'], images=label))
    columns = {'model': '{model}', 'samples': '{samples:,}', 'images': '{images}'}
    columns |= {title: f'{{{name}:.4f}}' for name, title in SCORES.items()}
    note = '; '.join(f'{kind}: {NOTES[kind]}' for kind in KINDS)
    return Table.of(rows, columns, note=note)
