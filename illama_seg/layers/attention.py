"""Causal self-attention of iLLaMA: the soft mask and the strict one.

Shape letters, here and in the attention_*.py files:
    B batch   h heads   N tokens   d channels of a head
    i query row, j key column   a the soft mask rate
    P softmax(q k^T / sqrt d)   S the soft mask   O output   L log-sum-exp of a row

arXiv 2404.06773, 'Adapting LLaMA Decoder to Vision Transformer', Eq. 1-2.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from illama_seg.errors import UserError
from illama_seg.layers.attention_dispatch import (
    IMPLEMENTATIONS,
    automatic_implementation,
)
from illama_seg.layers.attention_op import rate_value

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
_MORE_CHANNELS = 8  # flash kernels take multiples of it


def soft_causal_attention(
    q: Tensor, k: Tensor, v: Tensor, soft_mask_rate: float | Tensor, impl: str = 'auto'
) -> Tensor:
    """Attention whose future weights are scaled by a after the softmax, Eq. 2.

    O = (softmax(q k^T / sqrt d) * S) v, element by element by the mask S:
    S_ij = 1 for j <= i and a for j > i: a = 0 is what the released models compute,
    a = 1 is bidirectional. The denominator always runs over all keys.

    Args:
        q, k, v: (B, h, N, d), any strides.
        soft_mask_rate: a in [0, 1]. Under torch.compile pass a 0-dim tensor on the
            CPU: its value may change without a recompilation.
        impl: 'auto' for the fastest one here, see `automatic_implementation`, or a
            name of `available_implementations`.

    Returns:
        (B, h, N, d), stored as (B, N, h, d) by all but the reference.
    """
    q, k, v = _one_dtype(q, k, v)
    if impl == 'auto':
        b, h, n, d = q.shape
        kind = q.device.type, q.dtype, d
        impl = automatic_implementation(
            *kind, num_tokens=n, num_heads=b * h, training=q.requires_grad
        ).name
    elif impl not in IMPLEMENTATIONS:
        names = ', '.join(['auto', *IMPLEMENTATIONS])
        raise UserError(f'unknown attention {impl!r}; known: {names}')
    if not isinstance(soft_mask_rate, Tensor):
        rate_value(soft_mask_rate)
        rate = torch.tensor(soft_mask_rate, dtype=torch.float64, device='cpu')
    elif soft_mask_rate.requires_grad:
        raise UserError('soft_mask_rate is a schedule: it gets no gradient')
    else:
        rate = soft_mask_rate
        if not torch.compiler.is_compiling():
            rate_value(rate)
    return IMPLEMENTATIONS[impl](q, k, v, rate)


def renormalised_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    soft_mask_rate: float | Tensor,
    soft_mask_norm: float | Tensor,
    impl: str = 'auto',
) -> Tensor:
    """Attention between Eq. 2 and Eq. 1: rows divided by a power b of their sums.

    O = sum_j S_ij P_ij v_j / (sum_j S_ij P_ij)^b, with P and S of
    :func:`soft_causal_attention`. b = 0 is Eq. 2; a = 0 and b = 1 is Eq. 1, LLaMA's
    own; with a = 1 all sums are one, and b does nothing. The sums are the output for
    values of one, in more channels: exact, also in the gradients, in O(N) memory.
    Computed in float32 or wider: sums of rows that see little would vanish in half
    precision.

    Args:
        q, k, v, soft_mask_rate, impl: see :func:`soft_causal_attention`.
        soft_mask_norm: b in [0, 1].

    Returns:
        (B, h, N, d).
    """
    dims, dtype = q.shape[-1], v.dtype
    q, k, v = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v))
    wide = dims + _MORE_CHANNELS
    ones = v.new_zeros(*v.shape[:-1], _MORE_CHANNELS)
    ones[..., 0] = 1
    more = (0, _MORE_CHANNELS)
    q = F.pad(q * (wide / dims) ** 0.5, more)  # they scale by their own width
    with torch.autocast(q.device.type, enabled=False):
        out = soft_causal_attention(
            q, F.pad(k, more), torch.cat([v, ones], dim=-1), soft_mask_rate, impl
        )
    sums = out[..., dims : dims + 1]
    # The square of a smaller one would be zero in the gradient.
    sums = sums.clamp_min(torch.finfo(sums.dtype).tiny ** 0.5)
    power = -torch.as_tensor(soft_mask_norm, dtype=sums.dtype)
    return (out[..., :dims] * sums**power).to(dtype)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Strict causal attention, Eq. 1: the future is masked before the softmax.

    The denominator of a row ends at its own token, so no output depends on a later
    token. The released models use the soft mask instead. (B, h, N, d) each, and
    returned.
    """
    return F.scaled_dot_product_attention(*_one_dtype(q, k, v), is_causal=True)


