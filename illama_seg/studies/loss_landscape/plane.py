"""Plane through a model's weights along two filter-normalised random directions.

Li et al., 'Visualizing the Loss Landscape of Neural Nets', arXiv 1712.09913: each
filter of a direction has the norm of the corresponding filter of the weights, so that
models with weights of different scale can be compared.
"""

import hashlib

import torch
from torch import Tensor, nn


def random_direction(
    weights: dict[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw a direction and scale its filters.

    A filter is a slice along the first dimension of a weight: an output channel of a
    convolution or a neuron of a linear layer; positional embedding and class token are
    one filter each. Biases and norms, which have one dimension, do not move. The
    generator is one of the CPU.
    """
    direction = {}
    for name, weight in weights.items():
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        if weight.ndim < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        length, target = drawn.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1)
        scale = target / length.clamp(min=1e-10)
        direction[name] = drawn * scale.view(-1, *[1] * (weight.ndim - 1))
    return direction


class WeightPlane:
    """Context that moves a model's weights over a plane and restores them at its end.

    The plane is weights + x * first direction + y * second one, both from one seed.
    Statistics of batch normalisation do not move: the model must be in eval mode.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._parameters = dict(model.named_parameters())
        self._weights = {n: p.detach().clone() for n, p in self._parameters.items()}
        self.directions = [random_direction(self._weights, generator) for _ in range(2)]

    @torch.no_grad()
    def move(self, x: float, y: float) -> None:
        """Set the weights to a point of the plane; (0, 0) is the original point."""
        first, second = self.directions
        for name, parameter in self._parameters.items():
            moved = self._weights[name] + x * first[name] + y * second[name]
            parameter.copy_(moved)

    def __enter__(self) -> 'WeightPlane':
        return self

    def __exit__(self, *error: object) -> None:
        with torch.no_grad():  # move(0, 0) would make nan of infinite directions
            for name, parameter in self._parameters.items():
                parameter.copy_(self._weights[name])


def weights_digest(model: nn.Module) -> str:
    """Return the first 16 digits of a sha256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
