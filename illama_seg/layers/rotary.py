"""Rotary position embedding over the token sequence, in real arithmetic."""

import functools

import torch
from torch import Tensor

from illama_seg.errors import UserError


def rotary_table(
    num_tokens: int,
    head_dim: int,
    device: torch.device | str = 'cpu',
    first: int = 0,
) -> Tensor:
    """Cosines and sines of the rotation angles, kept for the next call of this size.

    Position n turns channel pair i by ``n * 10000 ** (-2 i / head_dim)`` radians
    (RoFormer, arXiv 2104.09864).

    Args:
        num_tokens: number of tokens.
        head_dim: channels of a head.
        device: of the table.
        first: position of the first token.

    Returns:
        (num_tokens, head_dim / 2, 2) in float32: cosine and sine of each.

    Raises:
        UserError: if ``head_dim`` is odd.
    """
    if head_dim % 2:
        raise UserError(f'rotary embedding needs an even head_dim, got {head_dim}')
    if torch.compiler.is_compiling():
        return _make_table(num_tokens, head_dim, device, first)
    return _kept_table(num_tokens, head_dim, device, first)


def _make_table(
    num_tokens: int, head_dim: int, device: torch.device | str, first: int
) -> Tensor:
    channels = torch.arange(0, head_dim, 2, device=device).float()
    frequencies = 10000.0 ** (-channels / head_dim)
    positions = torch.arange(first, first + num_tokens, device=device).float()
    angles = positions[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


# Not a buffer of the model: averaged copies of a model (EMA) need buffers of one size.
@functools.lru_cache(maxsize=32)
def _kept_table(
    num_tokens: int, head_dim: int, device: torch.device | str, first: int
) -> Tensor:
    # It serves calls that may train: no inference tensor, then.
    with torch.inference_mode(False):
        return _make_table(num_tokens, head_dim, device, first)


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the channel pairs of queries or keys.

    The pairs are adjacent channels (2i, 2i + 1), as in Meta's LLaMA; Hugging Face's
    port pairs channel i with i + d / 2 instead, which is another function.

    Args:
        x: (..., N, d).
        table: (N, d / 2, 2) from :func:`rotary_table`.

    Returns:
        (..., N, d) in the dtype of ``x``; the products are taken in float32 or wider.
    """
    wide = torch.promote_types(x.dtype, table.dtype)
    pairs, table = x.to(wide).unflatten(-1, (-1, 2)), table.to(wide)
    if _are_complex_numbers(pairs):
        turned = torch.view_as_complex(pairs) * torch.view_as_complex(table)
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)
    (even, odd), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _are_complex_numbers(pairs: Tensor) -> bool:
    """Return True if one complex product can replace the six strided passes.

    It computes the same products and sums in less than half the time. Compilers fuse
    the six passes and do not know complex numbers.
    """
    if torch.compiler.is_compiling() or pairs.device.type not in ('cpu', 'cuda'):
        return False
    *steps, last = *pairs.stride()[:-1], pairs.storage_offset(), pairs.stride(-1)
    return last == 1 and all(step % 2 == 0 for step in steps)
