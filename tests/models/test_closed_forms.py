import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx

from ocp_dc.models.closed_forms import BatchNorm1d, gated_softplus, silu

INPUT = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def plain_gated_softplus(x):
    gate, core = x.chunk(2, dim=1)
    return gate.sigmoid() * F.softplus(core)


@pytest.mark.parametrize(
    ("ours", "pytorchs"), [(silu, F.silu), (gated_softplus, plain_gated_softplus)], ids=["silu", "gated_softplus"]
)
class TestOfOneInput:
    def test_values_and_derivatives(self, ours, pytorchs):
        results = []
        for function in (ours, pytorchs):
            x = INPUT.clone().requires_grad_()
            y = function(x)
            (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
            (curvature,) = torch.autograd.grad(slope.sin().sum() + y.sum(), x)
            results.append((y, slope, curvature))
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)

    def test_against_differences(self, ours, pytorchs):
        x = INPUT.clone().requires_grad_()
        assert gradcheck(ours, x)
        assert gradgradcheck(ours, x)

    def test_can_be_traced(self, ours, pytorchs):
        def second(x):
            (slope,) = torch.autograd.grad(ours(x).sum(), x, create_graph=True)
            return torch.autograd.grad(slope.square().sum(), x)[0]

        traced = make_fx(second)(torch.zeros_like(INPUT).requires_grad_())
        torch.testing.assert_close(traced(INPUT), second(INPUT.clone().requires_grad_()), rtol=1e-12, atol=1e-15)


def test_silu_has_higher_derivatives():
    x = INPUT.clone().requires_grad_()
    ours, pytorchs = silu(x), F.silu(x)
    for _ in range(4):
        ours, pytorchs = (torch.autograd.grad(y.sum(), x, create_graph=True)[0] for y in (ours, pytorchs))
        torch.testing.assert_close(ours, pytorchs)


def test_others_refuse_a_third_derivative():
    x = INPUT.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gated_softplus(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        curvature.square().sum().backward()


def norms():
    """Ours and PyTorch's, alike."""
    pytorchs = nn.BatchNorm1d(6).double()
    for tensor in (pytorchs.weight.data, pytorchs.bias.data, pytorchs.running_mean):
        tensor.normal_(generator=torch.Generator().manual_seed(1))
    ours = BatchNorm1d(6).double()
    ours.load_state_dict(pytorchs.state_dict(), strict=True)
    return ours, pytorchs


def through(norm, x):
    """Values, the slope of a function of them, and gradients of a loss on both."""
    x = x.clone().requires_grad_()
    y = norm(x)
    slope, of_weight = torch.autograd.grad(y.sin().sum(), [x, norm.weight], create_graph=True)
    loss = y.square().sum() + slope.square().sum() + of_weight.square().sum()
    return y, slope, of_weight, *torch.autograd.grad(loss, [x, norm.weight, norm.bias])


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_pytorchs(training):
    ours, pytorchs = (norm.train(training) for norm in norms())
    for scale in (1, 3):
        torch.testing.assert_close(
            through(ours, scale * INPUT), through(pytorchs, scale * INPUT), rtol=1e-11, atol=1e-11
        )
    assert ours.state_dict().keys() == pytorchs.state_dict().keys()
    torch.testing.assert_close(ours.state_dict(), pytorchs.state_dict(), rtol=1e-13, atol=1e-13)
    assert ours.num_batches_tracked == 2 * training


def test_batch_norm_against_differences():
    norm = norms()[0].train()

    def function(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x)

    inputs = (INPUT.clone().requires_grad_(), norm.weight, norm.bias)
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_batch_norm_of_one_row_is_refused_as_pytorchs():
    for norm in norms():
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            norm.train()(INPUT[:1])
