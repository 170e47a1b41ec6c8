"""Basis functions of distances and angles, with derivatives that take few operations.

Forces are derivatives of the energy, and training differentiates forces: autograd would differentiate each term of each
basis function twice. Here the derivatives come from identities between the functions, and equal autograd's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from numpy.polynomial.legendre import legder
from torch import Tensor
from torch.autograd import Function
from torch_geometric.nn.models.dimenet_utils import Jn, Jn_zeros

from ocp_dc.activations import Antiderivative

Terms = Sequence[tuple[float, int]]


def envelope(x: Tensor, terms: Terms) -> Tensor:
    """Σ c xⁿ where x < 1, else 0, for the terms (c, n); any shape."""
    slope = tuple((c * n, n - 1) for c, n in terms if n)
    return Antiderivative.apply(x, lambda x: _power_sum(x, terms), lambda x: _slope(x, slope))


def _slope(x: Tensor, terms: Terms) -> Tensor:
    curvature = tuple((c * n, n - 1) for c, n in terms if n)
    return Antiderivative.apply(x, lambda x: _power_sum(x, terms), lambda x: _power_sum(x, curvature))


def _power_sum(x: Tensor, terms: Terms) -> Tensor:
    return sum(c * x**n for c, n in terms) * (x < 1)


def envelope_terms(exponent: int, lowest: int) -> Terms:
    """Of DimeNet's envelope (arXiv:2003.03123, Eq. 8) for p = ``exponent``, times x to the power ``lowest``.

    It falls from 1 to 0 as x goes from 0 to 1, and so smoothly that its first and second derivatives are 0 there.
    """
    p = exponent
    coefficients = {0: 1.0, p: -(p + 1) * (p + 2) / 2, p + 1: p * (p + 2.0), p + 2: -p * (p + 1) / 2}
    return tuple((c, n + lowest) for n, c in coefficients.items())


class ZonalHarmonics(Function):
    r"""``apply(cosine, mask, count)``: the zonal harmonics Y_l0, l < count, times a mask.

    .. math::
        Y_{l0}(θ) = \sqrt{(2l+1) / 4π} \, P_l(\cos θ)

    The derivative of each by cos θ is a sum of those of lower degree. They are polynomials: any order exists, for
    cos θ = ±1 too.

    Shapes:
        ``cosine`` (...), ``mask`` of the same shape, without gradient; out: (..., count).
    """

    @staticmethod
    def forward(ctx, cosine: Tensor, mask: Tensor, count: int) -> Tensor:
        legendre = [mask, mask * cosine][:count]
        for degree in range(2, count):
            risen = (cosine * legendre[-1]).mul_((2 * degree - 1) / degree)
            legendre.append(risen.sub_(legendre[-2], alpha=(degree - 1) / degree))
        norms, ctx.slopes = _zonal_constants(count, cosine.dtype, cosine.device)
        harmonics = torch.stack(legendre, dim=-1).mul_(norms)
        ctx.save_for_backward(harmonics)
        return harmonics

    @staticmethod
    def backward(ctx, grad: Tensor):
        (harmonics,) = ctx.saved_tensors
        return ((grad @ ctx.slopes) * harmonics).sum(dim=-1), None, None


@lru_cache(maxsize=32)
def _zonal_constants(count: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The factors of the Legendre polynomials (count,), and M (count, count), where dY_l/dcosθ = Σ_k M_lk Y_k."""
    norms = torch.tensor([math.sqrt((2 * degree + 1) / (4 * math.pi)) for degree in range(count)], dtype=torch.float64)
    slopes = torch.zeros(count, count, dtype=torch.float64)
    for degree in range(1, count):
        slopes[degree, :degree] = torch.from_numpy(legder([0] * degree + [1])) * norms[degree] / norms[:degree]
    return norms.to(device, dtype), slopes.to(device, dtype)


