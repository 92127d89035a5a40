"""Ask questions of images: each image is read once, whatever is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from torch import nn
from tqdm import tqdm

from illama_seg.apis.images import read_image, write_image
from illama_seg.apis.prediction import packed_inputs
from illama_seg.apis.user_errors import check_writable
from illama_seg.datasets.decoding import as_picture, loads_bgr
from illama_seg.errors import UserError
from illama_seg.files import write_whole
from illama_seg.images import JPEG_SIDE
from illama_seg.questions import Question, ask
from illama_seg.visualization.overlays import add_legend, overlay


def ask_files(
    model: nn.Module,
    images: Sequence[tuple[Path, Path]],
    questions: Sequence[str | Path],
    out: str | Path,
) -> dict[str, Any]:
    """Read each image once, and write the answers to all questions.

    Writes ``out/QUESTION/NAME_labels.png`` (class numbers), ``out/QUESTION/
    NAME_overlay.jpg`` (painted, with the names of the classes) and ``out/asked.json``.

    Args:
        model: from :func:`illama_seg.apis.load_segmentor`, with an ``ILLaMA``.
        images: path and name of each, from :func:`illama_seg.apis.find_images`.
        questions: files of ``tools/checkpoints/question.py``.
        out: folder.

    Returns:
        ``reading_seconds`` and ``asking_seconds`` (all questions together), the medians
        of an image; ``questions``: their classes; ``images``: the share of each class
        in the answers, by image and question.

    Raises:
        MissingFileError: if a question is missing.
        UserError: if a question is of another backbone or damaged, two have one name,
            or an image cannot be read.
    """
    segmentor, out = cast(Any, model), Path(out)
    names = [Path(path).stem for path in questions]
    if len(set(names)) < len(names):
        raise UserError('expected files of different names', questions=names)
    check_writable(out)
    loader = segmentor.cfg.test_pipeline[0]
    is_bgr = loads_bgr(TRANSFORMS.build(loader))
    device = next(model.parameters()).device
    loaded = [Question.load(path).to(device) for path in questions]
    shares: dict[str, Any] = {}
    reading_seconds, asking_seconds = [], []
    for path, name in tqdm(images, unit='file', disable=len(images) == 1):
        image = read_image(path, loader)
        pixels = packed_inputs(segmentor, image)['inputs']
        with torch.inference_mode():
            prepared = segmentor.data_preprocessor(dict(inputs=[pixels]), False)
            if not shares:  # the first call takes longer
                ask(segmentor.backbone.read(prepared['inputs']), loaded)
            start = _now(device)
            reading = segmentor.backbone.read(prepared['inputs'])
            read = _now(device)
            answers = ask(reading, loaded)
            asked = _now(device)
            labels = [
                question.labels(logits, image.shape[:2], pixels.shape[1:])[0]
                .byte()
                .cpu()
                .numpy()
                for question, logits in zip(loaded, answers, strict=True)
            ]
        reading_seconds.append(read - start)
        asking_seconds.append(asked - read)
        picture = as_picture(image, is_bgr)
        shares[str(name)] = {}
        for stem, question, found in zip(names, loaded, labels, strict=True):
            _write(out / stem / name, question, picture, found)
            counts = np.bincount(found.ravel(), minlength=len(question.classes))
            parts = (counts / found.size).round(4).tolist()
            shares[str(name)][stem] = dict(zip(question.classes, parts, strict=True))
    numbers = dict(
        reading_seconds=float(np.median(reading_seconds)),
        asking_seconds=float(np.median(asking_seconds)),
        questions={n: list(q.classes) for n, q in zip(names, loaded, strict=True)},
        images=shares,
    )
    write_whole(out / 'asked.json', json.dumps(numbers, indent=1))
    return numbers


def _now(device: torch.device) -> float:
    """Return the time once the device has done its work."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _write(path: Path, question: Question, picture: np.ndarray, found: Any) -> None:
    write_image(path.with_name(f'{path.stem}_labels.png'), found)
    painted = overlay(picture, found, question.palette, 0.5)
    painted = add_legend(painted, found, question.classes, question.palette)
    suffix = '.jpg' if max(painted.shape) <= JPEG_SIDE else '.png'
    write_image(path.with_name(f'{path.stem}_overlay{suffix}'), painted)
