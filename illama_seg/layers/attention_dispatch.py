"""Implementations of the soft mask's attention, and which of them is fastest here.

'auto' times those that work on a device, once for each class of shapes: dtype, width of
a head, number of tokens, number of heads in the batch, inference or training. What wins
depends on the processor, so nothing is taken for granted but correctness. Shape
letters: attention.py.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from illama_seg.errors import UserError
from illama_seg.layers.attention_blocked import blocked_attention
from illama_seg.layers.attention_flash import flash_attention
from illama_seg.layers.attention_reference import reference_attention
from illama_seg.machine.choices import (
    Choice,
    apart,
    decide,
    fastest_times,
    noted,
)

Implementation = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
# 'auto', 'fixed' (no measurement), or the name of an implementation.
VARIABLE = 'ILLAMA_SEG_ATTENTION'


class _Case(NamedTuple):
    """Class of shapes for which one implementation is chosen."""

    device: str
    dtype: torch.dtype
    head_dim: int
    tokens: int
    heads: int
    training: bool

    @property
    def key(self) -> str:
        """Name of the choice in the file of measurements."""
        return (
            f'attention: {self.device}, {str(self.dtype)[6:]}, {self.tokens} tokens, '
            f'{self.heads} heads of {self.head_dim}, '
            f'{"training" if self.training else "inference"}'
        )


def _first(op: Callable) -> Callable:
    return lambda *args: op(*args)[0]


IMPLEMENTATIONS: dict[str, Implementation] = {
    'reference': reference_attention,
    'blocked': _first(blocked_attention),
    'flash': _first(flash_attention),
}
if importlib.util.find_spec('triton'):
    from illama_seg.layers.attention_triton import triton_attention

    IMPLEMENTATIONS['triton'] = _first(triton_attention)

# Device -> what may work there. The first that does is taken where nothing may be
# measured.
ON_DEVICE = {
    'cpu': ('blocked', 'flash', 'reference'),
    'cuda': ('flash', 'triton', 'reference'),
}
# Its kernels take seconds to compile before they can be timed.
BY_NAME_ONLY = ('triton',)
MAX_TOKENS, MAX_SCORES = 4096, 2**24  # bounds of what is timed
# Tokens up to which the formula takes part, at inference and in training. It has all
# its scores in memory at once, and a training keeps them of every layer.
MAX_REFERENCE = (2048, 512)


def check_asked() -> None:
    """Refuse a name in ``ILLAMA_SEG_ATTENTION`` that nothing on this machine has.

    Raises:
        UserError: names the variable, the value and those expected.
    """
    devices = ['cpu', *['cuda'] * torch.cuda.is_available()]
    known = {name: None for device in devices for name in ON_DEVICE[device]}
    names = ('auto', 'fixed', *(name for name in known if name in IMPLEMENTATIONS))
    if _asked() not in names:
        raise UserError(f'{VARIABLE}={_asked()!r}: expected one of {", ".join(names)}')


def available_implementations(
    device: str, dtype: torch.dtype, head_dim: int
) -> tuple[str, ...]:
    """Names of the implementations that work on a device, by a trial of each.

    Args:
        device: such as 'cpu' or 'cuda:0'.
        dtype: of q, k and v.
        head_dim: d.
    """
    device = torch.device(device).type
    names = ON_DEVICE.get(device, ('reference',))
    return tuple(name for name in names if _works(name, device, dtype, head_dim))


def automatic_implementation(
    device: str,
    dtype: torch.dtype,
    head_dim: int,
    *,
    num_tokens: int,
    num_heads: int,
    training: bool,
) -> Choice:
    """Implementation that 'auto' takes, and why.

    The environment's ``ILLAMA_SEG_ATTENTION`` decides, then a resumed run's choice,
    then a measurement. While torch compiles or exports, and where the variable is
    'fixed', nothing is measured.

    Args:
        device: type of the device.
        dtype: of q, k and v.
        head_dim: d.
        num_tokens: N.
        num_heads: heads of all images of the batch, B h.
        training: whether a gradient will be needed.

    Raises:
        UserError: the variable names no implementation that works here.
    """
    kind = device, dtype, head_dim
    asked, compiling = _asked(), torch.compiler.is_compiling()
    case = None
    if not compiling:
        case = _Case(*kind, *_rounded(num_tokens, num_heads), training)
    if torch.compiler.is_exporting():  # an exported graph has operators of ATen alone
        choice = Choice('reference', {}, 'exported')
    elif asked not in ('auto', 'fixed'):
        choice = Choice(_checked(asked, *kind), {}, f'by {VARIABLE}')
    elif asked == 'fixed' or case is None or device not in ON_DEVICE:
        choice = Choice(_fixed(*kind), {}, 'fixed')
    else:
        choice = _measured(case)
    return noted(case.key, choice) if case else choice


def _measured(case: _Case) -> Choice:
    """Fastest implementation for a class of shapes, timed at its first use.

    Of long sequences fewer heads are timed, so that a measurement takes a fraction of a
    second and at most some hundred MiB.
    """
    names = _candidates(*case[:4], case.training)
    fixed = _fixed(*case[:3])
    return decide(case.key, case.device, names, fixed, lambda: _times(names, case))


def _rounded(num_tokens: int, num_heads: int) -> tuple[int, int]:
    """Nearest powers of two, in their logarithm, within the bounds of what is timed."""
    tokens, heads = (
        1 << max(0, round(math.log2(max(1, n)))) for n in (num_tokens, num_heads)
    )
    tokens = min(tokens, MAX_TOKENS)
    return tokens, min(heads, max(1, MAX_SCORES // tokens**2))


@functools.cache
def _candidates(device, dtype, head_dim, tokens, training) -> tuple[str, ...]:
    names = available_implementations(device, dtype, head_dim)
    timed = tuple(name for name in names if name not in BY_NAME_ONLY)
    if tokens > MAX_REFERENCE[training]:
        timed = tuple(name for name in timed if name != 'reference') or timed
    return timed or names


def _times(names: Sequence[str], case: _Case) -> dict[str, float]:
    """Time the implementations on one input, stored as a fused projection's."""
    device, dtype, head_dim, tokens, heads, training = case
    size = 1, tokens, 3, heads, head_dim
    count = math.prod(size)
    # No random numbers, which would move the training's.
    qkv = torch.linspace(0, count, count, device=device).sin_().to(dtype).view(size)
    qkv.requires_grad_(training)
    grad = qkv.detach()[:, :, 0].transpose(1, 2)
    rate = torch.zeros((), dtype=torch.float64)

    def run(implementation: Implementation) -> None:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = implementation(q, k, v, rate)
        if training:
            torch.autograd.grad(out, qkv, grad)
        if device == 'cuda':
            torch.cuda.synchronize()

    calls = {name: functools.partial(run, IMPLEMENTATIONS[name]) for name in names}
    return fastest_times(calls)


