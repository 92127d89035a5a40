"""Shape or texture: models and published decisions on cue-conflict images."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch
from mmengine.logging import print_log
from prettytable import PrettyTable
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.images import find_images
from illama_seg.apis.user_errors import check_writable
from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.shape_bias.decisions import (
    Decision,
    category_numbers,
    conflict_of,
    decide,
    read_decisions,
    shape_bias,
    write_decisions,
)
from illama_seg.studies.shape_bias.draw import draw_shape_bias
from illama_seg.studies.subjects import Classifier, build_classifier

FILES = ('shape_bias.json', 'shape_bias.png', 'shape_bias.csv')
PUBLISHED = 1280
PERSON, PEOPLE = re.compile(r'subject-?\d+'), 'people'
COUNTED = ('images', 'no_conflict', 'shape', 'texture', 'other', 'shape_bias')
NOTES = dict(
    shape_bias='decisions for shape over decisions for shape or texture',
    no_conflict='images whose shape and texture are one category; not counted',
    left_out='images with a category that the model has no class of',
)


def measure_shape_bias(
    config: str | Path | None = None,
    sources: Sequence[str | Path] = (),
    images: str | Path | None = None,
    decisions: Sequence[str | Path] = (),
    out: str | Path = 'work_dirs/shape_bias',
    categories: str | Path | None = None,
    batch_size: int = 32,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Count decisions for shape and for texture; write ``FILES``.

    The decisions of each model are also written, in the format of the published ones,
    as ``cue-conflict_MODEL_session-1.csv``.

    Args:
        config: config of a classification, or its name.
        sources: its checkpoints, and timm's models, see
            :func:`illama_seg.studies.build_classifier`.
        images: folder of ``SHAPE/SHAPE<n>-TEXTURE<n>.png``.
        decisions: CSV files of the published format, and folders of them; people
            (subject-01, ...) are counted together.
        out: folder to write to.
        categories: JSON, category -> list of numbers or names of its classes.
        batch_size: images at once.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.
        cfg_options: overrides of the config.

    Returns:
        What is in shape_bias.json, and a readable table.

    Raises:
        FileNotFoundError: if a file or folder is missing.
        ConnectionError: if weights cannot be downloaded.
        ValueError: if an option, a model, an image's name or a table does not fit.
    """
    if not sources and not decisions:
        raise UserError(
            'nothing to count: give CONFIG and CHECKPOINT with --images, or --decisions'
        )
    if sources and (config is None or images is None):
        raise UserError(
            f'{sources[0]}: a model needs the images too: --images FOLDER, of '
            'SHAPE/SHAPE<n>-TEXTURE<n>.png (github.com/rgeirhos/texture-vs-shape, '
            'stimuli/style-transfer-preprocessed-512)'
        )
    if batch_size < 1:
        raise UserError(f'--batch-size {batch_size}: expected at least 1')
    mapping = None if categories is None else _read_mapping(Path(categories))
    subjects = _published(decisions)
    paths = find_conflicts(images) if sources and images is not None else []
    models: list[tuple[Classifier, list[Path], dict, str]] = []
    for source in sources:  # all of them before the first one runs
        cfg = load_config(str(config), cfg_options)
        classifier = build_classifier(cfg, source, device)
        numbers = category_numbers(classifier.num_classes, classifier.classes, mapping)
        taken = [path for path in paths if set(conflict_of(path.name)) <= set(numbers)]
        if not taken:
            raise UserError(
                f'{images}: no image of the categories that {classifier.name} has, '
                f'{", ".join(numbers)}; give the classes of others by --categories'
            )
        if classifier.name in subjects or classifier.name in {
            other.name for other, *_ in models
        }:
            raise UserError(
                f'{classifier.name} is there twice, as model or in --decisions: leave '
                'one of them out, or rename the checkpoint'
            )
        models.append((classifier, taken, numbers, str(source)))
    results, folder = {}, Path(out)
    check_writable(folder)
    for classifier, taken, numbers, text in models:
        made = _decisions(classifier, taken, numbers, batch_size)
        name = re.sub(r'[^\w.-]+', '_', classifier.name)
        write_decisions(folder / f'cue-conflict_{name}_session-1.csv', made)
        subjects[classifier.name] = made
        results[classifier.name] = dict(
            source=text,
            config=str(config),
            left_out=len(paths) - len(taken),
            among=list(numbers),
        )
        if len(taken) < PUBLISHED:
            print_log(
                f'{classifier.name}: {len(taken)} images; the published protocol has '
                f'{PUBLISHED} in 16 categories',
                logger='current',
            )
    rows = [
        {'name': name, **results.get(name, {}), **shape_bias(made)}
        for name, made in subjects.items()
    ]
    report = dict(
        models=rows,
        notes=NOTES,
        precision='float32',
        versions=dict(torch=torch.__version__, timm=timm.__version__),
    )
    (folder / 'shape_bias.json').write_text(json.dumps(report, indent=1))
    _write_csv(folder / 'shape_bias.csv', rows)
    draw_shape_bias(rows, folder / 'shape_bias.png')
    return report, _table(rows)


