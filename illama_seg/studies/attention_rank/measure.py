"""Rank of the attention maps of classifiers, layer by layer and head by head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from prettytable import PrettyTable
from torch import nn
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.images import find_images
from illama_seg.apis.user_errors import check_writable, options_explained
from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.attention_rank.draw import draw_attention_rank
from illama_seg.studies.attention_rank.rank import AttentionRank, watch_attention
from illama_seg.studies.subjects import Classifier, build_classifier

FILES = ('attention_rank.json', 'attention_rank.png')
NOTES = dict(
    softmax='weights of all tokens, before the mask',
    masked='what the mask leaves of them, not renormalised by the soft mask',
    index='singular values that it takes to reach the share, of the mean curve',
    mean='of the indices of the single maps, and std',
)


def measure_attention_rank(
    config: str | Path,
    sources: Sequence[str | Path],
    images: Sequence[str | Path] = (),
    out: str | Path | None = None,
    beside: Sequence[str | Path] = (),
    num_images: int = 30,
    share: float = 0.8,
    layers: Sequence[int] = (),
    batch_size: int = 8,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Measure the maps of models on images, and write the files ``FILES``.

    Args:
        config: config of a classification, or its name.
        sources: its checkpoints, 'random', and timm's models, see
            :func:`illama_seg.studies.build_classifier`.
        images: files and folders; by default the config's test data.
        out: folder to write to; by default ``attention_rank`` in the config's work dir.
        beside: attention_rank.json of earlier calls, whose models are shown beside.
        num_images: how many of them, spread evenly; the paper has 30.
        share: of the sum of the singular values, where the index is read.
        layers: to show, from 1; by default four, spread as the paper's.
        batch_size: images at once.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.
        cfg_options: overrides of the config.

    Returns:
        What is in attention_rank.json, and a readable table.

    Raises:
        FileNotFoundError: if a file is missing.
        ConnectionError: if weights cannot be downloaded.
        ValueError: if an option is out of its range, or a model does not fit.
    """
    if any(layer < 1 for layer in layers):
        raise UserError(
            f'--layers {" ".join(map(str, layers))}: expected numbers from 1 on'
        )
    if num_images < 1 or batch_size < 1 or not 0 < share < 1:
        raise UserError(
            f'--num-images {num_images} --batch-size {batch_size} --share {share}: '
            'expected at least 1 twice, and a share between 0 and 1'
        )
    cfg = load_config(config, cfg_options)
    infos = _infos(cfg, images, num_images)
    earlier = [model for path in beside for model in _read(path, share)]
    folder = Path(out or Path(cfg.work_dir) / 'attention_rank')
    check_writable(folder)
    models: list[dict] = []
    for source in sources:
        classifier = build_classifier(cfg.copy(), source, device)
        rows = _measure(classifier, infos, share, batch_size)
        models.append(
            dict(
                name=classifier.name,
                source=str(source),
                config=str(config),
                images=len(infos),
                share=share,
                layers=max(row['layer'] for row in rows),
                maps=rows,
            )
        )
        # Each time: a model that fails does not cost those before it.
        numbers = _write(folder, [*models, *earlier])
    shown = _shown(numbers['models'], layers)
    draw_attention_rank(numbers['models'], shown, folder / 'attention_rank.png')
    return numbers, _table(numbers, shown)


def _write(folder: Path, models: list[dict]) -> dict:
    numbers = dict(
        summary=_summary(models),
        models=models,
        notes=NOTES,
        precision='float32',
        versions=dict(torch=torch.__version__, timm=timm.__version__),
    )
    # On one line: most of it are curves.
    (folder / 'attention_rank.json').write_text(json.dumps(numbers) + '\n')
    return numbers


def _infos(cfg: Config, images: Sequence[str | Path], count: int) -> list[dict]:
    """What a classifier loads, ``count`` or all, spread evenly."""
    if images:
        paths = [path for path, _ in find_images(images)]
        return [dict(img_path=str(paths[n])) for n in _spread(len(paths), count)]
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with options_explained(cfg):
        data = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=[]))
    return [data.get_data_info(n) for n in _spread(len(data), count)]


def _spread(length: int, count: int) -> list[int]:
    places = np.linspace(0, length - 1, min(count, length))
    return places.round().astype(int).tolist()


def _measure(
    classifier: Classifier, infos: list[dict], share: float, batch_size: int
) -> list[dict]:
    rank = AttentionRank(share)
    starts = range(0, len(infos), batch_size)
    with watch_attention(classifier.module or nn.Identity(), rank.update):
        for start in tqdm(starts, desc=classifier.name, unit='batch'):
            batch = infos[start : start + batch_size]
            classifier.logits([classifier.load(info) for info in batch])
    return rank.summary()


def _shown(models: Sequence[dict], layers: Sequence[int]) -> list[int]:
    deepest = max(model['layers'] for model in models)
    if not layers:  # 1, 4, 8, 12 of twelve
        return sorted({1, *(-(-deepest * part // 3) for part in (1, 2, 3))})
    if max(layers) > deepest:
        raise UserError(
            f'--layers {" ".join(map(str, layers))}: expected numbers from 1 to '
            f'{deepest}; the figures of all layers are in attention_rank.json'
        )
    return sorted(set(layers))


def _read(path: str | Path, share: float) -> list[dict]:
    try:
        models = json.loads(Path(path).read_text())['models']
        for model in models:
            model['name'], model['layers'], model['maps'][0]['curve']
            if model['share'] != share:
                raise UserError(f'its share is {model["share"]}, not {share}')
        _summary(models)  # what it lacks is met now, not after the measuring
        return models
    except FileNotFoundError as error:
        raise MissingFileError(f'--beside: no file {path}') from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f'--beside {path}: expected an attention_rank.json of this tool, of the '
            f'same --share ({type(error).__name__}: {error})'
        ) from error


def _summary(models: Sequence[dict]) -> list[dict]:
    """A row for each model and kind: tokens, and each layer's indices, by head."""
    rows: dict[tuple[str, str], dict] = {}
    for model in models:
        for found in model['maps']:
            start = dict(model=model['name'], maps=found['kind'], tokens=0, layers={})
            row = rows.setdefault((model['name'], found['kind']), start)
            row['tokens'] = max(row['tokens'], found['tokens'])
            row['layers'].setdefault(str(found['layer']), []).append(found['index'])
    return list(rows.values())


def _table(numbers: dict, layers: Sequence[int]) -> str:
    titles = [f'layer {layer}' for layer in layers]
    table = PrettyTable(['model', 'maps', 'N', *titles], align='r')
    table.align['model'] = table.align['maps'] = 'l'
    for row in numbers['summary']:
        found = [row['layers'].get(str(layer), ['-']) for layer in layers]
        cells = (' '.join(map(str, heads)) for heads in found)
        table.add_row([row['model'], row['maps'], row['tokens'], *cells])
    share = numbers['models'][0]['share']
    return (
        f'{table}\nsingular values of N that make {share:g} of their sum, a number for '
        f'each head\nsoftmax: {NOTES["softmax"]}; masked: {NOTES["masked"]}'
    )
