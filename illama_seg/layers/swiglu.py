"""The LLaMA feed-forward network."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def swiglu_hidden_dims(embed_dims: int) -> int:
    """Hidden width of the released models: 8/3 of the width, rounded up to 256."""
    return -(-int(2 * (4 * embed_dims) / 3) // 256) * 256


class SwiGLU(nn.Module):
    """``fc2(silu(fc1 x) * fc3 x)``, three matrices without bias (arXiv 2002.05202).

    The released names fc1, fc3, fc2 are LLaMA's gate, up and down projections.

    Args:
        embed_dims: channels of input and output.
        hidden_dims: channels between them.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims, bias=False)
        self.fc2 = nn.Linear(hidden_dims, embed_dims, bias=False)
        self.fc3 = nn.Linear(embed_dims, hidden_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., embed_dims)."""
        gate, up = self.fc1(x), self.fc3(x)
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return self.fc2(F.silu(gate) * up)
        # Autocast does not look into a function of our own.
        return _GatedLinear.apply(gate, up, self.fc2.weight.to(gate.dtype))


class _GatedLinear(torch.autograd.Function):
    """``(silu(gate) * up) @ weight^T`` that keeps gate and up only.

    Autograd would keep silu(gate) and the product as well, a third of a block's
    activations; compilers see to it themselves. (..., H), (..., H), (C, H) -> (..., C).
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return F.linear(F.silu(gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gate, up, weight = ctx.saved_tensors
        silu, grad_hidden = F.silu(gate), grad @ weight
        grad_gate = torch.ops.aten.silu_backward(grad_hidden * up, gate)
        grad_up = grad_hidden.mul_(silu)
        hidden = silu.mul_(up).flatten(0, -2)
        return grad_gate, grad_up, grad.flatten(0, -2).mT @ hidden
