import pytest
import torch
from fairchem.core.models.gemnet.layers.base_layers import ScaledSiLU
from torch import nn
from torch.autograd.functional import jacobian
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import silu, softplus

from ocp_dc.models.closed_form import SILU, ClosedFormSiLU, gated_softplus, use_closed_form_silu

SCALES = [1.0, 1 / 0.6]
EVERYWHERE = torch.cat([torch.linspace(-6, 6, 25), torch.tensor([-300.0, -40.0, 0.0, 40.0, 300.0])]).double()


@pytest.mark.parametrize("scale", SCALES)
def test_value_and_three_derivatives(scale):
    ours, autograds = ClosedFormSiLU(scale), lambda x: scale * silu(x)
    for _ in range(4):
        torch.testing.assert_close(ours(EVERYWHERE), autograds(EVERYWHERE), rtol=1e-12, atol=1e-14)
        ours, autograds = derivative(ours), derivative(autograds)


def derivative(function):
    def differentiated(x):
        x = x if x.requires_grad else x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        return slope

    return differentiated


@pytest.mark.parametrize("scale", SCALES)
def test_gradients(scale):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(ClosedFormSiLU(scale), x)
    torch.autograd.gradgradcheck(ClosedFormSiLU(scale), x)


def test_the_slope_alone_is_differentiated():
    """As in training on forces alone, where the energy has no weight."""
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    gradients = []
    for function in (ClosedFormSiLU(), silu):
        (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        gradients.append(torch.autograd.grad(slope.square().sum(), x)[0])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


def test_vmap():
    x = torch.randn(5, dtype=torch.float64)
    by_row = torch.func.vmap(torch.func.grad(ClosedFormSiLU()))(x)
    torch.testing.assert_close(by_row, jacobian(silu, x).diagonal())


def test_every_silu_is_replaced_and_nothing_else():
    shared = nn.SiLU()
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.ReLU(), ScaledSiLU()), "c": nn.Linear(2, 2)})
    x = torch.randn(4, 2)
    expected = [model["a"](x), model["b"](x)]
    use_closed_form_silu(model)
    assert [type(module).__name__ for module in (model["a"], *model["b"])] == [
        "ClosedFormSiLU",
        "ClosedFormSiLU",
        "ReLU",
        "ClosedFormSiLU",
    ]
    torch.testing.assert_close([model["a"](x), model["b"](x)], expected)


GATED = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def plain_gated_softplus(x):
    gate, core = x.chunk(2, dim=1)
    return gate.sigmoid() * softplus(core)


def test_gated_softplus_has_two_derivatives():
    results = []
    for function in (gated_softplus, plain_gated_softplus):
        x = GATED.clone().requires_grad_()
        y = function(x)
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sin().sum() + y.sum(), x)
        results.append((y, slope, curvature))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    x = GATED.clone().requires_grad_()
    assert torch.autograd.gradcheck(gated_softplus, x)
    assert torch.autograd.gradgradcheck(gated_softplus, x)


def test_gated_softplus_refuses_a_third_derivative():
    x = GATED.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gated_softplus(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        curvature.square().sum().backward()


@pytest.mark.parametrize("function", [SILU, gated_softplus])
def test_can_be_traced(function):
    def second(x):
        (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    traced = make_fx(second)(torch.zeros_like(GATED).requires_grad_())
    torch.testing.assert_close(traced(GATED), second(GATED.clone().requires_grad_()), rtol=1e-12, atol=1e-15)