def modified_causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Strict causal attention but for the first token, which sees all of them.

    The modified causal mask of arXiv 2404.06773 (Table 17, step 5b): what a class
    token at the start needs. (B, h, N, d) each, and returned.
    """
    q, k, v = _one_dtype(q, k, v)
    first = F.scaled_dot_product_attention(q[:, :, :1], k, v)
    causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return torch.cat([first, causal[:, :, 1:]], dim=2)


def bidirectional_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """No mask, the plain ViT's. (B, h, N, d) each, and returned."""
    return F.scaled_dot_product_attention(*_one_dtype(q, k, v))


def masked_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Attention of some rows by a mask of their own.

    Args:
        q: (B, h, n, d).
        k, v: (B, h, N, d).
        seen: (n, N) bool, the keys that each row sees.

    Returns:
        (B, h, n, d).
    """
    q, k, v = _autocast(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def query_attention(
    q: Tensor, k: Tensor, v: Tensor, image_k: Tensor, image_v: Tensor
) -> Tensor:
    """Attention of queries that see an image and themselves, but not each other.

    That is the class token's row of Eq. 1 and of Eq. 2, which hide nothing from the
    last token, for each query alone.

    Args:
        q, k, v: (B, h, K, d) of the queries.
        image_k, image_v: (B, h, N, d) of the image.

    Returns:
        (B, h, K, d).
    """
    q, k, v, image_k, image_v = _autocast(q, k, v, image_k, image_v)
    q = q * q.shape[-1] ** -0.5
    own = (q * k).sum(-1, keepdim=True)
    scores = torch.cat([q @ image_k.transpose(-2, -1), own], dim=-1)
    weights = scores.softmax(-1).to(v.dtype)
    return weights[..., :-1] @ image_v + weights[..., -1:] * v


def attention_map(attend: Attend, q: Tensor, k: Tensor) -> Tensor:
    """Weights of the values in an attention, whichever implementation it is.

    Runs the attention with the identity matrix as values: its output is the matrix of
    the weights.

    Args:
        attend: (q, k, v), (B, h, N, d) each -> (B, h, N, d).
        q, k: (B, h, N, d).

    Returns:
        (B, h, N, N): row i has the weights of output i, after any mask.
    """
    n, d = q.shape[2:]
    columns = []
    for part in torch.eye(n, dtype=q.dtype, device=q.device).split(d, dim=1):
        width = part.shape[1]
        v = F.pad(part, (0, d - width)).expand(q.shape)
        columns.append(attend(q, k, v)[..., :width])
    return torch.cat(columns, dim=-1)


def _one_dtype(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check three tensors of one shape, and cast them under autocast."""
    if not q.shape == k.shape == v.shape:
        raise UserError(
            f'self-attention: q {tuple(q.shape)}, k {tuple(k.shape)} and '
            f'v {tuple(v.shape)} must have one shape'
        )
    return _autocast(q, k, v)


def _autocast(*tensors: Tensor) -> Any:
    """Cast float32 inputs as autocast does for torch's own operators."""
    device, dtype = tensors[0].device.type, tensors[0].dtype
    autocasts = torch.amp.is_autocast_available(device)  # not so on meta
    if autocasts and torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        return tuple(tensor.to(dtype) for tensor in tensors)
    return tensors
