"""Label images of a test: written, and read again where the test was stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.structures import PixelData

from illama_seg.apis.images import write_image
from illama_seg.errors import UserError
from illama_seg.evaluation import class_numbers
from illama_seg.files import digest_of, write_whole


def note_path(out: str | Path) -> Path:
    """Return the path of the note beside a folder of label images."""
    return Path(f'{Path(out)}.made_with.json')


class LabelWriter(Hook):
    """Write predictions as label PNGs named like the images, in annotation ids.

    Args:
        out: folder for the files.
        img_dir: folder of the images, whose subfolders are kept; or None.
        ids: id of each class in the annotations, (num_classes,) uint8.
    """

    def __init__(self, out: str | Path, img_dir: str | None, ids: np.ndarray) -> None:
        self.out, self.img_dir, self.ids = Path(out), img_dir, ids
        self.kept: set[str] = set()

    def path_of(self, image: str) -> Path:
        """Return the path of the label PNG of an image."""
        path = Path(image)
        name = Path(path.name)
        if self.img_dir and path.is_relative_to(self.img_dir):
            name = path.relative_to(self.img_dir)
        return self.out / name.with_suffix('.png')

    def read(self, image: str, size: Sequence[int]) -> np.ndarray | None:
        """Read the class numbers of an image, or return None if there are none.

        Raises:
            UserError: if the file is damaged, or no label image of this data.
        """
        path, note = self.path_of(image), note_path(self.out)
        # An older one is of a test before.
        if not path.is_file() or path.stat().st_mtime < note.stat().st_mtime:
            return None
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        numbers = np.full(256, 255, np.uint8)
        numbers[self.ids] = np.arange(len(self.ids))
        fits = found is not None and found.shape == tuple(size)
        if found is None or not fits or np.setdiff1d(found, self.ids).size:
            height, width = size
            raise UserError(
                f'{path} is no label image of {width}x{height} pixels of these '
                f'{len(self.ids)} classes: delete it'
            )
        return numbers[found]

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Write the labels of a batch."""
        for sample in outputs or ():
            if sample.img_path in self.kept:
                continue
            labels = class_numbers(sample.pred_sem_seg.data.squeeze(0).cpu().numpy())
            write_image(self.path_of(sample.img_path), self.ids[labels])


def begin_labels(
    cfg: Config, out: str | Path, *, file: Path, tta: bool, amp: bool, resume: bool
) -> None:
    """Note beside the folder of label PNGs what they are made with, or compare.

    Raises:
        UserError: if the test that ``out`` has the labels of was another one.
    """
    data = cfg.tta_pipeline if tta else cfg.test_dataloader.dataset
    settings = repr((cfg.model.to_dict(), Config(dict(data=data)).to_dict()))
    made_with: dict[str, Any] = dict(
        checkpoint=digest_of(file, 'sha256'),
        settings=sha256(settings.encode()).hexdigest(),
        tta=tta,
        amp=amp,
    )
    note = note_path(out)
    if resume and note.is_file():
        try:
            found = json.loads(note.read_text(encoding='utf-8'))
        except ValueError:
            found = {}
        if differing := [key for key in made_with if found.get(key) != made_with[key]]:
            raise UserError(
                f'{note}: its label images were made with another '
                f'{" and ".join(differing)}: name another folder, or leave resume out',
                out=str(out),
            )
    elif resume and any(Path(out).rglob('*.png')):
        raise UserError(
            f'has PNGs, but no {note.name} beside it tells what they were made '
            'with: name another folder, or leave resume out',
            out=str(out),
        )
    elif is_main_process():
        write_whole(note, json.dumps(made_with, indent=1))


def keep_labels(runner: Any, writer: LabelWriter) -> None:
    """Read the predictions of a test from the label PNGs that are there.

    A batch of which one is missing is predicted. Scores are computed as always.
    """
    model = runner.model
    inner = model.module if is_model_wrapper(model) else model
    predict = model.test_step

    def test_step(data: Any) -> Any:
        samples = data['data_samples']
        views = samples[0]
        samples = views if isinstance(views, list | tuple) else samples
        found = [writer.read(sample.img_path, sample.ori_shape) for sample in samples]
        if any(labels is None for labels in found):
            return predict(data)
        samples = inner.data_preprocessor.cast_data(list(samples))
        for sample, labels in zip(samples, found, strict=True):
            writer.kept.add(sample.img_path)
            tensor = torch.from_numpy(labels)[None].to(inner.data_preprocessor.device)
            sample.set_field(PixelData(data=tensor), 'pred_sem_seg')
        return samples

    model.test_step = test_step
