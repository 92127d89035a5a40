"""Convert a model of torch to a file of ONNX or OpenVINO."""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from illama_seg.deploy.sidecar import EXTRA
from illama_seg.errors import UserError
from illama_seg.heads import fold_for_inference
from illama_seg.layers import SelfAttention
from illama_seg.quantization import quantizer  # registers an operator  # noqa: F401

Size = tuple[int, int]
# Batch and (height, width) that a graph for any size is traced with. Height and width
# differ, as do the sides of their grids of patches: equal ones would become one symbol.
TRACED = 2, (112, 176)
UINT8, INT8 = 2, 3  # types of ONNX


class AveragePool(nn.Module):
    """Adaptive average pooling as two matrix products, exact for any size.

    Exporters unroll ``nn.AdaptiveAvgPool2d`` for the size that they trace.

    Args:
        output_size: (height, width), or a number for both.
    """

    def __init__(self, output_size: int | Size) -> None:
        super().__init__()
        side = output_size
        self.output_size = (side, side) if isinstance(side, int) else tuple(side)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *output_size)."""
        height, width = self.output_size
        rows = _pooling(x.shape[2], height, x)
        return rows @ x @ _pooling(x.shape[3], width, x).T


def _pooling(size: int, out: int | None, like: Tensor) -> Tensor:
    """Matrix that averages ``size`` pixels to ``out``, (out, size)."""
    out = size if out is None else out
    numbers = torch.arange(out, device=like.device)
    begin = numbers * size // out
    end = ((numbers + 1) * size + out - 1) // out
    places = torch.arange(size, device=like.device)
    inside = (places >= begin[:, None]) & (places < end[:, None])
    return inside.to(like.dtype) / (end - begin)[:, None].to(like.dtype)


class Exportable(nn.Module):
    """A model from normalised images to logits, in operators that exporters know.

    Args:
        model: segmentor of mmseg or :class:`illama_seg.pretrain.ImageClassifier`; it is
            copied.
        with_stages: return the maps of every stage too, from the backbone on.

    Attributes:
        stages: names of the outputs.
    """

    def __init__(self, model: nn.Module, with_stages: bool = False) -> None:
        super().__init__()
        self.model: Any = fold_for_inference(copy.deepcopy(model)).eval().cpu().float()
        self.model.requires_grad_(False)
        _replace_pools(self.model)
        for module in self.model.modules():
            if isinstance(module, SelfAttention) and isinstance(module.qkv, nn.Linear):
                _pair_by_halves(module)
        self.with_stages = with_stages
        self.stages: list[str] = []
        self.eval()

    def forward(self, image: Tensor) -> Any:
        """(B, C, H, W) -> logits, or a tuple of all stages with the logits last."""
        model = self.model
        stages = {'backbone': model.backbone(image)}
        if getattr(model, 'neck', None) is not None:
            stages['neck'] = model.neck(stages['backbone'])
        *_, maps = stages.values()
        head = model.decode_head if hasattr(model, 'decode_head') else model.head
        logits = head(maps)
        if not self.with_stages:
            return logits
        named = {
            f'{stage}, output {number}': value
            for stage, values in stages.items()
            for number, value in enumerate(values)
        }
        self.stages = [*named, 'logits']
        return (*named.values(), logits)


def _replace_pools(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            setattr(module, name, AveragePool(child.output_size))  # type: ignore[arg-type]
        else:
            _replace_pools(child)


@torch.no_grad()
def _pair_by_halves(attention: Any) -> None:
    """Order the channels of q and k so that rotary pairs are i and i + d / 2.

    The order is one of q and of k alike, so that their products stay. Adjacent pairs
    are strided, and splitting and joining them took a third of a pass in OpenVINO.
    """
    qkv, heads = attention.qkv, attention.num_heads
    rows = torch.arange(qkv.out_features).view(3, heads, -1, 2)
    rows = torch.cat([rows[:2].transpose(2, 3).flatten(), rows[2].flatten()])
    for values in (qkv.weight, qkv.bias, getattr(qkv, 'weight_step', None)):
        if values is not None:
            values.copy_(values[rows])

    def split_heads(qkv: Tensor, rotary: Tensor | None) -> tuple[Tensor, ...]:
        parts = [
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in qkv.chunk(3, dim=-1)
        ]
        if rotary is not None:
            parts[:2] = (_turned(part, *rotary.unbind(-1)) for part in parts[:2])
        return tuple(parts)

    attention.split_heads = split_heads


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of channels i and i + d / 2, (B, h, N, d) by (N, d / 2) each."""
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)


