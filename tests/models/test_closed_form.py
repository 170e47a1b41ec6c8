import pytest
import torch
from fairchem.core.models.gemnet.layers.base_layers import ScaledSiLU
from torch import nn
from torch.autograd.functional import jacobian
from torch.nn.functional import silu

from ocp_dc.models.closed_form import ClosedFormSiLU, use_closed_form_silu

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
