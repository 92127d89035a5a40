"""Segment image files: write overlays, label images and a summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS
from torch import nn
from tqdm import tqdm

from illama_seg.apis.images import read_image, write_image
from illama_seg.apis.models import annotation_ids, dataset_meta
from illama_seg.apis.prediction import check_windows, predict
from illama_seg.datasets.decoding import as_picture, loads_bgr
from illama_seg.datasets.values import narrow_warning
from illama_seg.errors import UserError
from illama_seg.visualization.overlays import add_legend, overlay

JPEG_SIDE = 65500  # pixels that OpenCV's encoder allows


def segment_files(
    model: nn.Module,
    images: Sequence[tuple[Path, Path]],
    *,
    out: str | Path,
    opacity: float = 0.5,
    full_size: bool = False,
    blend: str = 'mean',
    batch_size: int | None = None,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Segment images and write the results; a bad image does not stop the others.

    Writes ``out/overlay/NAME.jpg`` (painted, with the names of the classes; ``.png``
    where a side is too long for JPEG), ``out/labels/NAME.png`` (one channel, the ids of
    the annotations) and ``out/summary.json``.

    Args:
        model: from :func:`illama_seg.apis.load_segmentor`.
        images: path and name of each, from :func:`illama_seg.apis.find_images`.
        out: folder to write to.
        opacity: opacity of the paint, in [0, 1].
        full_size, blend, batch_size: see :func:`illama_seg.apis.predict`.

    Returns:
        Share of each class in each segmented image, and a message for each other
        image.

    Raises:
        UserError: if an argument does not fit, or the folder cannot be written.
    """
    if not 0 <= opacity <= 1:
        raise UserError('expected a number in [0, 1]', opacity=opacity)
    check_windows(model, full_size, blend, batch_size)
    out, meta = Path(out), dataset_meta(model)
    loader = cast(Any, model).cfg.test_pipeline[0]
    is_bgr = loads_bgr(TRANSFORMS.build(loader))
    classes, palette, ids = meta['classes'], meta['palette'], annotation_ids(meta)
    summary: dict[str, dict[str, float]] = {}
    failures = []
    for path, name in tqdm(images, unit='image'):
        try:
            image = read_image(path, loader)
            labels = predict(model, image, full_size, blend, batch_size)
        except (UserError, OSError) as error:
            named = str(path) in str(error)
            failures.append(str(error) if named else f'{path}: {error}')
            continue
        if text := narrow_warning(path, image):
            print_log(text, logger='current', level=30)
        write_image(out / 'labels' / name.with_suffix('.png'), ids[labels])
        image = as_picture(image, is_bgr)
        counts = np.zeros(len(classes), np.int64)
        for top in range(0, len(image), 512):  # keeps one large image in memory
            rows = slice(top, top + 512)
            counts += np.bincount(labels[rows].ravel(), minlength=len(classes))
            image[rows] = overlay(image[rows], labels[rows], palette, opacity)
        image = add_legend(image, labels, classes, palette)
        suffix = '.jpg' if max(image.shape) <= JPEG_SIDE else '.png'
        write_image(out / 'overlay' / name.with_suffix(suffix), image)
        shares = counts / labels.size
        summary[str(name)] = {
            classes[number]: round(float(shares[number]), 4)
            for number in np.argsort(-shares)
            if shares[number] > 0
        }
    if summary:
        (out / 'summary.json').write_text(json.dumps(summary, indent=1))
    return summary, failures