def find_conflicts(folder: str | Path) -> list[Path]:
    """Images of the folder of each shape.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no image, one is named otherwise, or lies elsewhere.
    """
    if not Path(folder).is_dir():
        raise MissingFileError(f'--images: no folder {folder}')
    paths = [path for path, _ in find_images([folder])]
    for path in paths:
        shape, _ = conflict_of(str(path))
        if path.parent.name != shape:
            raise UserError(
                f'{path}: the shape is {shape!r} by its name; expected it in a folder '
                f'{shape}'
            )
    return paths


def _decisions(
    classifier: Classifier,
    paths: Sequence[Path],
    categories: Mapping[str, Sequence[int]],
    batch_size: int,
) -> list[Decision]:
    made = []
    starts = range(0, len(paths), batch_size)
    for start in tqdm(starts, desc=classifier.name, unit='batch'):
        batch = paths[start : start + batch_size]
        loaded = [classifier.load(dict(img_path=str(path))) for path in batch]
        chosen = decide(classifier.logits(loaded).softmax(1), categories)
        made += [
            Decision(classifier.name, category, path.name)
            for category, path in zip(chosen, batch, strict=True)
        ]
    return made


def _published(sources: Sequence[str | Path]) -> dict[str, list[Decision]]:
    """Subject -> decisions; people are one subject."""
    subjects: dict[str, list[Decision]] = {}
    for source in map(Path, sources):
        files = sorted(source.glob('*.csv')) if source.is_dir() else [source]
        if not files:
            raise UserError(f'--decisions {source}: expected .csv files in the folder')
        for file in files:
            for decision in read_decisions(file):
                person = PERSON.fullmatch(decision.subject)
                name = PEOPLE if person else decision.subject
                subjects.setdefault(name, []).append(decision)
    return subjects


def _read_mapping(path: Path) -> dict[str, list]:
    if not path.is_file():
        raise MissingFileError(f'--categories: no file {path}')
    try:
        mapping = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f'--categories {path} is no JSON: {error}') from error
    if not isinstance(mapping, dict) or not all(
        isinstance(entry, list) for entry in mapping.values()
    ):
        raise UserError(
            f'--categories {path}: expected {{"cat": ["tabby", 282], ...}}, a list of '
            'class numbers or names for each category'
        )
    return mapping


def _write_csv(path: Path, rows: Sequence[dict]) -> None:
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['model', 'category', *COUNTED])
        for row in rows:
            for name, figures in row['categories'].items():
                writer.writerow([row['name'], name, *(figures[n] for n in COUNTED)])
            writer.writerow([row['name'], 'all', *(row[n] for n in COUNTED)])


def _table(rows: Sequence[dict]) -> str:
    lines = []
    for row in rows:
        titles = ['no conflict' if name == 'no_conflict' else name for name in COUNTED]
        table = PrettyTable(['category', *titles[:-1], 'shape %'], align='r')
        table.align['category'] = 'l'
        for name, figures in [*row['categories'].items(), ('all', row)]:
            table.add_row(
                [
                    name,
                    *(figures[n] for n in COUNTED[:-1]),
                    _percent(figures['shape_bias']),
                ],
                divider=name == list(row['categories'])[-1],
            )
        lines += [
            f'{row["name"]}: shape bias {_percent(row["shape_bias"])} % (95 %: '
            f'{" to ".join(map(_percent, row["interval"] or (None, None)))}), mean of '
            f'categories {_percent(row["mean_of_categories"])} %, '
            f'{row["no_conflict"]} images without conflict not counted, '
            f'{row.get("left_out", 0)} left out',
            table.get_string(),
        ]
    return '\n'.join(lines)


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{100 * share:.1f}'
