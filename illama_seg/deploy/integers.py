"""8-bit files, calibrated on images of the training data.

Where a processor has no VNNI instructions, some kernels add up products of 8-bit
numbers in 16 bits, which saturate. Weights have 7 bits on every processor, so that no
such sum is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from illama_seg.deploy.graph import needed, quiet

PRODUCTS = ['Conv', 'ConvTranspose', 'MatMul']


def quantise(path: Path, images: Sequence[np.ndarray]) -> None:
    """Replace an exported file by one with 8-bit weights and activations.

    Convolutions and matrix products, both of the attention among them, get 8 bits;
    norms, softmax and sums stay in float. Weights have a range for each output channel,
    activations one for each tensor, which the images find.

    Args:
        path: .onnx or .xml, replaced.
        images: (1, C, H, W) float32, normalised.

    Raises:
        UserError: if a library is not installed.
    """
    (_quantise_onnx if path.suffix == '.onnx' else _quantise_openvino)(path, images)


def _quantise_onnx(path: Path, images: Sequence[np.ndarray]) -> None:
    """Insert QuantizeLinear and DequantizeLinear, by ONNX Runtime."""
    library, shapes = needed(
        'onnxruntime.quantization', 'onnxruntime.quantization.shape_inference'
    )
    feeds: Iterator[dict] = ({'image': image} for image in images)

    class Reader(library.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def get_next(self) -> dict | None:
            return next(feeds, None)

    prepared = path.with_name(f'prepared_{path.name}')
    with quiet('root'):  # it warns of every tensor
        shapes.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        library.quantize_static(
            str(prepared),
            str(path),
            Reader(),
            quant_format=library.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            op_types_to_quantize=PRODUCTS,
        )
    prepared.unlink()


def _quantise_openvino(path: Path, images: Sequence[np.ndarray]) -> None:
    """Insert fake quantisation, which OpenVINO runs in integers, by NNCF."""
    nncf, openvino = needed('nncf', 'openvino')
    advanced: Any = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE
    )
    model = openvino.Core().read_model(str(path))
    with quiet('nncf'):
        quantised = nncf.quantize(
            model,
            nncf.Dataset(list(images)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER,
            advanced_parameters=advanced,
        )
    part = path.with_name(f'int8_{path.name}')
    openvino.save_model(quantised, str(part), compress_to_fp16=False)
    del model, quantised  # they map the file that is replaced
    for suffix in ('.xml', '.bin'):
        part.with_suffix(suffix).replace(path.with_suffix(suffix))
