"""Shape or texture: decisions on images whose cues are in conflict.

The protocol of Geirhos et al., arXiv 1811.12231: an image has the shape of one category
and the texture of another. A decision for either counts, the shape bias is the share of
shape among them; images where both are the same are not counted.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.stats import binomtest
from timm.data import ImageNetInfo
from torch import Tensor

from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.common import write_csv

COLUMNS = (
    'subj', 'session', 'trial', 'rt', 'object_response', 'category', 'condition',
    'imagename',
)  # fmt: skip
# Numbers of ImageNet-1K's classes below each category in WordNet, as in the protocol.
IMAGENET_CATEGORIES: dict[str, tuple[int, ...]] = {
    'airplane': (404,),
    'bear': tuple(range(294, 298)),
    'bicycle': (444, 671),
    'bird': tuple(
        number
        for first, last in ((8, 24), (80, 100), (127, 145))
        for number in range(first, last + 1)
        if number not in (9, 17, 21, 84, 85, 86, 97, 134)
    ),
    'boat': (472, 554, 625, 814, 914),
    'bottle': (440, 720, 737, 898, 899, 901, 907),
    'car': (436, 511, 817),
    'cat': tuple(range(281, 287)),
    'chair': (423, 559, 765, 857),
    'clock': (409, 530, 892),
    'dog': tuple(
        number
        for number in range(152, 269)
        if number not in (192, 204, 227, 242, 251, 258, 260, 264)
    ),
    'elephant': (385, 386),
    'keyboard': (508, 878),
    'knife': (499,),
    'oven': (766,),
    'truck': (555, 569, 656, 675, 717, 734, 864, 867),
}
# Names that other data sets have for these categories.
SYNONYMS = {'automobile': 'car', 'ship': 'boat', 'aeroplane': 'airplane'}

_NAME = re.compile(r'([A-Za-z]+)\d+-([A-Za-z]+)\d+\.\w+$')
_WORDNET_ID = re.compile(r'n\d{8}')


@dataclass(frozen=True)
class Decision:
    """Category that a model or person chose for an image.

    Attributes:
        subject: model or person.
        response: category, or 'na' for none.
        image: file name, ``SHAPE<n>-TEXTURE<n>.png`` after any prefix.
    """

    subject: str
    response: str
    image: str

    @property
    def shape(self) -> str:
        """Return the category of the image's shape."""
        return conflict_of(self.image)[0]

    @property
    def texture(self) -> str:
        """Return the category of the image's texture."""
        return conflict_of(self.image)[1]


def conflict_of(name: str) -> tuple[str, str]:
    """Return shape and texture, by the name of a file; may raise a UserError."""
    match = _NAME.search(name)
    if match is None:
        raise UserError(
            f'{name}: expected a file named SHAPE<n>-TEXTURE<n>.png, such as '
            'cat7-elephant1.png'
        )
    return match[1], match[2]


