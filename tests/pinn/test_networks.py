"""Networks with BatchNorm, as published and as it should be, and the size of their signals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

dde = pytest.importorskip("deepxde", reason='needs the extra: pip install ".[pinn]"')

from ocp_dc.pinn.jets import jet_by_deepxde  # noqa: E402
from ocp_dc.pinn.networks import (  # noqa: E402
    CollocationBatchNorm,
    Network,
    PublishedBatchNorm,
    keep_signal_size,
    last_signal,
    never_positive,
)

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def points() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (200, 2)))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    yield
    dde.grad.clear()


def first_derivatives(network, inputs) -> torch.Tensor:
    inputs = inputs.clone().requires_grad_()
    return torch.cat(jet_by_deepxde(inputs, network(inputs), with_laplacian=False).first)


def test_the_plain_network_is_deepxdes(points):
    network = Network(2, 3, "tanh")
    reference = dde.nn.FNN([2, *[40] * 6, 3], "tanh", "Glorot normal")
    reference.load_state_dict(network.state_dict())
    assert torch.equal(network(points), reference(points))
    assert all(not linear.bias.any() for linear in network.linears)


@pytest.mark.parametrize("name", ["tanh", "irelu"])
def test_published_batch_norm_is_untrained_and_has_no_derivative(points, name):
    network = PublishedBatchNorm(2, 3, name)
    assert len(list(network.parameters())) == len(list(Network(2, 3, name).parameters()))
    # what is given at a point depends on the others, also when it is evaluated
    network.eval()
    assert (network(points)[:50] - network(points[:50])).abs().max() > 1e-3
    # the sum of the outputs is a constant, so its derivative is nothing but rounding, however steep the outputs are
    order = points[:, 0].argsort()
    steepness = (network(points)[order].diff(dim=0) / points[order, :1].diff(dim=0)).abs().max()
    assert first_derivatives(network, points).abs().max() < 1e-12 * steepness


def test_published_batch_norm_is_batch_norm_after_each_activation(points):
    network = PublishedBatchNorm(2, 3, "tanh")
    x = points
    for linear in network.linears[:-1]:
        x = nn.BatchNorm1d(40, dtype=x.dtype)(torch.tanh(linear(x)))
    assert network(points).detach().numpy() == pytest.approx(network.linears[-1](x).detach().numpy())


class Literal(nn.Module):
    """BatchNorm after each activation, by PyTorch's layers."""

    def __init__(self, network: CollocationBatchNorm) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        for linear, norm in zip(self.network.linears, self.network.norms, strict=False):
            x = norm(self.network.activation(linear(x)))
        return self.network.linears[-1](x)


def test_corrected_batch_norm_gives_the_same_over_its_own_points(points):
    network = CollocationBatchNorm(2, 3, "tanh", points)
    with torch.no_grad():
        for norm in network.norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
    found = network(points)
    expected = Literal(network)(points)
    assert found.detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-10)
    gradients = [torch.autograd.grad(values.square().sum(), list(network.parameters())) for values in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        assert one.numpy() == pytest.approx(other.numpy(), rel=1e-8, abs=1e-8)


def test_corrected_batch_norm_is_a_function_of_a_point(points):
    network = CollocationBatchNorm(2, 3, "tanh", points)
    assert network(points)[:50].detach().numpy() == pytest.approx(network(points[:50]).detach().numpy())
    step = 1e-5 * torch.tensor([1.0, 0.0])
    differences = (network(points + step) - network(points - step)) / 2e-5
    derivatives = first_derivatives(network, points)[: len(points)]
    assert derivatives.detach().numpy() == pytest.approx(differences.detach().numpy(), abs=1e-6)


def test_corrected_batch_norm_trains_and_is_saved(points):
    network = CollocationBatchNorm(2, 1, "tanh", points)
    assert torch.equal(network.eval()(points[:5]), network.train()(points[:5]))
    assert len(list(network.parameters())) == len(list(Network(2, 1, "tanh").parameters())) + 2 * 6
    # the points are not part of what is saved
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_signals_of_irelu_vanish_unless_the_weights_are_scaled(points):
    network = Network(2, 1, "irelu")
    assert last_signal(network, points) < 1e-6
    keep_signal_size(network, points)
    assert last_signal(network, points) > 1e-3


def test_units_that_are_never_positive_are_counted(points):
    network = Network(2, 1, "irelu")
    before = never_positive(network, points)
    with torch.no_grad():
        network.linears[5].bias[:12] = -1000.0
        network.linears[5].bias[12:] = 1000.0
    assert never_positive(network, points) <= before + 12 / 240
    assert never_positive(network, points) >= 12 / 240