@torch.compiler.assume_constant_result
def _asked() -> str:
    return os.environ.get(VARIABLE) or 'auto'


@torch.compiler.assume_constant_result
def _fixed(device: str, dtype: torch.dtype, head_dim: int) -> str:
    names = ON_DEVICE.get(device, ('reference',))
    return next(name for name in names if _works(name, device, dtype, head_dim))


@torch.compiler.assume_constant_result
def _checked(name: str, device: str, dtype: torch.dtype, head_dim: int) -> str:
    if not _works(name, device, dtype, head_dim):
        names = available_implementations(device, dtype, head_dim)
        raise UserError(
            f'{VARIABLE}={name}: no implementation of the attention that works on '
            f'{device} in {str(dtype)[6:]}; expected one of '
            f'{", ".join(("auto", "fixed", *names))}'
        )
    return name


@functools.cache
def _works(name: str, device: str, dtype: torch.dtype, head_dim: int) -> bool:
    """Tried once: some of the kernels are semi-private."""
    if name == 'reference':
        return True
    if name not in IMPLEMENTATIONS or name not in ON_DEVICE.get(device, ()):
        return False
    return apart(lambda: _gives_the_formula(name, device, dtype, head_dim))


def _gives_the_formula(name: str, device: str, dtype: torch.dtype, d: int) -> bool:
    rate = torch.tensor(0.25, dtype=torch.float64)
    qkv = torch.linspace(-1, 1, 3 * 2 * 5 * d, device=device).sin().to(dtype)

    def run(implementation: Callable) -> Tensor:
        leaf = qkv.clone().requires_grad_()
        out = implementation(*leaf.view(3, 1, 2, 5, d).unbind(0), rate)
        (grad,) = torch.autograd.grad((out * out.detach()).sum(), leaf)
        return torch.cat([out.flatten(), grad]).float()

    try:
        found = run(IMPLEMENTATIONS[name])
    except Exception:
        return False
    return torch.allclose(found, run(reference_attention), rtol=0.1, atol=0.1)
