"""Run an exported file: NumPy, OpenCV and the runtime, without torch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from illama_seg.deploy.sidecar import LIBRARIES, Sidecar, read_sidecar
from illama_seg.errors import UserError
from illama_seg.windows import BLENDS, Axis, Places, average

THREADS = 'OMP_NUM_THREADS'  # decides here as it does for torch
# Logits that an 8-bit file is tested by when it is opened. Rounding differs between
# processors by a few percent, sums that saturate by 15 and more.
PROBED, MAX_PROBE_ERROR = 256, 0.1


class Session:
    """An exported file that is open in its runtime.

    Args:
        run: function from images to all outputs.
    """

    def __init__(self, run: Callable[[np.ndarray], list[np.ndarray]]) -> None:
        self.all = run

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run normalised images (B, C, H, W) float32 -> logits, float32."""
        return self.all(images)[-1].astype(np.float32, copy=False)


def open_session(path: str | Path, precision: str = 'float32') -> Session:
    """Open an exported file in its runtime, on the CPU.

    Args:
        path: file.
        precision: 'float32' computes in float32; any other leaves the choice to the
            runtime.

    Raises:
        UserError: if the runtime is not installed, or cannot read the file.
    """
    path = Path(path)
    name = LIBRARIES[path.suffix]
    try:
        library = importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f'{path} needs {name}: pip install {name}, or the extra deploy'
        ) from error
    text = os.environ.get(THREADS, '')
    threads = int(text) if text.isdigit() else 0
    opened = _onnx_session if path.suffix == '.onnx' else _openvino_session
    try:
        return Session(opened(library, path, threads, precision))
    except Exception as error:  # the runtimes' errors have no base of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f'{path} cannot be read by {name}: {reason}') from error


def _onnx_session(library: Any, path: Path, threads: int, precision: str) -> Any:
    options = library.SessionOptions()
    options.log_severity_level = 4  # the error is raised too
    options.intra_op_num_threads = threads
    session = library.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider']
    )
    (image,) = session.get_inputs()
    return lambda images: session.run(None, {image.name: images})


def _openvino_session(library: Any, path: Path, threads: int, precision: str) -> Any:
    core = library.Core()
    options: dict[str, Any] = {'INFERENCE_NUM_THREADS': threads} if threads else {}
    exact = options | {'INFERENCE_PRECISION_HINT': 'f32'}
    chosen = exact if precision == 'float32' else options

    def compiled() -> Any:
        try:
            return core.compile_model(str(path), 'CPU', chosen)
        except RuntimeError:  # an operator that it has not in half precision
            return core.compile_model(str(path), 'CPU', exact)

    model = compiled()
    requests: dict[tuple[int, ...], Any] = {}

    def run(images: np.ndarray) -> list[np.ndarray]:
        nonlocal model
        # A request whose outputs become empty would return those before.
        if images.shape not in requests:
            requests.clear()
            requests[images.shape] = model.create_infer_request()
        found = requests[images.shape].infer([np.ascontiguousarray(images)])
        outputs = [np.array(found[output]) for output in model.outputs]
        if not all(output.size for output in outputs):
            # With AVX2 alone its outputs would be empty for any image from now on.
            requests.clear()
            model = compiled()
        return outputs

    return run


