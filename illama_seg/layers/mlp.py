"""The feed-forward network of the plain ViT."""

from torch import Tensor, nn
from torch.nn import functional as F

from illama_seg.layers.linear_layer import Linear

MLP_RATIO = 4


class MLP(nn.Module):
    """``fc2(gelu(fc1 x))`` with biases (arXiv 2010.11929), as timm names it.

    Args:
        embed_dims: channels of input and output.
        hidden_dims: channels between them.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = Linear(embed_dims, hidden_dims)
        self.fc2 = Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., embed_dims)."""
        return self.fc2(F.gelu(self.fc1(x)))
