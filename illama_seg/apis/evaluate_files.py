"""Scores of predictions in files, without a model."""

from __future__ import annotations

from pathlib import Path

from mmengine.registry import DATASETS, init_default_scope
from mmseg.datasets import BaseSegDataset

from illama_seg.apis.configs import load_config
from illama_seg.apis.scores import scores_table, write_scores
from illama_seg.apis.user_errors import check_writable, options_explained
from illama_seg.datasets.lists import has_list, listed_names
from illama_seg.errors import UserError
from illama_seg.evaluation import LabelIds, count_label_files


def evaluate_predictions(
    predictions: str | Path,
    annotations: str | Path,
    *,
    out: str | Path,
    config: str | Path | None = None,
    num_classes: int | None = None,
    from_zero: bool = False,
    ignore_index: int | None = None,
    predictions_from_zero: bool = False,
    partial: bool = False,
    img_suffix: str | None = None,
    seg_map_suffix: str | None = None,
    workers: int | None = None,
) -> tuple[dict, str]:
    """Score predicted label PNGs against annotations without a model.

    Without ``config`` and ``num_classes`` the ids are ADE20K's: 0 not annotated,
    1..150.

    Args:
        predictions: folder of PNGs, one channel, at the size of the images.
        annotations: folder of PNGs of the same images, in the same subfolders.
        out: folder for the files of :func:`write_scores`.
        config: config whose test data set has the classes and ids, the endings of the
            names, and the list of images where it has an ``ann_file``.
        num_classes: classes of a data set without config; ids are 1..num_classes, 0 is
            not annotated.
        from_zero: ids of the annotations count from 0, all are annotated.
        ignore_index: a further id that is not counted, beside 255.
        predictions_from_zero: predictions are class numbers from 0, whatever the
            annotations' ids.
        partial: leave out the images that only one of the folders has.
        img_suffix: ending of the images' names, such as '_leftImg8bit.png'; by default
            the config's. Predictions are named like images.
        seg_map_suffix: ending of the annotations' names; by default the config's.
        workers: processes; by default one for each core.

    Returns:
        The scores, as in scores.json, and a printable table.

    Raises:
        MissingFileError: a folder or a file's counterpart is missing.
        UserError: arguments that exclude each other, or files that cannot be compared.
    """
    if config is not None and (num_classes is not None or from_zero):
        raise UserError(
            'the config names the classes and how their ids count: leave out '
            'num_classes and from_zero',
            config=str(config),
        )
    for name, value, low, high in (
        ('num_classes', num_classes, 1, 255),
        ('ignore_index', ignore_index, 0, 255),
        ('workers', workers, 1, 1024),
    ):
        if value is not None and not low <= value <= high:
            raise UserError(f'expected {low}..{high}', **{name: value})
    check_writable(out)
    img_suffixes, label_suffix, images = ('.png',), '.png', None
    if num_classes is None:
        dataset = _test_data(config)
        meta = dataset.metainfo
        if config is not None:
            img_suffixes, label_suffix = dataset.img_suffix, dataset.seg_map_suffix
            images = listed_names(dataset) if has_list(dataset) else None
    else:
        names = tuple(f'class {number}' for number in range(num_classes))
        meta = dict(classes=names, reduce_zero_label=not from_zero)
    ids = LabelIds.of(
        meta['classes'],
        bool(meta.get('reduce_zero_label')) and not from_zero,
        meta.get('label_map'),
        ignore_index,
        predictions_from_zero,
    )
    matrix, count = count_label_files(
        predictions,
        annotations,
        ids,
        partial,
        workers,
        img_suffix=img_suffix or img_suffixes,
        seg_map_suffix=seg_map_suffix or label_suffix,
        names=images,
    )
    result = write_scores(matrix, count, out)
    return result, scores_table(result)


def _test_data(config: str | Path | None) -> BaseSegDataset:
    """Build a config's test data set, or ADE20K's; lists no data."""
    settings: dict = dict(type='CheckedADE20KDataset')
    init_default_scope('mmseg')
    if config is not None:
        cfg = load_config(config)
        if 'test_dataloader' not in cfg:
            raise UserError(f'{config} has no test_dataloader to take classes from')
        settings = cfg.test_dataloader.dataset
    with options_explained(config or 'ADE20K'):
        dataset = DATASETS.build(dict(settings, pipeline=[], lazy_init=True))
    if not isinstance(dataset, BaseSegDataset):
        raise UserError(
            f'{type(dataset).__name__} is no data set of a segmentation: name the '
            'config that the predictions were made with',
            config=str(config),
        )
    return dataset
