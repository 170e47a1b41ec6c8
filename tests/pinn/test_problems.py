"""Residuals on solutions that are known, loss terms against values by hand, and fast losses against DeepXDE's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ocp_dc.activations import known_activations
from ocp_dc.pinn.equations import ADVECTION, BETA, DIFFUSION_REACTION, DIFFUSION_U, DIFFUSION_V, GAMMA, REACTION

dde = pytest.importorskip("deepxde", reason='needs the extra: pip install ".[pinn]"')

from ocp_dc.pinn import as_published, corrected, residuals  # noqa: E402
from ocp_dc.pinn.jets import jet_by_deepxde  # noqa: E402
from ocp_dc.pinn.networks import Network, PublishedBatchNorm, keep_signal_size  # noqa: E402
from ocp_dc.pinn.problem import Points  # noqa: E402

PROTOCOLS = {"as_published": as_published, "corrected": corrected}
FEW = Points(domain=30, boundary=20, initial=25)

pytestmark = pytest.mark.usefixtures("double")


def points(dimensions: int, count: int = 50) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(0.1, 1, (count, dimensions))).requires_grad_()


def residual_of(function, solution, dimensions: int, with_laplacian: bool = False) -> list[torch.Tensor]:
    """Of a solution, which is a function of the coordinates that gives its components."""
    inputs = points(dimensions)
    outputs = torch.stack(solution(*inputs.unbind(dim=1)), dim=1)
    return [each.detach() for each in function(jet_by_deepxde(inputs, outputs, with_laplacian))]


def test_advection_of_a_wave():
    (exact,) = residual_of(residuals.advection, lambda x, t: [torch.sin(3 * (x - BETA * t))], 2)
    assert exact.abs().max() < 1e-14
    (doubled,) = residual_of(residuals.advection, lambda x, t: [x - 2 * BETA * t], 2)
    assert doubled == pytest.approx(np.full((50, 1), -BETA))


G, RHO = 0.7, 1.3


def falling_gas(x, t):
    """A gas that falls freely in a pressure gradient: v = G t."""
    return [torch.full_like(x, RHO), G * t, 5 - RHO * G * x + 0.5 * RHO * G**2 * t**2]


@pytest.mark.parametrize(
    "solution",
    [
        lambda x, t: [2 + torch.sin(x - 0.3 * t), 0.3 + 0 * x, 1.7 + 0 * x],
        lambda x, t: [1 / (1 + t), x / (1 + t), (1 + t) ** -GAMMA],
        falling_gas,
    ],
    ids=["carried", "expanding", "falling"],
)
def test_solutions_of_the_euler_equations(solution):
    for residual in residual_of(residuals.euler, solution, 2):
        assert residual.abs().max() < 1e-13


def test_published_sign_of_the_pressure_gradient():
    (total,) = residual_of(as_published.summed_euler, falling_gas, 2)
    assert total == pytest.approx(np.full((50, 1), 2 * RHO * G))


@pytest.mark.parametrize("kind", [Network, PublishedBatchNorm])
def test_published_euler_is_the_sum_of_its_terms(kind):
    """Also where every output depends on all points, so that the product rule does not hold; gradients too."""
    torch.manual_seed(0)
    network, inputs = kind(2, 3, "tanh"), points(2)

    def gradient(values):
        return torch.autograd.grad(values.sum(), inputs, create_graph=True)[0].unsqueeze(2).unbind(dim=1)

    def loss_and_gradients(residual):
        (error,) = residual(inputs, network(inputs))
        dde.gradients.clear()
        loss = error.square().mean()
        return [loss, *torch.autograd.grad(loss, [linear.weight for linear in network.linears])]

    def term_by_term(inputs, outputs):
        rho, v, p = outputs.split(1, dim=1)
        energy = p / (GAMMA - 1) + 0.5 * rho * v**2
        (_, rho_t), (v_x, v_t), (p_x, _) = map(gradient, (rho, v, p))
        mass = rho_t + gradient(rho * v)[0]
        return [mass + rho * (v_t + v * v_x) - p_x + gradient(energy)[1] + gradient(v * (energy + p))[0]]

    for given, wanted in zip(*map(loss_and_gradients, (as_published.coupled_euler, term_by_term)), strict=True):
        assert wanted.abs().max() > 1e-6
        torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-12)


def test_diffusion_reaction_of_waves():
    inputs = points(3)
    x, y, t = inputs.detach().split(1, dim=1)
    u = torch.sin(x) * torch.cos(2 * y) * torch.exp(-t)
    v = torch.cos(x) * torch.cos(y) * torch.exp(-2 * t)

    def waves(x, y, t):
        return [torch.sin(x) * torch.cos(2 * y) * torch.exp(-t), torch.cos(x) * torch.cos(y) * torch.exp(-2 * t)]

    of_u, of_v = residual_of(residuals.diffusion_reaction, waves, 3, with_laplacian=True)
    # u_t = -u, v_t = -2v, and the Laplacians are -5u and -2v
    assert of_u == pytest.approx((-u + 5 * DIFFUSION_U * u - (u - u**3 - REACTION - v)).numpy(), abs=1e-14)
    assert of_v == pytest.approx((-2 * v + 2 * DIFFUSION_V * v - (u - v)).numpy(), abs=1e-14)
    (total,) = residual_of(as_published.summed_diffusion_reaction, waves, 3, with_laplacian=True)
    assert total == pytest.approx((of_u + of_v).numpy())


class Slope(torch.nn.Module):
    """Every component is 3x + t, in two dimensions 3x + 5y + t."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components = components

    def forward(self, inputs):
        slopes = torch.tensor([3.0, 1.0] if inputs.shape[1] == 2 else [3.0, 5.0, 1.0])
        return (inputs @ slopes)[:, None].expand(-1, self.components)

    def jet(self, inputs, with_laplacian):
        inputs = inputs.requires_grad_()
        return jet_by_deepxde(inputs, self(inputs) + 0 * inputs.pow(3).sum(dim=1, keepdim=True), with_laplacian)


