"""Real spherical harmonics as polynomials of the unit vector, so that forces and their gradients exist everywhere.

fairchem evaluates them with SciPy, outside of autograd, from angles whose derivatives are singular at the poles.
"""

from __future__ import annotations

import math

import torch
from fairchem.core.models.utils.basis import SphericalSmearing
from torch import Tensor


class DifferentiableSphericalSmearing(SphericalSmearing):
    r"""fairchem's ``SphericalSmearing``, in the input's precision and differentiable any number of times.

    With the polar angle φ from z, the azimuth θ from x, and the Condon–Shortley phase, of

    .. math:: Y_{nm} = \sqrt{\tfrac{2n+1}{4π} \tfrac{(n-m)!}{(n+m)!}} \, P_n^m(\cos φ) \, e^{imθ}, \quad 0 ≤ m ≤ n

    it gives, in this order: all Y with m = 0, the real parts of those with m > 0, their imaginary parts.

    Args:
        max_n: the degrees are n = 0 … ``max_n`` − 1.
        option: ``all`` of them, the odd ones (``sine``), or the even ones (``cosine``).

    Shapes:
        in: (E, 3), of any length but zero; out: (E, ``out_dim``).
    """

    def forward(self, xyz: Tensor) -> Tensor:
        x, y, z = (xyz / xyz.norm(dim=-1, keepdim=True)).unbind(-1)
        # sin^m φ cos mθ and sin^m φ sin mθ are the real and imaginary parts of (x + iy)^m; the rest of P is a
        # polynomial of z.
        cosines, sines = [torch.ones_like(z)], [torch.zeros_like(z)]
        for _ in range(1, self.max_n):
            cosine, sine = cosines[-1], sines[-1]
            cosines.append(x * cosine - y * sine)
            sines.append(x * sine + y * cosine)
        polar = _normalized_legendre(z, self.max_n)

        degrees = [(int(n), int(m)) for n, m in zip(self.n, self.m, strict=True)]
        zonal = [polar[n, 0] * cosines[0] for n, m in degrees if m == 0]
        real = [polar[n, m] * cosines[m] for n, m in degrees if m > 0]
        imaginary = [polar[n, m] * sines[m] for n, m in degrees if m > 0]
        return torch.stack(zonal + real + imaginary, dim=1)


def _normalized_legendre(z: Tensor, max_n: int) -> dict[tuple[int, int], Tensor | float]:
    """The normalized P_n^m(z) / (1 − z²)^{m/2} for 0 ≤ m ≤ n < max_n, by the recursion over n at fixed m."""
    polar: dict[tuple[int, int], Tensor | float] = {}
    sectoral = math.sqrt(1 / (4 * math.pi))
    for m in range(max_n):
        polar[m, m] = sectoral
        sectoral *= -math.sqrt((2 * m + 3) / (2 * m + 2))
        for n in range(m + 1, max_n):
            below = polar.get((n - 2, m), 0.0)
            weight = math.sqrt(((n - 1) ** 2 - m**2) / (4 * (n - 1) ** 2 - 1))
            scale = math.sqrt((4 * n**2 - 1) / (n**2 - m**2))
            polar[n, m] = scale * (z * polar[n - 1, m] - weight * below)
    return polar
