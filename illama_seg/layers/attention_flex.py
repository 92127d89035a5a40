"""Soft-masked attention by FlexAttention: by name, and where nothing faster runs.

Two calls with log-sum-exp, differentiated by torch:
O = a O_f + (1 - a) exp(L_c - L_f) O_c, f for all keys and c for the past ones.
Compiled on CUDA. On a CPU torch has no gradient for it, and it is not compiled.
"""

import functools

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex


def _is_past(b, h, i, j):
    return i >= j


@functools.cache
def _attention_and_mask(n: int, device: torch.device):
    mask = flex.create_block_mask(_is_past, None, None, n, n, device=str(device))
    if device.type != 'cuda':
        return flex.flex_attention, mask
    return torch.compile(flex.flex_attention, dynamic=False), mask


def flex_attention(q: Tensor, k: Tensor, v: Tensor, rate: Tensor) -> Tensor:
    """(B, h, N, d) each, and returned."""
    attend, past = _attention_and_mask(q.shape[2], q.device)
    wanted = flex.AuxRequest(lse=True)
    out, aux = attend(q, k, v, return_aux=wanted)
    past_out, past_aux = attend(q, k, v, block_mask=past, return_aux=wanted)
    rate = rate.to(q.device, torch.float32)
    weight = (1 - rate) * (past_aux.lse - aux.lse).exp()
    return (rate * out + weight[..., None] * past_out).to(q.dtype)
