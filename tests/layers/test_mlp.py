import math

import torch

from illama_seg.layers import MLP


def test_mlp_is_two_matrices_with_biases_around_the_exact_gelu():
    mlp = MLP(6, 10).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    torch.testing.assert_close(mlp(x), hidden @ mlp.fc2.weight.T + mlp.fc2.bias)
