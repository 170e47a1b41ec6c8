import pytest
import torch
from test_properties import assert_close
from torch_geometric.nn.models.schnet import GaussianSmearing

from ocp_dc.models.gaussians import exponential, gaussians


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_fairchems_gaussians(dtype, rtol):
    module = GaussianSmearing(0.0, 6.0, 40).to(dtype)
    distance = torch.linspace(0, 9, 101, dtype=dtype)
    actual = gaussians(distance, module.offset, module.coeff)
    assert_close(actual, module(distance), rtol)
    assert (actual > 0).all()


def test_derivatives_of_the_exponential():
    x = torch.linspace(-800, 3, 50, dtype=torch.float64, requires_grad=True)
    derivative = exponential(x)
    for _ in range(3):
        assert_close(derivative, x.exp(), 1e-14)
        (derivative,) = torch.autograd.grad(derivative.sum(), x, create_graph=True)
    assert torch.autograd.gradgradcheck(exponential, x[-10:])
    assert_close(torch.func.jvp(exponential, (x,), (torch.ones_like(x),))[1], x.exp(), 1e-14)
    assert_close(torch.vmap(torch.func.grad(lambda value: exponential(value)))(x), x.exp(), 1e-14)