class ExportedModel:
    """An exported segmentor or classifier with its sidecar.

    Args:
        path: file that ``tools/export.py`` wrote.

    Attributes:
        sidecar: see :class:`illama_seg.deploy.Sidecar`.

    Raises:
        MissingFileError: if a file is missing.
        UserError: if the sidecar is of another file, or the runtime is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.sidecar: Sidecar = read_sidecar(path)
        self._session = open_session(path, self.sidecar.precision)
        if self.sidecar.probe:
            self._check_probe(self.sidecar.probe)

    def probe(self, size: Sequence[int]) -> dict[str, Any]:
        """Return some logits of a made image, (height, width) pixels, for a sidecar."""
        count = self.sidecar.channels * size[0] * size[1]
        image = np.sin(0.1 * np.arange(count, dtype=np.float32))
        logits = self.logits(image.reshape(1, -1, *size)).ravel()
        places = np.linspace(0, len(logits) - 1, PROBED).astype(int)
        return dict(size=list(size), logits=logits[places].tolist())

    def _check_probe(self, probe: Mapping) -> None:
        """Compare with the logits where the file was exported.

        Raises:
            UserError: if this processor gives others.
        """
        expected = np.array(probe['logits'])
        found = np.array(self.probe(probe['size'])['logits'])
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        if not error <= MAX_PROBE_ERROR:
            raise UserError(
                f'{self.path}: 8-bit products are wrong on this processor: logits of a '
                f'test image differ by {error:.0%} from those where the file was '
                f'exported, allowed are {MAX_PROBE_ERROR:.0%}: export in float32'
            )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Run normalised images.

        Args:
            images: (B, C, H, W) float32.

        Returns:
            Logits of a segmentation (B, num_classes, h, w), at the resolution of the
            decoder; of a classification (B, num_classes).

        Raises:
            UserError: if the file is of another size or number of channels.
        """
        channels, size = self.sidecar.channels, self.sidecar.size
        if images.shape[1] != channels:
            raise UserError(
                f'{self.path} takes {channels} channels, got {images.shape[1]}'
            )
        if size and list(images.shape[2:]) != size:
            found = 'x'.join(map(str, images.shape[2:]))
            raise UserError(
                f'{self.path} takes images of {size[0]}x{size[1]} pixels alone, got '
                f'{found}: export for any size (dynamic), or choose another image'
            )
        # A file of one size takes one image at a time.
        parts = np.split(images, len(images)) if size else [images]
        try:
            logits = np.concatenate([self._session(part) for part in parts])
            reason = '' if len(logits) == len(images) and logits.size else 'no logits'
        except Exception as error:  # the runtimes' errors have no base of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        if reason:
            shape = 'x'.join(map(str, images.shape[2:]))
            raise UserError(
                f'{self.path} does not run on images of {shape} pixels: {reason}. Each '
                'side needs more than one patch, and the image must fit into the memory'
            )
        return logits

    def segment(
        self, image: np.ndarray, full_size: bool = False, blend: str = 'mean'
    ) -> np.ndarray:
        """Segment an image as ``illama_seg.apis.predict`` does, in bounded memory.

        Args:
            image: (H, W, C) uint8, BGR if it has three channels.
            full_size: put the windows over the image as it is, without resizing it.
            blend: weights of overlapping windows: 'mean', 'hann' or 'gaussian'.

        Returns:
            (H, W) uint8, class numbers from 0.

        Raises:
            UserError: if an argument does not fit the file.
        """
        sidecar = self.sidecar
        if sidecar.task != 'segmentation':
            raise UserError(f'{self.path} is a {sidecar.task}: use classify')
        if blend not in BLENDS:
            raise UserError(f'expected one of {", ".join(BLENDS)}', blend=blend)
        if full_size and sidecar.windows is None:
            raise UserError(
                f'needs windows, but {self.path} takes the whole image', full_size=True
            )
        image = self._checked(image)
        height, width = image.shape[:2]
        resized = image if full_size else sidecar.prepared(image)
        size = resized.shape[:2]
        windows: Mapping = sidecar.windows or dict(crop=size, stride=size)
        rows, columns = (
            Axis(*numbers, blend=blend, align_corners=sidecar.align_corners)
            for numbers in zip(
                size, (height, width), windows['crop'], windows['stride'], strict=True
            )
        )
        maps = _Windows(self, resized, (rows.length, columns.length))
        labels = np.empty((height, width), np.uint8)
        for where_rows, where_columns, values in average(maps, rows, columns):
            if sidecar.threshold is None:
                found = values.argmax(-1)
            else:
                found = 1 / (1 + np.exp(-values[..., 0])) > sidecar.threshold
            labels[where_rows, where_columns] = found
        return labels

    def classify(self, image: np.ndarray) -> np.ndarray:
        """Classify an image, (H, W, C) uint8 BGR -> probabilities (num_classes,).

        Raises:
            UserError: if the file segments, or the image does not fit it.
        """
        sidecar = self.sidecar
        if sidecar.task != 'classification':
            raise UserError(f'{self.path} is a {sidecar.task}: use segment')
        image = self._checked(image)
        logits = self.logits(sidecar.normalised(sidecar.prepared(image)))[0]
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    def _checked(self, image: np.ndarray) -> np.ndarray:
        image = image[..., None] if image.ndim == 2 else image
        if (
            image.ndim != 3
            or image.shape[2] != self.sidecar.channels
            or 0 in image.shape
        ):
            raise UserError(
                f'the image has shape {image.shape}: expected (H, W, '
                f'{self.sidecar.channels})'
            )
        return image


class _Windows:
    """Logits of an image's windows, see :class:`illama_seg.windows.Maps`."""

    def __init__(
        self, model: ExportedModel, image: np.ndarray, size: tuple[int, int]
    ) -> None:
        self.model, self.image, self.size = model, image, size
        sidecar = model.sidecar
        self.channels = 1 if sidecar.threshold is not None else len(sidecar.classes)

    def compute(self, y: int, corners: list[int]) -> list[np.ndarray]:
        """Compute windows of one row, (height, width, num_classes) each."""
        height, width = self.size
        crops = [self.image[y : y + height, x : x + width] for x in corners]
        batch = np.concatenate([self.model.sidecar.normalised(crop) for crop in crops])
        logits = self.model.logits(batch).transpose(0, 2, 3, 1)
        return list(np.ascontiguousarray(logits))

    def enlarged(self, values: np.ndarray, begin: int, end: int) -> np.ndarray:
        """Enlarge logits to rows ``begin`` to ``end`` of their window."""
        for axis, (size, out) in enumerate(
            zip(values.shape[:2], self.size, strict=True)
        ):
            part = (begin, end) if axis == 0 else (0, out)
            if size == out:
                values = values[begin:end] if axis == 0 else values
                continue
            places = Places.of(size, out, self.model.sidecar.align_corners)
            values = self.interpolated(values, places.part(*part), axis)
        return values

    def interpolated(self, values: np.ndarray, places: Places, axis: int) -> np.ndarray:
        """Interpolate an array (rows, columns, channels) along an axis."""
        first, second = (
            values.take(places.first, axis),
            values.take(places.second, axis),
        )
        share = places.share[:, None]
        second -= first
        second *= share if axis == 1 else share[:, None]
        second += first
        return second

    def array(self, values: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return values
