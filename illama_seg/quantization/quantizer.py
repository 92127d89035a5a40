"""Round to 8 bits with a step size that is learned, or found by calibration."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from illama_seg.errors import UserError
from illama_seg.layers import Linear, linear

BITS = 8
SIGNED, UNSIGNED = (-128, 127), (0, 255)
_SMALLEST = 1e-8  # of a step size; a learned one may cross zero


class Quantizer(nn.Module):
    """One step size for a whole tensor: ``step * clamp(round(x / step))``.

    Values in float32, as integers would give them (fake quantisation). The gradient
    passes the rounding (straight-through) where nothing is clipped; that of the step
    is Learned Step Size Quantization's (arXiv 1902.08153, Eq. 3), scaled by
    1 / sqrt(values of a sample * largest integer). The first tensor seen sets the
    step, or all tensors seen between :meth:`observe` and :meth:`settle`.

    Args:
        signed: integers -128 to 127, else 0 to 255.
    """

    zero_point: Tensor
    ready: Tensor

    def __init__(self, signed: bool = True) -> None:
        super().__init__()
        self.low, self.high = SIGNED if signed else UNSIGNED
        self.step = nn.Parameter(torch.ones(1))
        self.register_buffer('ready', torch.zeros(1, dtype=torch.bool))
        self.register_buffer('zero_point', torch.zeros(1), persistent=False)
        self._observer: Any = None
        self._is_ready = False  # read once: asking a GPU each time would stall it

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same in its shape and dtype."""
        if self._observer is not None:
            self._observer(x.detach().float())
            return x
        if torch.compiler.is_exporting():
            return round_to_steps(x.float(), positive(self.step), self.low, self.high)
        if not (x.is_meta or self._is_ready):
            self._begin(x)
        scale = (x[0].numel() * self.high) ** -0.5
        return torch._fake_quantize_learnable_per_tensor_affine(
            x.float(),
            positive(self.step),
            self.zero_point,
            self.low,
            self.high,
            grad_factor=scale,
        ).to(x.dtype)

    def observe(self) -> None:
        """Collect statistics of the inputs without quantising, until :meth:`settle`."""
        self._observer = make_observer(self.low, self.high)

    def settle(self) -> None:
        """Take the step with the least squared error over the tensors seen."""
        scale, _ = self._observer.calculate_qparams()
        self._observer = None
        self._set(scale)

    def _begin(self, x: Tensor) -> None:
        if not self.ready:
            self.observe()
            self._observer(x.detach().float())
            self.settle()
        self._is_ready = True

    def _set(self, scale: Tensor) -> None:
        scale = scale.to(self.step).view(1)
        all_reduce(scale, 'mean')  # every process sees other images
        with torch.no_grad():
            self.step.copy_(positive(scale))
            self.ready.fill_(True)

    def extra_repr(self) -> str:
        return f'{self.low}..{self.high}'


@torch.library.custom_op('illama_seg::round_to_steps', mutates_args=())
def round_to_steps(x: Tensor, steps: Tensor, low: int, high: int) -> Tensor:
    """Round to multiples of one step, or of a step for each index of axis 0.

    An operator of its own in exported graphs: torch's fake quantisation has no rule for
    shapes that are not known.
    """
    zeros = torch.zeros_like(steps, dtype=torch.int32)
    if len(steps) == 1:
        return torch.fake_quantize_per_tensor_affine(x, steps, zeros, low, high)
    return torch.fake_quantize_per_channel_affine(x, steps, zeros, 0, low, high)


@round_to_steps.register_fake
def _(x: Tensor, steps: Tensor, low: int, high: int) -> Tensor:
    return torch.empty_like(x)


def positive(step: Tensor) -> Tensor:
    """A step size that can be divided by."""
    return step.abs().clamp(min=_SMALLEST)


def make_observer(low: int, high: int) -> Any:
    """torchao's histogram, whose range has the least squared error.

    Raises:
        UserError: if torchao is not installed.
    """
    try:
        from torchao.quantization.pt2e.observer import HistogramObserver
    except ImportError as error:
        raise UserError(
            'finding step sizes needs torchao: pip install torchao. Models that have '
            'them run without it'
        ) from error
    # Values that are never negative have an affine range from 0: no offset either way.
    signed = low < 0
    return HistogramObserver(
        dtype=torch.int8 if signed else torch.uint8,
        qscheme=torch.per_tensor_symmetric if signed else torch.per_tensor_affine,
        quant_min=low,
        quant_max=high,
    )


class QuantLinear(Linear):
    """A linear layer with 8-bit weights, a step size for each output channel.

    Args:
        in_features: channels of input.
        out_features: channels of output.
        bias: whether there is one; it stays in float32.
        with_input: round the input too, else whoever calls does.
    """

    _zero: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: bool, with_input: bool = True
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.input = Quantizer() if with_input else None
        self.weight_step = nn.Parameter(torch.zeros(out_features))
        self.register_buffer('_zero', torch.zeros(out_features), persistent=False)
        self._has_steps = False

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if self.input is not None:
            x = self.input(x)
        return linear(x, self.rounded_weight(), self.bias)

    def rounded_weight(self) -> Tensor:
        """(out_features, in_features), multiples of the steps, with LSQ's gradient."""
        if torch.compiler.is_exporting():
            return round_to_steps(
                self.weight.float(), positive(self.weight_step), *SIGNED
            )
        if not (self.weight.is_meta or self._has_steps):
            self._begin()
        return torch._fake_quantize_learnable_per_channel_affine(
            self.weight.float(),
            positive(self.weight_step),
            self._zero,
            axis=0,
            quant_min=SIGNED[0],
            quant_max=SIGNED[1],
            grad_factor=(self.in_features * SIGNED[1]) ** -0.5,
        ).to(self.weight.dtype)

    @torch.no_grad()
    def _begin(self) -> None:
        """Steps from the largest weight of each channel, where there are none yet."""
        largest = self.weight.detach().float().abs().amax(1) / SIGNED[1]
        steps = torch.where(self.weight_step == 0, largest, self.weight_step)
        self.weight_step.copy_(steps)
        self._has_steps = True
