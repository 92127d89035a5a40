"""The LLaMA feed-forward network."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from illama_seg.layers.linear_layer import Linear


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
        self.fc1 = Linear(embed_dims, hidden_dims, bias=False)
        self.fc2 = Linear(hidden_dims, embed_dims, bias=False)
        self.fc3 = Linear(embed_dims, hidden_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., embed_dims)."""
        gate, up = self.fc1(x), self.fc3(x)
        if torch.compiler.is_compiling() or not gate.requires_grad:
            return self._down(gate, up)
        # Autograd would keep silu(gate) and the product as well, a quarter of a block's
        # activations; checkpoint makes them again, and stops before the matrix product.
        return checkpoint(
            self._down, gate, up, use_reentrant=False, preserve_rng_state=False
        )

    def _down(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.fc2(F.silu(gate) * up)
