import itertools
import math
import re

import mpmath
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.special import spence

from ocp_dc.activations import IReLU, activation, known_activations, register_activation

BASES = {
    "irelu": (torch.relu, lambda t: max(t, 0.0)),
    "bounded_irelu": (lambda t: F.hardtanh(t, 0, 1), lambda t: min(max(t, 0.0), 1.0)),
    "integrated_leaky_relu": (F.leaky_relu, lambda t: t if t > 0 else 0.01 * t),
    "integrated_elu": (F.elu, lambda t: t if t > 0 else math.expm1(t)),
    # PyTorch's own threshold, 20, is where softplus becomes x, wrong by 2e-9
    "integrated_softplus": (
        lambda t: F.softplus(t, threshold=100),
        lambda t: max(t, 0.0) + math.log1p(math.exp(-abs(t))),
    ),
    "integrated_silu": (F.silu, lambda t: t * (math.exp(min(t, 0.0)) / (1 + math.exp(-abs(t))))),
}
PLAIN = ("relu", "silu", "softplus", "shifted_softplus", "elu", "leaky_relu", "tanh", "gelu")
SMOOTH = ("integrated_softplus", "integrated_silu")
MAGNITUDES = (1e-6, 1e-4, 1e-2, 0.3, 0.499, 0.501, 1.0, 3.0, 10.0, 19.9, 41.0, 100.0, 1e3)


def integral_from_zero(function, x):
    stops = [0.0, *(math.copysign(s, x) for s in (0.5, 1.0, 2.0, 10.0, 40.0, 200.0) if s < abs(x)), x]
    return math.fsum(
        quad(function, a, b, epsabs=0, epsrel=1e-13)[0] if function(b) or function(a) else 0.0
        for a, b in itertools.pairwise(stops)
    )


