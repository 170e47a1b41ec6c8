"""What the equations leave where they do not hold: algebra of a network's outputs and their derivatives.

Each function takes a :class:`~ocp_dc.pinn.jets.Jet` at N points and returns residuals, (N, 1) each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ocp_dc.pinn.equations import BETA, DIFFUSION_U, DIFFUSION_V, GAMMA, REACTION

if TYPE_CHECKING:
    from ocp_dc.pinn.jets import Jet


def advection(jet: Jet) -> list[Tensor]:
    """u_t + β u_x (paper, Eq. 15)."""
    u_x, u_t = jet.first
    return [u_t + BETA * u_x]


def euler(jet: Jet, pressure_sign: float = 1.0) -> list[Tensor]:
    """Of mass, momentum and energy (paper, Eq. 17 to 19, without viscosity).

    Args:
        pressure_sign: of p_x in the momentum equation; the paper's Eq. 22 has -1.
    """
    rho, v, p = _columns(jet.values)
    (rho_x, v_x, p_x), (rho_t, v_t, p_t) = map(_columns, jet.first)
    energy = p / (GAMMA - 1) + 0.5 * rho * v**2
    energy_x = p_x / (GAMMA - 1) + 0.5 * rho_x * v**2 + rho * v * v_x
    energy_t = p_t / (GAMMA - 1) + 0.5 * rho_t * v**2 + rho * v * v_t
    return [
        rho_t + rho_x * v + rho * v_x,
        rho * (v_t + v * v_x) + pressure_sign * p_x,
        energy_t + v_x * (energy + p) + v * (energy_x + p_x),
    ]


def diffusion_reaction(jet: Jet) -> list[Tensor]:
    """Of the activator u and the inhibitor v (paper, Eq. 24 and 25, with −u³ as PDEBench and the published code)."""
    u, v = _columns(jet.values)
    u_t, v_t = _columns(jet.first[-1])
    laplacian_u, laplacian_v = _columns(jet.laplacian)
    return [
        u_t - DIFFUSION_U * laplacian_u - (u - u**3 - REACTION - v),
        v_t - DIFFUSION_V * laplacian_v - (u - v),
    ]


def _columns(values: Tensor) -> tuple[Tensor, ...]:
    return values.split(1, dim=1)
