"""ForceNet's basis functions where fairchem's are not enough.

Real spherical harmonics are polynomials of the unit vector, so that forces and their gradients exist everywhere:
fairchem evaluates them with SciPy, outside of autograd, from angles whose derivatives are singular at the poles.
Gaussians are evaluated for both directions of an edge at once.
"""

from __future__ import annotations

import math

import torch
from fairchem.core.models.utils.basis import GaussianSmearing, SphericalSmearing
from torch import Tensor, nn

from ocp_dc.models.gaussians import exponential


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


class ReversibleGaussians(nn.Module):
    """A linear layer of fairchem's Gaussians on [0, 1], of edges and of their reverses.

    The reverse of an edge has the same features in another order, the first ``directions`` of them mirrored at 1/2: its
    Gaussians are those of the edge in another order. Sums of those that change places are even, differences odd: each
    product is for both directions, with half the multiplications.

    Args:
        reverse: which feature of an edge each feature of its reverse is.
        directions: so many features are mirrored.
        num_freqs: K, Gaussians of a feature.
    """

    def __init__(self, reverse: list[int], directions: int, num_freqs: int) -> None:
        super().__init__()
        features, frequency = len(reverse), torch.arange(num_freqs)
        mirrored = torch.where(torch.arange(features) < directions, frequency.flip(0)[:, None], frequency[:, None])
        partner = (mirrored * features + torch.tensor(reverse)).flatten()
        column = torch.arange(len(partner))
        before, alone = column[column < partner], column[column == partner]
        self.changing = len(before)
        # those that change places, their partners, those that do not
        order = torch.cat([before, partner[before], alone])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("feature", order % features, persistent=False)

    def forward(self, x: Tensor, smearing: GaussianSmearing, weight: Tensor, bias: Tensor) -> Tensor:
        """The layer's outputs (2 P, O), of the edges and then of their reverses.

        Args:
            x: (P, F) features of the edges.
            weight: (K F, O), in the order of fairchem's Gaussians.
            bias: (O,).
        """
        centres = smearing.offset.index_select(1, self.order).T
        gaussians = exponential(smearing.coeff * (x.T.index_select(0, self.feature) - centres).square())
        even, odd = self._even_and_odd(gaussians)
        even_weight, odd_weight = self._even_and_odd(weight.index_select(0, self.order), 0.5)
        of_even, of_odd = torch.addmm(bias, even.T, even_weight), odd.T @ odd_weight
        return torch.cat([of_even + of_odd, of_even - of_odd])

    def _even_and_odd(self, rows: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        one, other, alone = rows.split([self.changing, self.changing, len(rows) - 2 * self.changing])
        return torch.cat([scale * (one + other), alone]), scale * (one - other)
