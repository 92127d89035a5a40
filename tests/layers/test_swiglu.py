import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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


def test_gradients_are_those_of_the_formula():
    mlp = SwiGLU(6, 10).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 5, 6, dtype=torch.float64)
    gate, up = x @ mlp.fc1.weight.T, x @ mlp.fc3.weight.T
    expected = (gate * torch.sigmoid(gate) * up) @ mlp.fc2.weight.T
    leaves = [x, *mlp.parameters()]
    wanted = torch.autograd.grad(expected, leaves, grad)
    found = torch.autograd.grad(mlp(x), leaves, grad)
    torch.testing.assert_close(found, wanted)
    assert torch.autograd.gradcheck(mlp, x, fast_mode=True)


def test_training_keeps_two_hidden_tensors_and_makes_no_product_again():
    mlp, x = SwiGLU(6, 10), torch.randn(2, 5, 6, requires_grad=True)
    kept = []

    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func in (torch.ops.aten.mm.default,)
            return func(*args, **kwargs or {})

    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        out = mlp(x)
    assert kept.count(2 * 5 * 10) == 2  # gate and up
    with Products() as products:
        out.sum().backward()
    assert products.count == 6  # two for each of the three matrices


def test_hooks_of_every_matrix_are_called_in_training():
    mlp, called = SwiGLU(6, 10), []
    for name, module in mlp.named_children():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    mlp(torch.randn(2, 5, 6, requires_grad=True))
    assert sorted(called) == ['fc1', 'fc2', 'fc3']


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_trains_in_its_dtype_with_gradients_in_float32(dtype):
    mlp, x = SwiGLU(6, 10), torch.randn(2, 5, 6, requires_grad=True)
    with torch.autocast('cpu', dtype):
        out = mlp(x)
    assert out.dtype == dtype
    out.float().square().sum().backward()
    found = [leaf.grad for leaf in (x, *mlp.parameters())]
    leaves = [x, *mlp.parameters()]
    wanted = torch.autograd.grad(mlp(x).square().sum(), leaves)
    for ours, exact in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - exact).norm() < 8 * torch.finfo(dtype).eps * exact.norm()
