"""Export a trained model to a file of ONNX or OpenVINO, and check that it is equal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from mmengine.config import Config
from mmengine.logging import print_log

from illama_seg.apis.configs import load_config
from illama_seg.apis.export_comparison import compare
from illama_seg.apis.export_images import (
    Example,
    first_window,
    load_calibration,
    load_examples,
)
from illama_seg.apis.models import annotation_ids, dataset_meta, load_model
from illama_seg.apis.prediction import without_annotations
from illama_seg.apis.user_errors import check_writable
from illama_seg.checkpoints import open_checkpoint
from illama_seg.deploy import ExportedModel, Sidecar
from illama_seg.deploy.description import (
    class_colours,
    describe_classifier,
    describe_segmentor,
    installed_versions,
)
from illama_seg.deploy.graph import (
    TRACED,
    Exportable,
    Size,
    halve_onnx,
    needed,
    to_onnx,
    to_openvino,
)
from illama_seg.deploy.integers import quantise
from illama_seg.deploy.sidecar import sidecar_path, weights_paths, write_sidecar
from illama_seg.errors import UserError
from illama_seg.files import digest_of, write_whole
from illama_seg.quantization import QuantizedILLaMA

FORMATS = {'onnx': '.onnx', 'openvino': '.xml'}


def export_model(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    to: str = 'onnx',
    size: Size | None = None,
    dynamic: bool = False,
    half: bool = False,
    int8: bool = False,
    calibrate: int = 64,
    images: Sequence[str | Path] = (),
    num_images: int = 8,
    cfg_options: dict | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Export a segmentor or classifier, with a sidecar, and compare it with the model.

    Nothing is written where the file differs by more than
    :data:`illama_seg.deploy.equality.BOUNDS`.

    Args:
        config: config of the model, or its name.
        checkpoint: its weights.
        out: folder to write to: CONFIG.onnx, or CONFIG.xml and CONFIG.bin, with the
            sidecar (``.json`` behind the name) and the comparison (``.report.json``).
        to: 'onnx' or 'openvino'.
        size: (height, width) in pixels that the file takes; by default that of the
            windows, or of a classifier's images.
        dynamic: take images of any size, and several at once.
        half: keep numbers in 16 bits.
        int8: keep weights and activations in 8 bits.
        calibrate: images of the training data that find the ranges of ``int8``.
        images: files or folders to compare on, without annotations; by default
            images of the validation data, with their annotations.
        num_images: images to compare on.
        cfg_options: overrides of the config.

    Returns:
        Path of the file, and the comparison.

    Raises:
        MissingFileError: if a file or the data is missing.
        UserError: if an argument or the model does not fit, a library is missing, or
            the file differs.
    """
    _check_arguments(
        to=to,
        size=size,
        dynamic=dynamic,
        half=half,
        int8=int8,
        calibrate=calibrate,
        num_images=num_images,
    )
    libraries = dict(onnx=['onnxruntime'], openvino=['openvino', *['nncf'] * int8])
    needed(*libraries[to])
    out = Path(out)
    check_writable(out)
    cfg = load_config(config, cfg_options)
    source = open_checkpoint(checkpoint)
    model: Any = load_model(cfg, source)
    sidecar = _describe(cfg, model, size, dynamic)
    simulated = isinstance(model.backbone, QuantizedILLaMA)
    if simulated and (half or int8):
        raise UserError(
            f'{checkpoint} has step sizes of its own: leave half and int8 out',
            **({'half': True} if half else {'int8': True}),
        )
    integers = int8 or simulated
    sidecar.precision = 'int8' if integers else 'float16' if half else 'float32'
    sidecar.checkpoint = digest_of(source.path, 'sha256')
    examples = load_examples(cfg, model, images, num_images)
    _check_sizes(sidecar, examples)
    windows = load_calibration(cfg, model, sidecar, calibrate) if int8 else []
    with _writing(out), TemporaryDirectory(dir=out) as folder:
        path = Path(folder, Path(cfg.filename).stem + FORMATS[to])
        size = cast(Any, sidecar.size and tuple(sidecar.size))
        print_log(f'converting to {to}', logger='current')
        graph = path.with_suffix('.onnx')
        to_onnx(Exportable(model), graph, sidecar.channels, size)
        if to == 'openvino':
            to_openvino(graph, path, half)
            for file in weights_paths(graph):
                file.unlink()
        elif half:
            halve_onnx(path)
        if int8:
            quantise(path, windows)
        write_sidecar(path, sidecar)
        if integers:
            traced = size or (sidecar.windows or {}).get('crop') or TRACED[1]
            sidecar.probe = ExportedModel(path).probe(traced)
            write_sidecar(path, sidecar)
        equality = compare(model, path, examples, size)
        for file in (*weights_paths(path), sidecar_path(path)):
            file.replace(out / file.name)
        path = out / path.name
        report = equality.summary() | dict(
            file=path.name,
            bytes=sum(file.stat().st_size for file in weights_paths(path)),
            size=sidecar.size,
        )
        write_whole(out / f'{path.name}.report.json', json.dumps(report, indent=1))
    print_log(str(equality), logger='current')
    return path, report


