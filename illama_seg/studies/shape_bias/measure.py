"""Shape or texture: models and published decisions on cue-conflict images."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.logging import print_log
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.images import find_images
from illama_seg.apis.user_errors import check_writable
from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.common import check_at_least, write_results
from illama_seg.studies.section import Section
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
from illama_seg.studies.tables import Table, as_text

FILES = ('shape_bias.json', 'shape_bias.png', 'shape_bias.csv')
PUBLISHED = 1280
PERSON, PEOPLE = re.compile(r'subject-?\d+'), 'people'
COUNTED = ('images', 'no_conflict', 'shape', 'texture', 'other', 'shape_bias')
NOTES = dict(
    shape_bias='decisions for shape over decisions for shape or texture',
    no_conflict='images whose shape and texture have the same category; not counted',
    left_out='images of a category for which the model has no class',
)
SECTION = Section(
    title='Shape or texture',
    files='shape_bias*.json',
    about='Decisions on cue-conflict images; the shape bias is the share of shape '
    'among those for shape or texture.',
    command='python tools/analysis/shape_bias.py {config} {checkpoint} '
    '--images DIR --out {run}/shape_bias',
    kind='classification',
    images={
        'shape_bias.png': 'Share of decisions for the shape by category, and a line '
        'at the overall share of each model'
    },
)


def measure_shape_bias(
    config: str | Path | None = None,
    sources: Sequence[str | Path] = (),
    *,
    images: str | Path | None = None,
    decisions: Sequence[str | Path] = (),
    out: str | Path = 'work_dirs/shape_bias',
    categories: str | Path | None = None,
    batch_size: int = 32,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Count decisions for shape and for texture and write the files ``FILES``.

    The decisions of each model are also written in the published format, as
    ``cue-conflict_MODEL_session-1.csv``.

    Args:
        config: config of a classification, or its name.
        sources: checkpoints of this config, and timm's models, see
            :func:`illama_seg.studies.build_classifier`.
        images: folder with ``SHAPE/SHAPE<n>-TEXTURE<n>.png``.
        decisions: CSV files in the published format, and folders of them; people
            (subject-01, ...) are counted together.
        out: folder to write to.
        categories: JSON, category -> list of numbers or names of its classes.
        batch_size: images at once.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.
        cfg_options: overrides of the config.

    Returns:
        Content of shape_bias.json, and readable tables.

    Raises:
        MissingFileError: if a file or folder is missing.
        ConnectionError: if weights cannot be downloaded.
        UserError: if a parameter, a model, an image's name or a table does not fit.
    """
    if not sources and not decisions:
        raise UserError(
            'nothing to count: expected a config, a checkpoint and images, or decisions'
        )
    if sources and (config is None or images is None):
        raise UserError(
            f'{sources[0]}: a model needs a folder too (images), with files named '
            'SHAPE/SHAPE<n>-TEXTURE<n>.png (github.com/rgeirhos/texture-vs-shape, '
            'stimuli/style-transfer-preprocessed-512)'
        )
    check_at_least(1, batch_size=batch_size)
    mapping = None if categories is None else _read_mapping(Path(categories))
    subjects = _published(decisions)
    paths = find_conflicts(images) if sources and images is not None else []
    models: list[tuple[Classifier, list[Path], dict, str]] = []
    for source in sources:  # all models are checked before the first one runs
        cfg = load_config(str(config), cfg_options)
        classifier = build_classifier(cfg, source, device)
        numbers = category_numbers(classifier.num_classes, classifier.classes, mapping)
        usable = [path for path in paths if set(conflict_of(path.name)) <= set(numbers)]
        if not usable:
            raise UserError(
                f'no image of the categories that {classifier.name} has, '
                f'{", ".join(numbers)}; set categories to name the classes of others',
                images=images,
            )
        if classifier.name in subjects or classifier.name in {
            other.name for other, *_ in models
        }:
            raise UserError(
                f'{classifier.name} is there twice, as model or in the decisions: '
                'leave one of them out, or rename the checkpoint'
            )
        models.append((classifier, usable, numbers, str(source)))
    results, folder = {}, Path(out)
    check_writable(folder)
    for classifier, usable, numbers, text in models:
        made = _decisions(classifier, usable, numbers, batch_size)
        name = re.sub(r'[^\w.-]+', '_', classifier.name)
        write_decisions(folder / f'cue-conflict_{name}_session-1.csv', made)
        subjects[classifier.name] = made
        results[classifier.name] = dict(
            source=text,
            config=str(config),
            left_out=len(paths) - len(usable),
            among=list(numbers),
        )
        if len(usable) < PUBLISHED:
            print_log(
                f'{classifier.name}: {len(usable)} images; the published protocol has '
                f'{PUBLISHED} in 16 categories',
                logger='current',
            )
    rows = [
        {'name': name, **results.get(name, {}), **shape_bias(made)}
        for name, made in subjects.items()
    ]
    tables = list(map(_table, rows))
    draw_shape_bias(rows, folder / FILES[1])
    _write_csv(folder / FILES[2], rows)
    report = write_results(
        folder / FILES[0], tables, models=rows, notes=NOTES, precision='float32'
    )
    return report, as_text(tables)


def find_conflicts(folder: str | Path) -> list[Path]:
    """Find the images in the folder of each shape.

    Raises:
        MissingFileError: if the folder is missing.
        UserError: if it has no image, or an image has another name or place.
    """
    if not Path(folder).is_dir():
        raise MissingFileError('no such folder', images=str(folder))
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
    """Read subject -> decisions; people are one subject."""
    subjects: dict[str, list[Decision]] = {}
    for source in map(Path, sources):
        files = sorted(source.glob('*.csv')) if source.is_dir() else [source]
        if not files:
            raise UserError('no .csv file in the folder', decisions=str(source))
        for file in files:
            for decision in read_decisions(file):
                person = PERSON.fullmatch(decision.subject)
                name = PEOPLE if person else decision.subject
                subjects.setdefault(name, []).append(decision)
    return subjects


def _read_mapping(path: Path) -> dict[str, list]:
    if not path.is_file():
        raise MissingFileError('no such file', categories=str(path))
    try:
        mapping = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f'no JSON: {error}', categories=str(path)) from error
    if not isinstance(mapping, dict) or not all(
        isinstance(entry, list) for entry in mapping.values()
    ):
        raise UserError(
            'expected {"cat": ["tabby", 282], ...}, a list of class numbers or names '
            'for each category',
            categories=str(path),
        )
    return mapping


def _write_csv(path: Path, rows: Sequence[dict]) -> None:
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['model', 'category', *COUNTED])
        for row in rows:
            for name, scores in row['categories'].items():
                writer.writerow([row['name'], name, *(scores[n] for n in COUNTED)])
            writer.writerow([row['name'], 'all', *(row[n] for n in COUNTED)])


def _table(row: dict) -> Table:
    titles = ['no conflict' if name == 'no_conflict' else name for name in COUNTED]
    cells = [
        [name, *(f'{scores[n]:,}' for n in COUNTED[:-1]), _percent(scores[COUNTED[-1]])]
        for name, scores in [*row['categories'].items(), ('all', row)]
    ]
    title = (
        f'{row["name"]}: shape bias {_percent(row["shape_bias"])} % (95 %: '
        f'{" to ".join(map(_percent, row["interval"] or (None, None)))}), mean of '
        f'categories {_percent(row["mean_of_categories"])} %, {row["no_conflict"]} '
        f'images without conflict not counted, {row.get("left_out", 0)} left out'
    )
    return Table(['category', *titles[:-1], 'shape %'], cells, title=title)


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{100 * share:.1f}'
