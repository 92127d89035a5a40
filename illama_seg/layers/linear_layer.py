"""Linear layers by the fastest matrix product of the processor.

On a CPU torch multiplies float32 matrices by MKL and convolves by oneDNN. Which of the
two libraries is faster depends on the processor: with AVX-512 on AMD's, MKL's product
has less than half of the rate of oneDNN's. A linear layer is a 1x1 convolution of its
tokens, so that both can compute it. The faster one is chosen by timing both on one
layer of usual size, once for inference and once for training. Half precision, GPUs and
compiled code have one way only.
"""

from __future__ import annotations

import functools
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from illama_seg.errors import UserError
from illama_seg.machine.choices import Choice, decide, fastest_times, noted

# 'auto', 'fixed' (no measurement), or one of WAYS.
VARIABLE = 'ILLAMA_SEG_LINEAR'
TOKENS, IN_FEATURES, OUT_FEATURES = 512, 384, 768  # of the layer that is timed


def by_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``F.linear`` as a 1x1 convolution of an image that is one row of tokens.

    Args:
        x: (..., K).
        weight: (M, K).
        bias: (M,), or None.

    Returns:
        (..., M).
    """
    # The last axis stays the innermost one in memory: nothing is copied.
    image = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(image, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


WAYS = {'product': F.linear, 'convolution': by_convolution}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``F.linear`` by the fastest product, see :func:`automatic_product`."""
    if (
        torch.compiler.is_compiling()
        or x.device.type != 'cpu'
        or x.dtype != torch.float32
        or torch.is_autocast_enabled('cpu')
        or not x.numel()
    ):
        return F.linear(x, weight, bias)
    training = torch.is_grad_enabled() and weight.requires_grad
    return WAYS[automatic_product(training).name](x, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` by the fastest product, see :func:`automatic_product`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)


def check_linear_asked() -> None:
    """Refuse an unknown name in ``ILLAMA_SEG_LINEAR``.

    Raises:
        UserError: names the variable, the value and those expected.
    """
    names = 'auto', 'fixed', *WAYS
    if _asked() not in names:
        raise UserError(f'{VARIABLE}={_asked()!r}: expected one of {", ".join(names)}')


def automatic_product(training: bool) -> Choice:
    """Choose how linear layers of float32 numbers are computed on the CPU, and say why.

    The environment's ``ILLAMA_SEG_LINEAR`` decides, then a resumed run's choice, then a
    measurement. Where the variable is 'fixed', nothing is measured.

    Args:
        training: whether a gradient of the weights will be needed.

    Raises:
        UserError: the variable names none of ``WAYS``.
    """
    asked = _asked()
    key = f'linear layers: cpu, float32, {"training" if training else "inference"}'
    if asked in WAYS:
        choice = Choice(asked, {}, f'by {VARIABLE}')
    elif asked == 'auto':
        choice = decide(key, 'cpu', tuple(WAYS), 'product', lambda: _times(training))
    else:
        check_linear_asked()
        choice = Choice('product', {}, 'fixed')
    return noted(key, choice)


def _times(training: bool) -> dict[str, float]:
    """Time both ways, with a backward pass for training."""
    x, weight = _numbers(TOKENS, IN_FEATURES), _numbers(OUT_FEATURES, IN_FEATURES)
    grad = _numbers(TOKENS, OUT_FEATURES).detach()

    def run(name: str) -> None:
        with torch.set_grad_enabled(training):
            out = WAYS[name](x, weight)
            if training:
                torch.autograd.grad(out, (x, weight), grad)

    return fastest_times({name: functools.partial(run, name) for name in WAYS})


def _numbers(rows: int, cols: int) -> Tensor:
    """Numbers around 0; no random ones, which would move the training's."""
    count = rows * cols
    numbers = torch.linspace(0, count, count, dtype=torch.float32).sin_()
    return numbers.view(rows, cols).requires_grad_()


def _asked() -> str:
    return os.environ.get(VARIABLE) or 'auto'