EXACT = {
    "integrated_elu": (lambda x: mpmath.exp(x) - 1 - x if x < 0 else x**2 / 2, 5e-16),
    "integrated_softplus": (lambda x: -mpmath.polylog(2, -mpmath.exp(x)) - mpmath.pi**2 / 12, 5e-16),
    "integrated_silu": (
        lambda x: x * mpmath.log(1 + mpmath.exp(x)) + mpmath.polylog(2, -mpmath.exp(x)) + mpmath.pi**2 / 12,
        5e-15,
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_value_is_exact_to_rounding(name):
    function, tolerance = EXACT[name]
    points = [sign * m for m in (*MAGNITUDES[:-3], 0.1, 0.45, 0.7, 2.0) for sign in (1, -1)]
    values = activation(name)(torch.tensor(points, dtype=torch.float64)).tolist()
    with mpmath.workdps(40):
        for x, value in zip(points, values, strict=True):
            assert abs(value / function(mpmath.mpf(x)) - 1) < tolerance, x


def derivative(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", BASES)
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
def test_value_is_the_integral_of_the_base(name, dtype, rtol):
    x = torch.tensor([sign * m for m in MAGNITUDES for sign in (1, -1)], dtype=dtype)
    expected = torch.tensor([integral_from_zero(BASES[name][1], v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(activation(name)(x).double(), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BASES)
def test_derivative_is_the_base_and_value_at_zero_is_zero(name, dtype):
    base = BASES[name][0]
    x = torch.tensor([-1e3, -30, -2.5, -1e-6, 0.0, 1e-6, 0.7, 15, 20.5, 1e3], dtype=dtype, requires_grad=True)
    y = activation(name)(x)
    assert y.dtype == dtype
    assert y[4] == 0
    assert torch.equal(derivative(y, x), base(x))


@pytest.mark.parametrize("name", BASES)
def test_autograd_to_second_order(name):
    x = torch.tensor([-5.0, -1.3, -0.2, 0.3, 0.9, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(activation(name), x)
    assert torch.autograd.gradgradcheck(activation(name), x)


@pytest.mark.parametrize("name", [n for n in BASES if n != "irelu"])
def test_third_and_fourth_derivatives_match_the_base(name):
    x = torch.tensor([-3.0, -0.4, 0.6, 2.0], dtype=torch.float64, requires_grad=True)
    ours, base = derivative(activation(name)(x), x), BASES[name][0](x)
    for _ in range(3):
        ours, base = derivative(ours, x), derivative(base, x)
        torch.testing.assert_close(ours, base, rtol=1e-12, atol=1e-15)
        if not base.requires_grad:
            break


def test_irelu_derivatives_are_exact():
    x = torch.cat([torch.randn(1000), torch.zeros(2)]).requires_grad_()
    first = derivative(IReLU()(x), x)
    second = derivative(first, x)
    assert torch.equal(first, torch.relu(x))
    assert torch.equal(second, (x > 0).float())
    assert second[-1] == 0
    assert torch.equal(derivative(second, x), torch.zeros_like(x))


def test_bounded_irelu_is_irelu_to_1_and_its_tangent_beyond():
    x = torch.tensor([-3.0, 0.0, 0.25, 1.0, 4.0, 1e30], requires_grad=True)
    y = activation("bounded_irelu")(x)
    slope = derivative(y, x)
    assert torch.equal(y[:4], IReLU()(x[:4]))
    assert y[4:].tolist() == [3.5, x[-1].item()]
    assert slope.tolist() == [0, 0, 0.25, 1, 1, 1]
    assert derivative(slope, x).tolist() == [0, 0, 1, 0, 0, 0]


def test_irelu_trains_through_its_derivative():
    x = torch.tensor([[0.5, -1.0]], requires_grad=True)
    weight = torch.tensor([[2.0], [0.3]], requires_grad=True)
    force = -derivative(IReLU()(x @ weight), x)
    (weight_gradient,) = torch.autograd.grad(force.pow(2).sum(), weight)
    w = weight.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad((torch.relu(x @ w) * w.T).pow(2).sum(), w)
    torch.testing.assert_close(weight_gradient, expected)


@pytest.mark.parametrize("name", BASES)
def test_function_transforms(name):
    function = activation(name)
    x = torch.tensor([-2.0, -0.1, 0.4, 3.0], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    second = derivative(derivative(function(leaf), leaf), leaf)
    total = lambda v: function(v).sum()  # noqa: E731
    torch.testing.assert_close(torch.func.hessian(total)(x).diagonal(), second)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(function))(x), BASES[name][0](x))
    _, along = torch.func.jvp(function, (x,), (torch.full_like(x, 3),))
    torch.testing.assert_close(along, 3 * BASES[name][0](x))


@pytest.mark.parametrize("name", SMOOTH)
def test_bounded_side_tends_to_its_limit(name):
    limit = {"integrated_softplus": -1, "integrated_silu": 1}[name] * math.pi**2 / 12
    assert activation(name)(torch.tensor(-1e3, dtype=torch.float64)).item() == pytest.approx(limit, rel=1e-15)


def test_every_known_name_gives_a_fresh_module_with_a_repr():
    assert set(known_activations()) >= {*BASES, *PLAIN}
    for name in known_activations():
        one, other = activation(name), activation(name)
        assert isinstance(one, torch.nn.Module)
        assert one is not other
        assert one(torch.zeros(2, 3)).shape == (2, 3)
        assert type(one).__doc__
        assert repr(one).startswith(type(one).__name__ + "(")
    assert "x^2/2" in repr(activation("irelu"))


@pytest.mark.parametrize("name", [*BASES, "shifted_softplus"])
@pytest.mark.parametrize("x", [-2.0, 0.4, 3.0])
def test_the_formula_that_is_shown_is_the_function(name, x):
    shown = activation(name).extra_repr()
    known = {"x": x, "exp": math.exp, "log": math.log, "pi": math.pi, "Li2": lambda z: spence(1 - z)}
    for written, python in (("^", "**"), (", else ", " else "), (", ", " else "), ("ln 2", "log(2)")):
        shown = shown.replace(written, python)
    shown = re.sub(r"(?<=[0-9x]) (?=x|log)", " * ", shown)
    assert eval(shown, known) == pytest.approx(activation(name)(torch.tensor(x, dtype=torch.float64)).item())


def test_shifted_softplus():
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(activation("shifted_softplus")(x), torch.log((1 + x.exp()) / 2))


def test_unknown_name_is_explained():
    with pytest.raises(ValueError, match=r"'irelo'\. Did you mean 'irelu'\? Known: .*integrated_silu.*'original'"):
        activation("irelo")
    with pytest.raises(ValueError, match=r"Unknown activation 'qqqq'\. Known: "):
        activation("qqqq")


def test_registered_activation_is_found(monkeypatch):
    monkeypatch.setattr("ocp_dc.activations._FACTORIES", {})

    @register_activation("cube")
    class Cube(torch.nn.Module):
        pass

    assert isinstance(activation("cube"), Cube)
    assert known_activations() == ("cube",)
    with pytest.raises(ValueError, match="'cube' is already taken"):
        register_activation("cube")
    with pytest.raises(ValueError, match="'original' is already taken"):
        register_activation("original")