def category_numbers(
    num_classes: int,
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, Sequence[int | str]] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Map each category to the class numbers that belong to it.

    Args:
        num_classes: outputs of the model.
        classes: WordNet ids or names of the classes. Without any, 1000 classes are
            ImageNet's in the usual order, by WordNet id.
        mapping: category -> numbers or names of its classes, instead of the protocol's
            categories.

    Returns:
        Category -> class numbers; categories without a class are left out. Fewer than
        two, or a class in the mapping that the model lacks, are a UserError.
    """
    names = [str(name).lower() for name in classes or ()]
    if mapping is not None:
        numbers_of = {
            category: tuple(_number(entry, names, num_classes) for entry in entries)
            for category, entries in mapping.items()
        }
    elif names and all(map(_WORDNET_ID.fullmatch, names)):
        info, place = ImageNetInfo(), {name: n for n, name in enumerate(names)}
        numbers_of = {
            category: tuple(
                place[wordnet_id]
                for wordnet_id in map(info.index_to_label_name, numbers)
                if wordnet_id in place
            )
            for category, numbers in IMAGENET_CATEGORIES.items()
        }
    elif num_classes == 1000:
        numbers_of = IMAGENET_CATEGORIES
    else:
        words = [SYNONYMS.get(name, name) for name in names]
        numbers_of = {
            category: tuple(n for n, word in enumerate(words) if word == category)
            for category in IMAGENET_CATEGORIES
        }
    known = {category: numbers for category, numbers in numbers_of.items() if numbers}
    if len(known) < 2:
        shown = ', '.join(names[:8]) or 'without names'
        raise UserError(
            f'{num_classes} classes ({shown}): {len(known)} of the categories '
            f'{", ".join(mapping or IMAGENET_CATEGORIES)} are among them, expected 2 '
            'or more. Set categories to a JSON file, {"cat": ["tabby", 282], ...}'
        )
    return known


def decide(probabilities: Tensor, categories: Mapping[str, Sequence[int]]) -> list[str]:
    """Choose the categories with the highest mean probability over their classes.

    Probabilities (N, num_classes) give N categories.
    """
    columns = [probabilities[:, list(rows)].mean(1) for rows in categories.values()]
    names = list(categories)
    return [names[best] for best in torch.stack(columns, 1).argmax(1).tolist()]


def shape_bias(decisions: Iterable[Decision]) -> dict:
    """Count the decisions of one subject, or of several together.

    Returns:
        Numbers of ``images``, of images with ``no_conflict`` (shape and texture have
        the same category; not counted further) and of decisions for ``shape``,
        ``texture`` and any ``other`` category; ``shape_bias`` in [0, 1] and its 95 %
        Wilson ``interval`` (None without a decision for either); ``categories`` with
        the same for each category of shape, and their ``mean_of_categories``.
    """
    counts: dict[str, Counter] = {}
    for decision in decisions:
        shape, texture = decision.shape, decision.texture
        if shape == texture:
            kind = 'no_conflict'
        elif decision.response == shape:
            kind = 'shape'
        else:
            kind = 'texture' if decision.response == texture else 'other'
        counts.setdefault(shape, Counter())[kind] += 1
    categories = {name: _shares(counts[name]) for name in sorted(counts)}
    every = (row['shape_bias'] for row in categories.values())
    shares = [share for share in every if share is not None]
    return dict(
        **_shares(sum(counts.values(), Counter())),
        mean_of_categories=sum(shares) / len(shares) if shares else None,
        categories=categories,
    )


def read_decisions(path: str | Path) -> list[Decision]:
    """Read decisions in the format of the published raw data: CSV with ``COLUMNS``.

    Raises a UserError that names the line of a wrong row.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f'no file of decisions {path}')
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path} is no CSV file: {error}') from error
    lacking = [name for name in COLUMNS if rows and name not in rows[0]]
    if not rows or lacking:
        raise UserError(
            f'{path}: {"no row" if not rows else f"no column {lacking[0]}"}; expected '
            f'the columns {",".join(COLUMNS)}, and a row for each decision'
        )
    decisions: dict[tuple, Decision] = {}
    for line, row in enumerate(rows, 2):
        key = (row['session'], row['trial'], row['subj'])
        try:
            decision = _decision(row)
            if key in decisions:
                raise UserError(
                    'session {}, trial {} of {} is there twice'.format(*key)
                )
        except UserError as error:
            raise UserError(f'{path}, line {line}: {error}') from error
        decisions[key] = decision
    return list(decisions.values())


def _decision(row: dict[str, str]) -> Decision:
    if any(row[name] is None for name in COLUMNS):
        raise UserError(
            f'expected {len(COLUMNS)} columns, the row is shorter: the file is '
            'truncated'
        )
    decision = Decision(row['subj'], row['object_response'], row['imagename'])
    if decision.shape != row['category']:
        raise UserError(
            f'category {row["category"]!r}, but the shape of {decision.image} is '
            f'{decision.shape!r}'
        )
    return decision


def write_decisions(path: str | Path, decisions: Iterable[Decision]) -> None:
    """Write decisions for :func:`read_decisions`; reaction times of models are NaN."""
    rows = (
        [made.subject, 1, trial, 'NaN', made.response, made.shape, 'NaN', made.image]
        for trial, made in enumerate(decisions, 1)
    )
    write_csv(Path(path), COLUMNS, rows)


def _number(entry: int | str, names: list[str], num_classes: int) -> int:
    if isinstance(entry, str) and entry.lower() in names:
        return names.index(entry.lower())
    if isinstance(entry, int) and 0 <= entry < num_classes:
        return entry
    raise UserError(
        f'categories: no class {entry!r}; expected a number from 0 to '
        f'{num_classes - 1}' + (f', or one of {", ".join(names[:20])}' if names else '')
    )


def _shares(counts: Counter) -> dict:
    shape, texture = counts['shape'], counts['texture']
    interval = None
    if shape + texture:
        range_of_share = binomtest(shape, shape + texture).proportion_ci(0.95, 'wilson')
        interval = [float(range_of_share.low), float(range_of_share.high)]
    return dict(
        images=sum(counts.values()),
        no_conflict=counts['no_conflict'],
        shape=shape,
        texture=texture,
        other=counts['other'],
        shape_bias=shape / (shape + texture) if shape + texture else None,
        interval=interval,
    )
