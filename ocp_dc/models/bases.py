"""Basis functions of distances and angles, with derivatives that take few operations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial.legendre import legder
from torch import Tensor, nn
from torch.autograd import Function
from torch_geometric.nn.models.dimenet_utils import Jn, Jn_zeros

from ocp_dc.models.closed_form import ClosedForm

Terms = Sequence[tuple[float, int]]


class PolynomialEnvelope(ClosedForm):
    r"""DimeNet's envelope (arXiv:2003.03123, Eq. 8), times a power of x; 0 for x ≥ 1.

    .. math::
        u(x) = x^q \left(1 - \tfrac{(p+1)(p+2)}{2} x^p + p(p+2) x^{p+1} - \tfrac{p(p+1)}{2} x^{p+2}\right)

    At x = 1 its value and its first two derivatives are 0.

    Args:
        p: exponent.
        q: of the power.
    """

    def __init__(self, p: float, q: int = 0) -> None:
        super().__init__()
        self.terms = (
            (1.0, q),
            (-(p + 1) * (p + 2) / 2, p + q),
            (p * (p + 2.0), p + q + 1),
            (-p * (p + 1) / 2, p + q + 2),
        )

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _within(x, self.terms), _within(x, _derived(self.terms))

    def curvature(self, x: Tensor, slope: Tensor) -> Tensor:
        return _within(x, _derived(_derived(self.terms)))


def _within(x: Tensor, terms: Terms) -> Tensor:
    """Σ c xⁿ where x < 1, else 0, for the terms (c, n), n rising."""
    powers: dict[int, Tensor] = {}
    for _, n in terms:
        powers[n] = powers[n - 1] * x if n - 1 in powers else x**n
    return sum(c * powers[n] for c, n in terms) * (x < 1)


def _derived(terms: Terms) -> Terms:
    return tuple((c * n, n - 1) for c, n in terms if n)


class ZonalHarmonics(nn.Module):
    r"""The zonal harmonics, times a mask.

    .. math::
        Y_{l0}(θ) = \sqrt{(2l+1) / 4π} \, P_l(\cos θ)

    The derivative of each by cos θ is a sum of those of lower degree. They are polynomials: derivatives of any order
    exist, for cos θ = ±1 too.

    Args:
        count: degrees l = 0, 1, …
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        norms = ((2 * torch.arange(count, dtype=torch.float64) + 1) / (4 * math.pi)).sqrt()
        slopes = torch.zeros(count, count, dtype=torch.float64)
        for degree in range(1, count):
            slopes[degree, :degree] = torch.from_numpy(legder([0] * degree + [1])) * norms[degree] / norms[:degree]
        self.register_buffer("norms", norms, persistent=False)
        self.register_buffer("slopes", slopes, persistent=False)

    def forward(self, cosine: Tensor, mask: Tensor) -> Tensor:
        """(..., count), from cos θ and a mask without gradient, both (...)."""
        return _ZonalHarmonics.apply(cosine, mask, self.norms.to(cosine.dtype), self.slopes.to(cosine.dtype))


class _ZonalHarmonics(Function):
    @staticmethod
    def forward(ctx, cosine: Tensor, mask: Tensor, norms: Tensor, slopes: Tensor) -> Tensor:
        legendre = [mask, mask * cosine][: len(norms)]
        for degree in range(2, len(norms)):
            risen = (cosine * legendre[-1]).mul_((2 * degree - 1) / degree)
            legendre.append(risen.sub_(legendre[-2], alpha=(degree - 1) / degree))
        harmonics = torch.stack(legendre, dim=-1).mul_(norms)
        ctx.save_for_backward(harmonics, slopes)
        return harmonics

    @staticmethod
    def backward(ctx, grad: Tensor):
        harmonics, slopes = ctx.saved_tensors
        return ((grad @ slopes) * harmonics).sum(dim=-1), None, None, None


class SphericalBesselBasis(ClosedForm):
    r"""DimeNet's radial functions (arXiv:2003.03123, Eq. 7), as fairchem normalizes them, times an envelope.

    .. math::
        \tilde e_{ln}(x) = \sqrt{2} / |j_{l+1}(z_{ln})| \, j_l(z_{ln} x) \, u(x)

    with z_ln the n-th zero of the spherical Bessel function j_l, rounded to float32, as fairchem's is. Called with
    distances x in units of the cutoff, (E, 1, 1), it gives (E, L, R).

    Args:
        num_spherical: degrees l.
        num_radial: zeros n of each.
        envelope: u.
    """

    def __init__(self, num_spherical: int, num_radial: int, envelope: PolynomialEnvelope) -> None:
        super().__init__()
        self.envelope = envelope
        zeros = Jn_zeros(num_spherical, num_radial).astype("float64")
        norms = np.stack([(0.5 * Jn(of_degree, degree + 1) ** 2) ** -0.5 for degree, of_degree in enumerate(zeros)])
        degrees = torch.arange(num_spherical, dtype=torch.float64)[:, None]
        for name, values in (("zeros", zeros), ("norms", norms), ("degrees", degrees)):
            self.register_buffer(name, torch.as_tensor(values), persistent=False)

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        zeros, norms, degrees = self._constants(x)
        j, j1 = spherical_bessel(zeros * x, degrees)
        u, u1 = self.envelope.evaluate(x)
        return norms * u * j, norms * (u1 * j + zeros * u * j1), j, j1

    def curvature(self, x: Tensor, slope: Tensor, j: Tensor, j1: Tensor) -> Tensor:
        zeros, norms, degrees = self._constants(x)
        scaled = zeros * x
        # Bessel's equation
        j2 = (degrees * (degrees + 1) / scaled.square() - 1) * j - 2 / scaled * j1
        u, u1 = self.envelope.evaluate(x)
        u2 = self.envelope.curvature(x, u1)
        return norms * (u2 * j + zeros * (2 * u1 * j1 + zeros * u * j2))

    def _constants(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.zeros.to(x.dtype), self.norms.to(x.dtype), self.degrees.to(x.dtype)


def spherical_bessel(x: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """j_l(x) and its derivative, for ``x`` (E, L, R) and the degrees l = 0, 1, … (L, 1)."""
    inverse = 1 / x
    before, now = x.cos() * inverse, x.sin() * inverse
    befores, values = [before[:, :1]], [now[:, :1]]
    for degree in range(1, x.shape[1]):
        # only those of higher degree have to go on
        before, now = now[:, 1:], (2 * degree - 1) * inverse[:, degree:] * now[:, 1:] - before[:, 1:]
        befores.append(before[:, :1])
        values.append(now[:, :1])
    j = torch.cat(values, dim=1)
    return j, torch.cat(befores, dim=1) - (degrees + 1) * inverse * j