def losses_of(net, problem, pointwise: bool) -> dict[str, torch.Tensor]:
    dde.config.set_random_seed(0)
    data = problem.data(FEW, pointwise)
    model = dde.Model(data, net)
    inputs = torch.as_tensor(data.train_x).requires_grad_()
    outputs = net(inputs) + 0 * inputs.pow(3).sum(dim=1, keepdim=True)
    values = data.losses_train(None, outputs, dde.losses.get("MSE"), inputs, model)
    dde.grad.clear()
    return dict(zip(problem.terms, values, strict=True))


@pytest.mark.parametrize("pointwise", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_initial_and_boundary_terms_by_hand(equation, protocol, pointwise, small_field):
    field = small_field(equation)
    problem = PROTOCOLS[protocol].problem(equation, field)
    losses = losses_of(Slope(len(equation.components)), problem, pointwise)

    inputs, values = field.initial()
    slopes = [3.0, 1.0] if equation.space == 1 else [3.0, 5.0, 1.0]
    names = {"advection": [""], "cfd": ["_d", "_v", "_p"], "diffusion_reaction": ["_u", "_v"]}[equation.name]
    for component, name in enumerate(names):
        expected = np.square(inputs @ slopes - values[:, component]).mean()
        assert float(losses[f"L_IC{name}"]) == pytest.approx(expected, rel=1e-6)
    if equation.space == 1:
        # 3x at both ends; as published, CFD's space is half as long
        length = 1.0 if equation is ADVECTION or protocol == "as_published" else 2.0
        for name in names:
            assert float(losses[f"L_BC{name}"]) == pytest.approx((3 * length) ** 2, rel=1e-6)
    else:
        # 3 on the sides at the left and right, 5 above and below, in equal numbers (a corner has both)
        terms = [losses[name] for name in (["L_BC†"] if protocol == "as_published" else ["L_BC† u", "L_BC† v"])]
        assert all(9 < float(term) < 25 for term in terms)
    assert set(problem.terms) == set(losses)


def test_published_boundary_values_are_in_one_corner(small_field):
    field = small_field(DIFFUSION_REACTION)
    condition = as_published.problem(DIFFUSION_REACTION, field).conditions["L_BC_u"]
    assert len(condition.points) == int(0.3 * 16)
    assert np.all(condition.points[:, 0] == field.space[0].min().astype(np.float32))
    assert np.all(np.abs(condition.points[:, 1] + 1) < 0.2)
    # what is at [t, 0, j] of the data is taken to be at x = 0, y = j
    for (_, y, t), value in zip(condition.points, condition.values, strict=True):
        row, time = np.abs(field.space[0] - y).argmin(), np.abs(field.t - t).argmin()
        assert float(value) == pytest.approx(float(field.values[time, 0, row, 0]))


def test_corrected_boundary_values_are_on_all_sides_at_all_times(small_field):
    field = small_field(DIFFUSION_REACTION)
    condition = corrected.problem(DIFFUSION_REACTION, field).conditions["L_BC_v"]
    x, y, t = condition.points.T
    edge = 1 - 1 / 16
    sides = [x == -edge, x == edge, y == -edge, y == edge]
    assert np.logical_or.reduce(sides).all()
    assert all(side.mean() > 0.2 for side in sides)
    assert len(np.unique(t)) == 21
    row = [np.abs(field.space[0] - each).argmin() for each in (y[7], x[7])]
    time = np.abs(field.t - t[7]).argmin()
    assert float(condition.values[7]) == pytest.approx(float(field.values[time, row[0], row[1], 1]))


def trained_gradients(network, problem, pointwise: bool) -> tuple[dict[str, float], list[torch.Tensor]]:
    losses = losses_of(network, problem, pointwise)
    network.zero_grad()
    sum(losses.values()).backward()
    return {name: float(loss) for name, loss in losses.items()}, [p.grad.clone() for p in network.parameters()]


@pytest.mark.parametrize("name", ["tanh", "irelu", "integrated_silu"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fast_losses_are_deepxdes(equation, protocol, name, small_field):
    """Values, and gradients of every parameter."""
    dde.config.set_random_seed(1)
    field = small_field(equation)
    network = Network(len(equation.inputs), len(equation.components), name)
    keep_signal_size(network, torch.from_numpy(field.points()[0].reshape(-1, len(equation.inputs))))
    problem = PROTOCOLS[protocol].problem(equation, field)
    fast, fast_gradients = trained_gradients(network, problem, pointwise=True)
    slow, slow_gradients = trained_gradients(network, problem, pointwise=False)
    assert fast == pytest.approx(slow, rel=1e-10)
    largest = max(float(each.abs().max()) for each in slow_gradients)
    assert largest > 1e-3
    for one, other in zip(fast_gradients, slow_gradients, strict=True):
        assert one.numpy() == pytest.approx(other.numpy(), rel=1e-10, abs=1e-12 * largest)


@pytest.mark.parametrize("name", [*known_activations()])
def test_laplacians_through_layers_are_deepxdes_for_every_activation(name):
    dde.config.set_random_seed(0)
    network = Network(3, 2, name)
    inputs = points(3)
    jet = network.jet(inputs.detach(), with_laplacian=True)
    reference = jet_by_deepxde(inputs, network(inputs), with_laplacian=True)
    for one, other in zip(
        (jet.values, *jet.first, jet.laplacian),
        (reference.values, *reference.first, reference.laplacian),
        strict=True,
    ):
        assert one.detach().numpy() == pytest.approx(other.detach().numpy(), rel=1e-10, abs=1e-13)
    dde.grad.clear()


def test_first_and_second_derivatives_of_irelu_by_deepxde():
    """Of one unit: ½ (2x − 1)² for x > ½, else 0."""
    from ocp_dc.activations import activation

    x = torch.linspace(-1, 1, 21)[:, None].requires_grad_()
    y = activation("irelu")(2 * x - 1)
    z = (2 * x - 1).detach()
    assert dde.grad.jacobian(y, x).detach() == pytest.approx((2 * z.clamp(min=0)).numpy())
    assert dde.grad.hessian(y, x).detach() == pytest.approx((4.0 * (z > 0)).numpy())
    dde.grad.clear()
