"""The LLaMA feed-forward network."""

from torch import Tensor, nn
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
        return self.fc2(F.silu(self.fc1(x)) * self.fc3(x))