def _check_arguments(
    *,
    to: str,
    size: Size | None,
    dynamic: bool,
    half: bool,
    int8: bool,
    calibrate: int,
    num_images: int,
) -> None:
    if to not in FORMATS:
        raise UserError(f'expected one of {", ".join(FORMATS)}', to=to)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise UserError('expected height and width in pixels', size=size)
    if size is not None and dynamic:
        raise UserError('the file takes one size, or any: leave one out', size=size)
    if half and int8:
        raise UserError('expected one of half and int8', half=True)
    for name, count in dict(calibrate=calibrate, num_images=num_images).items():
        if count < 1:
            raise UserError('expected at least 1 image', **{name: count})


def _check_sizes(sidecar: Sidecar, examples: Sequence[Example]) -> None:
    """Refuse images to compare on that a file of one size does not take.

    Raises:
        UserError: before anything is converted.
    """
    for image, _ in examples if sidecar.size else ():
        found = list(first_window(sidecar, image).shape[2:])
        if found != sidecar.size:
            raise UserError(
                f'an image to compare on is {found} pixels after resizing, the file '
                f'takes {sidecar.size} alone: set dynamic, or name other images '
                '(images)'
            )


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Name the folder where a file cannot be written, as on a full disk."""
    try:
        yield
    except OSError as error:
        if isinstance(error, UserError):
            raise
        reason = error.strerror or str(error).splitlines()[0]
        text = f'cannot be written ({reason}), nothing was kept'
        raise UserError(text, out=str(out)) from error


def _describe(cfg: Config, model: Any, size: Size | None, dynamic: bool) -> Sidecar:
    meta = dataset_meta(model)
    classes = list(meta.get('classes') or ())
    if hasattr(model, 'decode_head'):
        facts = describe_segmentor(cfg, model, without_annotations(cfg.test_pipeline))
        ids = annotation_ids(meta).tolist()
        windows = facts['windows']
        if windows and size and list(size) != windows['crop']:
            raise UserError(
                f'the windows of {cfg.filename} are {windows["crop"]}: leave size out, '
                'or set model.test_cfg.crop_size too',
                size=size,
            )
        size = size or (windows and windows['crop'])
        if not size and not dynamic:
            raise UserError(
                f'{cfg.filename} puts no windows over an image (model.test_cfg.mode='
                "'whole'): set dynamic, or size=(HEIGHT, WIDTH) for images of one size"
            )
    else:
        facts = describe_classifier(cfg, model, cfg.test_dataloader.dataset.pipeline)
        count = model.head.num_classes
        classes = classes or [f'class {number}' for number in range(count)]
        ids = list(range(count))
        size = size or facts['resize']['crop']
    return Sidecar(
        **facts,
        size=None if dynamic else list(cast(Any, size)),
        classes=classes,
        palette=class_colours(meta, len(classes)),
        ids=ids,
        precision='',
        checkpoint='',
        versions=installed_versions(),
        digests={},
    )
