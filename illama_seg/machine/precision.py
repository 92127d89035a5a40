"""float32 or half precision: decided by timing both on the device at hand.

A processor without instructions for bfloat16 computes it, and its results are right,
but some twenty times slower than float32. No name tells: AVX-512 has them or not.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from illama_seg.errors import UserError
from illama_seg.machine.choices import apart, fastest_times

PRECISIONS = ('float32', 'bfloat16', 'float16')
VARIABLE = 'ILLAMA_SEG_PRECISION'
GAIN = 0.9  # half precision has to take less than this share of float32's time


class Precision(NamedTuple):
    """Precision of a training or test, and the reason for it.

    Attributes:
        name: 'float32' (no autocast), 'bfloat16' or 'float16'.
        reason: sentence for the log.
    """

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch.dtype of the name."""
        return getattr(torch, self.name)


def check_precision(name: str, option: str) -> None:
    """Check the name of a precision.

    Raises:
        UserError: names the option, the value found and those expected.
    """
    if name not in ('auto', *PRECISIONS):
        raise UserError(
            f'{option}={name!r}: expected one of {", ".join(("auto", *PRECISIONS))}'
        )


def asked_precision() -> str:
    """Return what ``ILLAMA_SEG_PRECISION`` asks for, 'auto' where it is not set.

    Raises:
        UserError: it is no precision; names the variable, the value and those expected.
    """
    asked = os.environ.get(VARIABLE) or 'auto'
    check_precision(asked, VARIABLE)
    return asked


def given_precision(name: str, source: str) -> Precision:
    """Return a precision that something else than the environment decides.

    Its reason says so where the environment asks for another one.
    """
    asked, reason = asked_precision(), f'{name}{source}'
    if asked not in ('auto', name):
        reason += f'; {VARIABLE}={asked} has no effect'
    return Precision(name, reason)


def precision_with(amp: bool, device: str) -> Precision:
    """Choose the precision of a test or measurement: float32 without ``amp``."""
    if amp:
        return choose_precision(device)
    return given_precision('float32', ', without amp')


def choose_precision(
    device: str, wanted: str = 'auto', resumed: str | None = None
) -> Precision:
    """Choose the precision of a training or a test.

    The first that is given decides: ``wanted``, the environment's
    ``ILLAMA_SEG_PRECISION``, the precision that a resumed run began with, and last a
    measurement of the faster one.

    Args:
        device: type of device: 'cpu', 'cuda', ...
        wanted: 'auto', 'float32', 'bfloat16' or 'float16'.
        resumed: name of the precision that a resumed run was trained in.

    Raises:
        UserError: for a name that is none of these.
    """
    check_precision(wanted, 'precision')
    if wanted != 'auto':
        return given_precision(wanted, ', as set')
    if (asked := asked_precision()) != 'auto':
        return Precision(asked, f'{asked}, by {VARIABLE}')
    seconds = measure_precisions(device)
    name = faster(seconds)
    times = ' against '.join(f'{1e3 * s:.1f} ms in {n}' for n, s in seconds.items())
    measured = f'measured {times}' if len(seconds) > 1 else 'nothing else is to be had'
    if resumed is None or resumed == name:
        return Precision(name, f'{name}: {measured}')
    check_precision(resumed, 'the resumed precision')
    return Precision(
        resumed, f'{resumed}, kept from the resumed run, though here {measured}'
    )


def half_precision(device: str) -> str | None:
    """Name the half precision to compare with; None where there is no autocast."""
    if not torch.amp.is_autocast_available(device):
        return None
    if device == 'cuda' and not torch.cuda.is_bf16_supported(False):
        return 'float16'
    return 'bfloat16'


@functools.cache
def measure_precisions(device: str) -> dict[str, float]:
    """Time a matrix product and a convolution, forward and backward, once a process.

    On a CPU in one thread: threads that wait for one another on a busy machine would
    hide which precision is faster.

    Returns:
        Seconds by name, float32 first; of a device without autocast only that.
    """
    half = half_precision(device)
    if half is None:
        return {'float32': 0.0}
    calls = {name: _work(device, name) for name in ('float32', half)}

    def measure() -> dict[str, float]:
        threads = torch.get_num_threads()
        if device == 'cpu':
            torch.set_num_threads(1)
        try:
            return fastest_times(calls)
        finally:
            torch.set_num_threads(threads)

    return apart(measure)


def faster(seconds: dict[str, float]) -> str:
    """Name half precision where it is clearly faster, else float32."""
    limit = GAIN * seconds['float32']
    return next((name for name, s in seconds.items() if s < limit), 'float32')


def _work(device: str, name: str) -> Callable[[], object]:
    """Return a call that computes a training step of two layers, in a precision."""
    scale = 16 if device == 'cuda' else 1
    sizes = (scale, 64, 32, 32), (64, 64, 3, 3), (512 * scale, 192), (512, 192)
    image, kernel, tokens, weight = (_numbers(size, device) for size in sizes)
    autocast = torch.autocast(
        device, getattr(torch, name), enabled=name != 'float32', cache_enabled=False
    )

    def run() -> None:
        with torch.enable_grad(), autocast:
            out = F.conv2d(image, kernel, padding=1), F.linear(tokens, weight)
        grads = [torch.ones_like(x) for x in out]
        torch.autograd.grad(out, (image, kernel, tokens, weight), grads)
        if device == 'cuda':
            torch.cuda.synchronize()

    return run


def _numbers(size: tuple[int, ...], device: str) -> Tensor:
    """Numbers around 0; no random ones, which would move the training's."""
    count = torch.Size(size).numel()
    with torch.inference_mode(False):
        numbers = torch.linspace(0, count, count, device=device).sin_().view(size)
        return numbers.requires_grad_()
