import math

import numpy as np
import pytest
import scipy.special
import torch
from torch_geometric.nn.models.dimenet import BesselBasisLayer, SphericalBasisLayer

from ocp_dc.models.bases import PolynomialEnvelope, SphericalBesselBasis, ZonalHarmonics, spherical_bessel

INSIDE = torch.linspace(0.1, 0.99, 12, dtype=torch.float64)


def check_derivatives(function, x):
    x = x.clone().requires_grad_()
    torch.autograd.gradcheck(function, x, rtol=1e-4)
    torch.autograd.gradgradcheck(function, x, rtol=1e-4)


@pytest.mark.parametrize("q", [0, -1])
def test_envelope(q):
    envelope = PolynomialEnvelope(5, q)
    check_derivatives(envelope, INSIDE)
    for values in (envelope(torch.ones(1)), *envelope.evaluate(1 - 1e-7 * torch.ones(1).double())):
        assert values.abs().max() < 1e-6
    assert not envelope(torch.tensor([1.0, 1.5])).any()


def test_envelope_is_pygs():
    pygs = BesselBasisLayer(num_radial=1, envelope_exponent=5).envelope
    x = torch.cat([INSIDE, torch.tensor([1.0, 2.0]).double()])
    torch.testing.assert_close(PolynomialEnvelope(6, q=-1)(x), pygs(x), rtol=1e-12, atol=1e-14)


def test_nothing_beyond_the_cutoff():
    basis = SphericalBesselBasis(3, 2, PolynomialEnvelope(6, q=-1))
    x = torch.tensor([1.0, 1.7], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(basis(x[:, None, None]).sum(), x, create_graph=True)
    assert not slope.any()
    assert not torch.autograd.grad(slope.sum(), x)[0].any()


def test_spherical_bessel_functions():
    x = torch.linspace(0.5, 30, 40, dtype=torch.float64)
    degrees = torch.arange(5, dtype=torch.float64)[:, None]
    value, slope = spherical_bessel(x[:, None, None].expand(-1, 5, 1), degrees)
    for degree in range(5):
        for actual, derivative in ((value, False), (slope, True)):
            expected = scipy.special.spherical_jn(degree, x.numpy(), derivative)
            np.testing.assert_allclose(actual[:, degree, 0], expected, rtol=1e-8, atol=1e-11)


def test_radial_functions_are_pygs():
    pygs = SphericalBasisLayer(num_spherical=4, num_radial=3, cutoff=1.0, envelope_exponent=5)
    expected = pygs.envelope(INSIDE)[:, None] * torch.stack([function(INSIDE) for function in pygs.bessel_funcs], dim=1)
    basis = SphericalBesselBasis(4, 3, PolynomialEnvelope(pygs.envelope.p, q=-1))
    torch.testing.assert_close(basis(INSIDE[:, None, None]).flatten(1), expected, rtol=1e-10, atol=1e-11)


def test_derivatives_of_radial_functions():
    basis = SphericalBesselBasis(4, 2, PolynomialEnvelope(6, q=-1))
    check_derivatives(lambda x: basis(x[:, None, None]), INSIDE[2:])


def test_third_derivatives_of_radial_functions():
    basis = SphericalBesselBasis(3, 2, PolynomialEnvelope(6, q=-1))

    def second(x):
        (first,) = torch.autograd.grad(basis(x[:, None, None]).sum(), x, create_graph=True)
        return torch.autograd.grad(first.sum(), x, create_graph=True)[0]

    check_first_derivative = INSIDE[2:].clone().requires_grad_()
    torch.autograd.gradcheck(second, check_first_derivative, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_zonal_harmonics(count):
    cosine = torch.tensor([-1.0, -0.7, 0.0, 0.3, 1.0], dtype=torch.float64)
    harmonics = ZonalHarmonics(count)(cosine, torch.ones_like(cosine))
    for degree in range(count):
        factor = math.sqrt((2 * degree + 1) / (4 * math.pi))
        expected = factor * scipy.special.eval_legendre(degree, cosine.numpy())
        np.testing.assert_allclose(harmonics[:, degree], expected, rtol=1e-12, atol=1e-14)


def test_derivatives_of_zonal_harmonics():
    harmonics = ZonalHarmonics(5)
    mask = torch.tensor([1.0, 0, 1, 1, 1], dtype=torch.float64)
    cosine = torch.tensor([-1.0, -0.7, 0.0, 0.3, 1.0], dtype=torch.float64)
    check_derivatives(lambda x: harmonics(x, mask), cosine)
    assert not harmonics(cosine, mask)[1].any()


def test_constants_stay_exact_in_float64():
    """A model built in float32 and used in float64."""
    bases = [ZonalHarmonics(4), SphericalBesselBasis(4, 3, PolynomialEnvelope(6, q=-1))]
    for basis in bases:
        assert not basis.state_dict()
        assert all(buffer.dtype == torch.float64 for buffer in basis.buffers())
