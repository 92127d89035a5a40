import pytest
import torch

from illama_seg.layers import SwiGLU, swiglu_hidden_dims


@pytest.mark.parametrize(
    ('embed_dims', 'hidden_dims'),
    [(48, 256), (192, 512), (384, 1024), (768, 2048), (1024, 2816)],
)
def test_hidden_width_is_that_of_the_released_models(embed_dims, hidden_dims):
    assert swiglu_hidden_dims(embed_dims) == hidden_dims


def test_swiglu_is_down_of_silu_gate_times_up():
    mlp = SwiGLU(6, 10).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    gate, down, up = mlp.fc1.weight, mlp.fc2.weight, mlp.fc3.weight
    gated = torch.einsum('hc,bnc->bnh', gate, x)
    gated = gated / (1 + torch.exp(-gated)) * torch.einsum('hc,bnc->bnh', up, x)
    expected = torch.einsum('ch,bnh->bnc', down, gated)
    torch.testing.assert_close(mlp(x), expected)


def test_swiglu_has_three_matrices_without_bias():
    shapes = {name: tuple(p.shape) for name, p in SwiGLU(6, 10).named_parameters()}
    assert shapes == {
        'fc1.weight': (10, 6),
        'fc2.weight': (6, 10),
        'fc3.weight': (10, 6),
    }
