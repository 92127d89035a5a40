"""Causal self-attention of iLLaMA: the soft mask and the strict one.

Shape letters, here and in the attention_*.py files:
    B batch   h heads   N tokens   d channels of a head
    i query row, j key column   a the soft mask rate
    P softmax(q k^T / sqrt d)   S the soft mask   O output   L log-sum-exp of a row

arXiv 2404.06773, 'Adapting LLaMA Decoder to Vision Transformer', Eq. 1-2.
"""

import functools
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from illama_seg.layers.attention_blocked import blocked_attention
from illama_seg.layers.attention_flash import flash_attention
from illama_seg.layers.attention_flex import flex_attention
from illama_seg.layers.attention_op import rate_value

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def reference_attention(q: Tensor, k: Tensor, v: Tensor, rate: Tensor) -> Tensor:
    """(softmax(q k^T / sqrt d) * S) v by the formula, with an N x N matrix."""
    n = q.shape[2]
    past = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    rate = rate.to(q.device, q.dtype)
    mask = torch.where(past, torch.ones_like(rate), rate)
    weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    # Not renormalised: the mask multiplies the softmax, rows need not sum to one.
    return (weights * mask) @ v


def _first(op: Callable) -> Callable:
    return lambda *args: op(*args)[0]


IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    'reference': reference_attention,
    'blocked': _first(blocked_attention),
    'flash': _first(flash_attention),
    'flex': flex_attention,
}
if importlib.util.find_spec('triton'):
    from illama_seg.layers.attention_triton import triton_attention

    IMPLEMENTATIONS['triton'] = _first(triton_attention)


def soft_causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    soft_mask_rate: float | Tensor,
    impl: str = 'auto',
) -> Tensor:
    """Attention whose future weights are scaled by a after the softmax, Eq. 2.

    S_ij = 1 for j <= i and a for j > i: a = 0 is what the released models compute,
    a = 1 is bidirectional. The denominator always runs over all keys.

    Args:
        q, k, v: (B, h, N, d), any strides.
        soft_mask_rate: a in [0, 1]. Under torch.compile pass a 0-dim tensor on the
            CPU: its value may change without a recompilation.
        impl: 'auto' or a name of `available_implementations`.

    Returns:
        (B, h, N, d), stored as (B, N, h, d) by all but the reference.
    """
    q, k, v = _one_dtype(q, k, v)
    if impl == 'auto':
        impl = _automatic(q)
    elif impl not in IMPLEMENTATIONS:
        names = ', '.join(['auto', *IMPLEMENTATIONS])
        raise ValueError(f'unknown attention {impl!r}; known: {names}')
    if not isinstance(soft_mask_rate, Tensor):
        rate_value(soft_mask_rate)
        rate = torch.tensor(soft_mask_rate, dtype=torch.float64, device='cpu')
    elif soft_mask_rate.requires_grad:
        raise ValueError('soft_mask_rate is a schedule: it gets no gradient')
    else:
        rate = soft_mask_rate
        if not torch.compiler.is_compiling():
            rate_value(rate)
    return IMPLEMENTATIONS[impl](q, k, v, rate)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Strict causal attention, Eq. 1: the future is masked before the softmax.

    Not what the released models compute: a row's denominator ends at its own token, so
    no output depends on a later token at all. (B, h, N, d) each, and returned.
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


def attention_map(attend: Attend, q: Tensor, k: Tensor) -> Tensor:
    """Weights of the values in an attention, whichever implementation it is.

    Outputs are linear in the values: for columns of the identity they are those columns
    of the weights. So the map is what the attention computes, not what a second formula
    says that it should.

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


# On a CPU, training in half precision up to these tokens is faster with the N x N
# matrices kept than made again: measured even at 1025, a sixth of an iteration at 521.
SHORT = 768
# Tried in this order: measured on a CPU (benchmarks/attention.py), not yet on a GPU.
PREFERENCE = {
    'cpu': ('blocked', 'flash', 'reference'),
    'cuda': ('flash', 'triton', 'flex', 'reference'),
}


def _automatic(q: Tensor) -> str:
    kind = q.device.type, q.dtype, q.shape[-1]
    return automatic_implementation(*kind, q.shape[2], q.requires_grad)


def automatic_implementation(
    device: str, dtype: torch.dtype, head_dim: int, num_tokens: int, training: bool
) -> str:
    """Name of what 'auto' takes on a type of device, for q of (B, h, N, d)."""
    half = device == 'cpu' and dtype.itemsize == 2
    if half and training and num_tokens <= SHORT:
        return 'reference'
    return _best(device, dtype, head_dim)


@torch.compiler.assume_constant_result
def _best(device: str, dtype: torch.dtype, head_dim: int) -> str:
    names = PREFERENCE.get(device, ('reference',))
    return next(name for name in names if _works(name, device, dtype, head_dim))


def available_implementations(
    device: str, dtype: torch.dtype, head_dim: int
) -> tuple[str, ...]:
    """Names of what works here; 'auto' is the first of them."""
    device = torch.device(device).type
    names = PREFERENCE.get(device, ('reference',))
    return tuple(name for name in names if _works(name, device, dtype, head_dim))


@functools.cache
def _works(name: str, device: str, dtype: torch.dtype, head_dim: int) -> bool:
    """Tried once: some of the kernels are semi-private."""
    if name not in IMPLEMENTATIONS or name == 'reference':
        return name in IMPLEMENTATIONS
    # Modes are per thread: in a fresh one neither fake tensors (torch.export),
    # inference mode nor autocast reach the trial.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_gives_the_formula, name, device, dtype, head_dim).result()


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


def _one_dtype(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What autocast does for its own operators, for callers with float32 inputs."""
    if not q.shape == k.shape == v.shape:
        raise ValueError(
            f'self-attention: q {tuple(q.shape)}, k {tuple(k.shape)} and '
            f'v {tuple(v.shape)} must have one shape'
        )
    device = q.device.type
    autocasts = torch.amp.is_autocast_available(device)  # not so on meta
    if autocasts and torch.is_autocast_enabled(device) and q.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    return q, k, v