class SphericalBesselBasis:
    r"""DimeNet's radial functions (arXiv:2003.03123, Eq. 7), as fairchem normalizes them, times an envelope.

    .. math::
        \tilde e_{ln}(x) = \sqrt{2} / |j_{l+1}(z_{ln})| \, j_l(z_{ln} x) \, u(x)

    with z_ln the n-th zero of the spherical Bessel function j_l.

    Args:
        num_spherical: degrees l.
        num_radial: zeros n of each.
        terms: of the envelope u.
    """

    def __init__(self, num_spherical: int, num_radial: int, terms: Terms) -> None:
        self.shape = num_spherical, num_radial
        self.terms = terms

    def __call__(self, x: Tensor) -> Tensor:
        """From distances in units of the cutoff, (E,), the functions (E, L R), those of a degree side by side."""
        return _RadialFunctions.apply(x, self)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros, norms, _ = self._constants(x)
        u, u1, _ = (each[:, None, None] for each in self._envelope(x))
        j, j1 = spherical_bessel(zeros * x[:, None, None])
        return (norms * u * j).flatten(1), (norms * (u1 * j + zeros * u * j1)).flatten(1)

    def curvature(self, x: Tensor) -> Tensor:
        zeros, norms, eigenvalues = self._constants(x)
        u, u1, u2 = (each[:, None, None] for each in self._envelope(x))
        scaled = zeros * x[:, None, None]
        j, j1 = spherical_bessel(scaled)
        # Bessel's equation
        j2 = (eigenvalues / scaled.square() - 1) * j - 2 / scaled * j1
        return (norms * (u2 * j + zeros * (2 * u1 * j1 + zeros * u * j2))).flatten(1)

    def _envelope(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = tuple((c * n, n - 1) for c, n in self.terms)
        second = tuple((c * n, n - 1) for c, n in first)
        return tuple(_power_sum(x, terms) for terms in (self.terms, first, second))

    def _constants(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _bessel_constants(*self.shape, x.dtype, x.device)


class _RadialFunctions(Function):
    @staticmethod
    def forward(ctx, x: Tensor, basis: SphericalBesselBasis) -> Tensor:
        value, slope = basis.value_and_slope(x)
        ctx.save_for_backward(x, slope)
        ctx.basis = basis
        return value

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, slope = ctx.saved_tensors
        return (grad * _Slopes.apply(x, slope, ctx.basis)).sum(dim=-1), None


class _Slopes(Function):
    """``slope``, of which it is known here that its derivative by ``x`` is the basis's curvature."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor, basis: SphericalBesselBasis) -> Tensor:
        ctx.save_for_backward(x)
        ctx.basis = basis
        return slope.view_as(slope)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        return (grad * ctx.basis.curvature(x)).sum(dim=-1), None, None


def spherical_bessel(x: Tensor) -> tuple[Tensor, Tensor]:
    """j_l(x) and its derivative, for ``x`` (E, L, R), where l is the second index."""
    inverse = 1 / x
    before, now = x.cos() * inverse, x.sin() * inverse
    befores, values = [before[:, :1]], [now[:, :1]]
    for degree in range(1, x.shape[1]):
        # only those of higher degree have to go on
        before, now = now[:, 1:], (2 * degree - 1) * inverse[:, degree:] * now[:, 1:] - before[:, 1:]
        befores.append(before[:, :1])
        values.append(now[:, :1])
    j = torch.cat(values, dim=1)
    degrees = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None]
    return j, torch.cat(befores, dim=1) - degrees * inverse * j


@lru_cache(maxsize=32)
def _bessel_constants(
    num_spherical: int, num_radial: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros and norms (L, R), and l (l + 1) (L, 1). The zeros are rounded to float32, as PyG's are."""
    zeros = Jn_zeros(num_spherical, num_radial).astype("float64")
    norms = torch.stack([torch.from_numpy((0.5 * Jn(z, l + 1) ** 2) ** -0.5) for l, z in enumerate(zeros)])  # noqa: E741
    degrees = torch.arange(num_spherical)[:, None]
    return tuple(each.to(device, dtype) for each in (torch.from_numpy(zeros), norms, degrees * (degrees + 1)))