def to_onnx(module: nn.Module, path: Path, channels: int, size: Size | None) -> None:
    """Write a module as ONNX, with the input 'image' and the output 'logits'.

    Args:
        module: :class:`Exportable`.
        path: file to write.
        channels: of an image.
        size: (height, width) in pixels, one image at a time; None for any size and
            number of images.

    Raises:
        UserError: if the model has an operator that cannot be exported, or a library is
            missing.
    """
    needed('onnx', 'onnxscript')
    batch, traced = (1, size) if size else TRACED
    image = torch.zeros(batch, channels, *traced)
    free = torch.export.Dim.DYNAMIC
    shapes = None if size else ({0: free, 2: free, 3: free},)
    try:
        with torch.no_grad(), quiet('onnxscript'):
            program = torch.onnx.export(
                module,
                (image,),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=['image'],
                output_names=None if getattr(module, 'with_stages', 0) else ['logits'],
                verbose=False,
                custom_translation_table=_translations(),
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise UserError(
            f'the model cannot be exported: {_reason(error)}. Report it with the '
            'config; torch.export.export names the operator'
        ) from error
    assert program is not None
    program.save(str(path))


def _translations() -> dict:
    """Return the function that writes simulated 8 bits as two operators of ONNX."""
    _, script = needed('onnx', 'onnxscript')
    op = script.opset20

    def round_to_steps(x, steps, low: int, high: int):  # type: ignore[no-untyped-def]
        kind, axis = UINT8 if low == 0 else INT8, {}
        if steps.shape[0] == 1:
            steps = op.Squeeze(steps)
        else:
            axis = dict(axis=0)
        zeros = op.Cast(
            op.Mul(steps, op.CastLike(op.Constant(value_int=0), steps)), to=kind
        )
        whole = op.QuantizeLinear(x, steps, zeros, **axis)
        return op.DequantizeLinear(whole, steps, zeros, **axis)

    return {torch.ops.illama_seg.round_to_steps.default: round_to_steps}


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def to_openvino(onnx_path: Path, path: Path, half: bool = False) -> None:
    """Write an ONNX file as OpenVINO's .xml with its .bin.

    Args:
        onnx_path: file to read.
        path: .xml to write.
        half: keep weights in 16 bits.

    Raises:
        UserError: if OpenVINO is not installed, or cannot convert the file.
    """
    (openvino,) = needed('openvino')
    try:
        converted = openvino.convert_model(str(onnx_path))
    except RuntimeError as error:
        raise UserError(f'OpenVINO cannot convert the model: {error}') from error
    openvino.save_model(converted, str(path), compress_to_fp16=half)


def halve_onnx(path: Path) -> None:
    """Convert an ONNX file to 16-bit numbers inside, with float32 at both ends."""
    onnx, _ = needed('onnx', 'onnxruntime')
    float16 = importlib.import_module('onnxruntime.transformers.float16')
    model = onnx.load(str(path))
    onnx.save(float16.convert_float_to_float16(model, keep_io_types=True), str(path))


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Drop the notes of a library, below errors, from its logger and from stdout."""
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        found.setLevel(level)


def needed(*names: str) -> Sequence[Any]:
    """Import libraries of the extra 'deploy'.

    Raises:
        UserError: names the library and the extra.
    """
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError as error:
            raise UserError(f'exporting needs {name}: {EXTRA}') from error
    return found
