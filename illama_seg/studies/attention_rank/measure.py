"""Rank of the attention maps of classifiers, layer by layer and head by head."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmengine.config import Config
from torch import nn

from illama_seg.apis.configs import load_config
from illama_seg.apis.images import find_images
from illama_seg.errors import UserError
from illama_seg.studies.attention_rank.draw import draw_attention_rank
from illama_seg.studies.attention_rank.rank import AttentionRank, watch_attention
from illama_seg.studies.common import (
    check_at_least,
    check_share,
    read_earlier,
    results_path,
    spread,
    write_results,
)
from illama_seg.studies.logits import load_images
from illama_seg.studies.subjects import build_classifier
from illama_seg.studies.tables import Section, Table

FILES = ('attention_rank.json', 'attention_rank.png')
NOTES = dict(
    softmax='weights of all tokens, before the mask',
    masked='weights after the mask, which the soft mask does not renormalise',
    index='number of singular values where the mean curve reaches the share',
    mean='mean of the indices of the single maps; std: their standard deviation',
)
SECTION = Section(
    title='Rank of the attention maps',
    files='attention_rank*.json',
    about='Number of singular values that make most of the sum of all.',
    command='python tools/analysis/attention_rank.py {config} {checkpoint}',
    kind='classification',
    images={
        FILES[1]: 'Cumulative singular values of attention maps, and the index of each '
        'layer'
    },
)


def measure_attention_rank(
    config: str | Path,
    sources: Sequence[str | Path],
    *,
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
    """Measure the attention maps of classifiers and write the files ``FILES``.

    See :mod:`illama_seg.studies` for the other parameters, the result and errors.

    Args:
        images: files and folders; by default the config's test data.
        num_images: number of images, spread evenly; the paper has 30.
        share: share of the sum of the singular values that defines the index.
        layers: numbers of the layers shown, from 1; by default four as in the paper.
    """
    layers = list(layers)
    check_at_least(1, num_images=num_images, batch_size=batch_size, layers=layers)
    check_share(share=share)
    cfg = load_config(config, cfg_options)
    infos = _infos(cfg, images, num_images)
    earlier = read_earlier(beside, FILES[0], partial(_check, share))
    folder = results_path(out, cfg, 'attention_rank')
    models: list[dict] = []
    for source in sources:
        classifier = build_classifier(cfg.copy(), source, device)
        rank = AttentionRank(share)
        with watch_attention(classifier.module or nn.Identity(), rank.update):
            for _ in classifier.batches(infos, batch_size):
                pass
        rows = rank.summary()
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
        # Written after each model, so that a failing one loses none.
        numbers = _write(folder, [*models, *earlier])
    shown = _shown(numbers['models'], layers)
    draw_attention_rank(numbers['models'], shown, folder / FILES[1])
    return numbers, str(_table(numbers['summary'], share, shown))


def _write(folder: Path, models: list[dict]) -> dict:
    summary = _summary(models)
    every = range(1, max(model['layers'] for model in models) + 1)
    return write_results(
        folder / FILES[0],
        [_table(summary, models[0]['share'], every)],
        indent=None,
        summary=summary,
        models=models,
        notes=NOTES,
        precision='float32',
    )


def _infos(cfg: Config, images: Sequence[str | Path], count: int) -> list[dict]:
    """Find at most ``count`` images, spread evenly, as a classifier loads them."""
    if images:
        paths = [path for path, _ in find_images(images)]
        return [dict(img_path=str(paths[n])) for n in spread(len(paths), count)]
    data = load_images(cfg, 'test')
    return [data.get_data_info(n) for n in spread(len(data), count)]


def _shown(models: Sequence[dict], layers: Sequence[int]) -> list[int]:
    deepest = max(model['layers'] for model in models)
    if not layers:  # 1, 4, 8, 12 of twelve
        return sorted({1, *(-(-deepest * part // 3) for part in (1, 2, 3))})
    if max(layers) > deepest:
        raise UserError(
            f'expected numbers from 1 to {deepest}; the values of all layers are in '
            f'{FILES[0]}',
            layers=layers,
        )
    return sorted(set(layers))


def _check(share: float, models: list[dict]) -> None:
    """Raise an error where an earlier model lacks what is drawn or printed."""
    for model in models:
        model['layers'], model['maps'][0]['curve']
        if model['share'] != share:
            raise UserError(f'its share is {model["share"]}, not {share}')
    _summary(models)


def _summary(models: Sequence[dict]) -> list[dict]:
    """Make a row for each model and kind: tokens, and each layer's indices by head."""
    rows: dict[tuple[str, str], dict] = {}
    for model in models:
        for maps in model['maps']:
            start = dict(model=model['name'], maps=maps['kind'], tokens=0, layers={})
            row = rows.setdefault((model['name'], maps['kind']), start)
            row['tokens'] = max(row['tokens'], maps['tokens'])
            row['layers'].setdefault(str(maps['layer']), []).append(maps['index'])
    return list(rows.values())


def _table(summary: Sequence[dict], share: float, layers: Sequence[int]) -> Table:
    rows = []
    for row in summary:
        indices = [row['layers'].get(str(layer), ['-']) for layer in layers]
        cells = (' '.join(map(str, heads)) for heads in indices)
        rows.append([row['model'], row['maps'], str(row['tokens']), *cells])
    note = (
        f'number of the N singular values whose sum is {share:g} of the sum of all, '
        f'for each head\nsoftmax: {NOTES["softmax"]}; masked: {NOTES["masked"]}'
    )
    titles = [f'layer {layer}' for layer in layers]
    return Table(['model', 'maps', 'N', *titles], rows, note=note)
