"""The sidecar of an exported file: all that is needed to use it, as JSON beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from illama_seg.errors import MissingFileError, UserError
from illama_seg.files import digest_of, write_whole

VERSION = 1  # of the format
# Suffix of an exported file -> library that runs it.
LIBRARIES = {'.onnx': 'onnxruntime', '.xml': 'openvino'}
EXTRA = 'pip install onnx onnxscript onnxruntime openvino nncf (the extra deploy)'


@dataclass
class Sidecar:
    """Description of an exported file.

    Attributes:
        task: 'segmentation' or 'classification'.
        channels: of an image.
        size: (height, width) in pixels that the file takes, or None for any.
        mean, std: of each channel, subtracted and divided after ``to_rgb``.
        to_rgb: reverse the order of the channels of an image that is BGR.
        resize: rule of the test pipeline: for a segmentation ``scale`` (width, height)
            and ``keep_ratio``, or None; for a classification ``size``, (height, width)
            or a number for the shorter edge, ``crop``, (height, width) of the middle
            that is cut out, and ``interpolation``.
        windows: ``crop`` and ``stride``, (height, width) each, or None for the whole
            image at once.
        align_corners: how the logits are enlarged to the window.
        classes: names.
        palette: RGB colour of each class.
        ids: number of each class in label images.
        threshold: of the only channel of a foreground's logits, or None.
        precision: 'float32', 'float16' or 'int8'.
        checkpoint: SHA-256 of the checkpoint.
        versions: distribution -> version that exported.
        digests: file name -> SHA-256 of the exported files.
        probe: ``size`` of a test image and ``logits`` that an 8-bit file gave for it
            where it was exported; None for other files.
        version: of the format.
    """

    task: str
    channels: int
    size: list[int] | None
    mean: list[float]
    std: list[float]
    to_rgb: bool
    resize: dict[str, Any] | None
    windows: dict[str, list[int]] | None
    align_corners: bool
    classes: list[str]
    palette: list[list[int]]
    ids: list[int]
    threshold: float | None
    precision: str
    checkpoint: str
    versions: dict[str, str]
    digests: dict[str, str]
    probe: dict[str, Any] | None = None
    version: int = VERSION

    def prepared(self, image: np.ndarray) -> np.ndarray:
        """Resize and cut an image by the rule, (H, W, C) uint8 -> (h, w, C) uint8."""
        if self.resize is None:
            return image
        change = _rescaled if self.task == 'segmentation' else _cropped
        return change(image, **self.resize)

    def normalised(self, image: np.ndarray) -> np.ndarray:
        """Normalise an image, (H, W, C) BGR -> (1, C, H, W) float32."""
        image = image[..., ::-1] if self.to_rgb else image
        mean, std = (np.asarray(x, np.float32) for x in (self.mean, self.std))
        values = (image.astype(np.float32) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def is_exported(path: str | Path) -> bool:
    """Return whether a path names an exported file, by its suffix."""
    return Path(path).suffix in LIBRARIES


def sidecar_path(path: str | Path) -> Path:
    """Return the path of the sidecar of an exported file."""
    path = Path(path)
    return path.with_name(f'{path.name}.json')


def weights_paths(path: Path) -> list[Path]:
    """List the files of an exported model: weights may lie beside the graph.

    OpenVINO's do; ONNX's do where they are larger than a file of it may be.
    """
    if path.suffix == '.xml':
        return [path, path.with_suffix('.bin')]
    weights = path.with_name(f'{path.name}.data')
    return [path, weights] if weights.is_file() else [path]


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of an exported file, with the digests of its files."""
    sidecar.digests = {
        file.name: digest_of(file, 'sha256') for file in weights_paths(path)
    }
    write_whole(sidecar_path(path), json.dumps(asdict(sidecar), indent=1))


def read_sidecar(path: str | Path) -> Sidecar:
    """Read the sidecar of an exported file, and compare the digests.

    Raises:
        MissingFileError: if the file, its weights or its sidecar is missing.
        UserError: if the file is of another suffix, or the sidecar is damaged, of
            another format or of another file.
    """
    path, beside = Path(path), sidecar_path(path)
    if not is_exported(path):
        raise UserError(f'{path}: expected an exported file, .onnx or .xml')
    for file in (*weights_paths(path), beside):
        if not file.is_file():
            raise MissingFileError(
                f'no file {file}: an exported model is {path.name} with '
                f'{beside.name}{" and its .bin" if path.suffix == ".xml" else ""}, in '
                'one folder, as tools/export.py writes them'
            )
    try:
        values = json.loads(beside.read_text(encoding='utf-8'))
        if not isinstance(values, dict):
            raise ValueError(f'expected an object, found {type(values).__name__}')
        missing = [f.name for f in fields(Sidecar) if f.name not in values]
        version = values['version']
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f'{beside} is no sidecar: {error}. Export again') from error
    if missing or version != VERSION:
        raise UserError(
            f'{beside} is no sidecar of version {VERSION}: found version '
            f'{version}, without {", ".join(missing) or "nothing"}: '
            'export again'
        )
    sidecar = Sidecar(**{f.name: values[f.name] for f in fields(Sidecar)})
    for name in ('mean', 'std'):
        found = getattr(sidecar, name)
        if not isinstance(found, list) or len(found) != sidecar.channels:
            raise UserError(
                f'{beside}: {name} is {found}, expected a list of {sidecar.channels} '
                'numbers: export again'
            )
    if not isinstance(sidecar.digests, dict):
        raise UserError(
            f'{beside}: digests is {sidecar.digests}, expected an object: export again'
        )
    for file in weights_paths(path):
        if sidecar.digests.get(file.name) != (found := digest_of(file, 'sha256')):
            raise UserError(
                f'{beside} is not of {file}: it has SHA-256 {found[:12]}, expected '
                f'{sidecar.digests.get(file.name, "none of this name")[:17]}: export '
                'again, or take the sidecar and the name that it was written with'
            )
    return sidecar


def _rescaled(image: np.ndarray, scale: list[int], keep_ratio: bool) -> np.ndarray:
    """Resize as mmcv's ``Resize`` does, ``scale`` is (width, height)."""
    height, width = image.shape[:2]
    size = tuple(scale)
    if keep_ratio:
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        size = int(width * factor + 0.5), int(height * factor + 0.5)
    resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return resized if resized.ndim == 3 else resized[..., None]


def _cropped(
    image: np.ndarray, size: list[int] | int, crop: list[int], interpolation: str
) -> np.ndarray:
    """Resize, by a number the shorter edge, and cut out the middle, as timm does."""
    from PIL import Image  # which averages where it makes an image smaller

    height, width = image.shape[:2]
    if isinstance(size, int):
        rest = int(size * max(height, width) / min(height, width))
        size = [size, rest] if width > height else [rest, size]
    how = Image.Resampling[interpolation.upper()]
    resized = np.asarray(Image.fromarray(image).resize((size[1], size[0]), how))
    top, left = (
        round((have - want) / 2)
        for have, want in zip(resized.shape[:2], crop, strict=True)
    )
    return resized[top : top + crop[0], left : left + crop[1]]
