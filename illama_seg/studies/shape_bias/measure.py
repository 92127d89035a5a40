"""Shape or texture: models and published decisions on cue-conflict images."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.logging import print_log

from illama_seg.apis.configs import load_config
from illama_seg.apis.images import find_images
from illama_seg.apis.user_errors import check_writable
from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.common import (
    check_at_least,
    file_name,
    write_csv,
    write_results,
)
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
from illama_seg.studies.tables import Section, Table, as_text

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
        FILES[1]: 'Share of decisions for the shape by category, and a line at the '
        'overall share of each model'
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
    ``cue-conflict_MODEL_session-1.csv``. See :mod:`illama_seg.studies` for the other
    parameters, the result and errors.

    Args:
        images: folder with ``SHAPE/SHAPE<n>-TEXTURE<n>.png``.
        decisions: CSV files in the published format, and folders of them; people
            (subject-01, ...) are counted together.
        categories: JSON, category -> list of numbers or names of its classes.
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
    models: dict[str, tuple[Classifier, list[Path], dict, str]] = {}
    for source in sources:  # all models are checked before the first one runs
        classifier = build_classifier(
            load_config(str(config), cfg_options), source, device
        )
        numbers = category_numbers(classifier.num_classes, classifier.classes, mapping)
        usable = [path for path in paths if set(conflict_of(path.name)) <= set(numbers)]
        if not usable:
            raise UserError(
                f'no image of the categories that {classifier.name} has, '
                f'{", ".join(numbers)}; set categories to name the classes of others',
                images=images,
            )
        if classifier.name in {**subjects, **models}:
            raise UserError(
                f'{classifier.name} is there twice, as model or in the decisions: '
                'leave one of them out, or rename the checkpoint'
            )
        models[classifier.name] = classifier, usable, numbers, str(source)
    results, folder = {}, Path(out)
    check_writable(folder)
    for name, (classifier, usable, numbers, text) in models.items():
        made = _decisions(classifier, usable, numbers, batch_size)
        write_decisions(folder / f'cue-conflict_{file_name(name)}_session-1.csv', made)
        subjects[name] = made
        results[name] = dict(
            source=text,
            config=str(config),
            left_out=len(paths) - len(usable),
            among=list(numbers),
        )
        if len(usable) < PUBLISHED:
            print_log(
                f'{name}: {len(usable)} images; the published protocol has {PUBLISHED} '
                'in 16 categories',
                logger='current',
            )
    rows = [
        {'name': name, **results.get(name, {}), **shape_bias(made)}
        for name, made in subjects.items()
    ]
    tables = list(map(_table, rows))
    draw_shape_bias(rows, folder / FILES[1])
    counts = (
        [row['name'], category, *(scores[name] for name in COUNTED)]
        for row in rows
        for category, scores in _with_total(row)
    )
    write_csv(folder / FILES[2], ['model', 'category', *COUNTED], counts)
    report = write_results(
        folder / FILES[0], tables, models=rows, notes=NOTES, precision='float32'
    )
    return report, as_text(tables)


def find_conflicts(folder: str | Path) -> list[Path]:
    """Find the images in each shape's folder; UserError at one of another shape."""
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
    infos = [dict(img_path=str(path)) for path in paths]
    chosen: list[str] = []
    for logits in classifier.batches(infos, batch_size):
        chosen += decide(logits.softmax(1), categories)
    return [
        Decision(classifier.name, category, path.name)
        for category, path in zip(chosen, paths, strict=True)
    ]


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


def _with_total(row: dict) -> list[tuple[str, dict]]:
    """Return the counts of each category and of all."""
    return [*row['categories'].items(), ('all', row)]


def _table(row: dict) -> Table:
    columns = {name.replace('_', ' '): f'{{{name}:,}}' for name in COUNTED[:-1]}
    rows = [
        dict(scores, category=name, percent=_percent(scores['shape_bias']))
        for name, scores in _with_total(row)
    ]
    title = (
        f'{row["name"]}: shape bias {_percent(row["shape_bias"])} % (95 %: '
        f'{" to ".join(map(_percent, row["interval"] or (None, None)))}), mean of '
        f'categories {_percent(row["mean_of_categories"])} %, {row["no_conflict"]} '
        f'images without conflict not counted, {row.get("left_out", 0)} left out'
    )
    columns = {'category': '{category}', **columns, 'shape %': '{percent}'}
    return Table.of(rows, columns, title)


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{100 * share:.1f}'
