"""The compressible Euler equations in one dimension: finite volumes, MUSCL reconstruction, HLLC fluxes, second order.

The state is conserved: density ρ, momentum ρv, energy E = p/(γ − 1) + ρv²/2; rows of an array (3, N). Primitive are
ρ, v and p. Riemann solver: Toro, Spruce and Speares (1994); reconstruction: van Leer (1979), of the primitive
variables; time: Heun's method, which is strong-stability-preserving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ocp_dc.pinn.equations import GAMMA

CFL = 0.3
# of a neighbour's values, for the reconstruction of a cell and the flux beyond it
GHOSTS = 2


def conserved(primitive: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """(3, N) of (3, N)."""
    density, velocity, pressure = primitive
    return np.stack([density, density * velocity, pressure / (gamma - 1) + 0.5 * density * velocity**2])


def primitive(state: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """(3, N) of (3, N)."""
    density, momentum, energy = state
    velocity = momentum / density
    return np.stack([density, velocity, (gamma - 1) * (energy - 0.5 * momentum * velocity)])


def periodic(state: np.ndarray) -> np.ndarray:
    """The state with the cells beyond each end: those of the other end."""
    return np.concatenate([state[:, -GHOSTS:], state, state[:, :GHOSTS]], axis=1)


def outflow(state: np.ndarray) -> np.ndarray:
    """The state with the cells beyond each end: the end's own."""
    return np.pad(state, ((0, 0), (GHOSTS, GHOSTS)), mode="edge")


def solve(
    initial: np.ndarray,
    width: float,
    times: Sequence[float],
    boundary: Callable[[np.ndarray], np.ndarray] = periodic,
    gamma: float = GAMMA,
) -> np.ndarray:
    """Density, velocity and pressure at each of some times.

    Args:
        initial: (3, N), primitive.
        width: of a cell.
        times: increasing.
        boundary: adds ``GHOSTS`` cells at each end of a state.

    Returns:
        (len(times), 3, N)
    """
    state, time, saved = conserved(initial, gamma), 0.0, []
    for end in times:
        while time < end:
            step = min(CFL * width / _fastest(state, gamma), end - time)
            state = _advance(state, step / width, boundary, gamma)
            # the last step of an interval ends exactly there
            time = end if step == end - time else time + step
        saved.append(primitive(state, gamma))
    return np.stack(saved)


def _advance(state: np.ndarray, ratio: float, boundary: Callable, gamma: float) -> np.ndarray:
    predicted = state - ratio * _flux_difference(state, boundary, gamma)
    return 0.5 * (state + predicted - ratio * _flux_difference(predicted, boundary, gamma))


def _flux_difference(state: np.ndarray, boundary: Callable, gamma: float) -> np.ndarray:
    """What leaves each cell on the right minus what enters on the left, (3, N)."""
    values = primitive(boundary(state), gamma)
    slopes = _limited(np.diff(values, axis=1))
    inner = values[:, 1:-1]
    right_ends, left_ends = inner + 0.5 * slopes, inner - 0.5 * slopes
    return np.diff(hllc_flux(right_ends[:, :-1], left_ends[:, 1:], gamma), axis=1)


def _limited(differences: np.ndarray) -> np.ndarray:
    """Van Leer's harmonic mean of the differences to both neighbours; 0 at extrema."""
    before, after = differences[:, :-1], differences[:, 1:]
    product = before * after
    return np.where(product > 0, 2 * product, 0.0) / np.where(product > 0, before + after, 1.0)


def hllc_flux(left: np.ndarray, right: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """The flux of the conserved variables between two primitive states, (3, N) of (3, N) and (3, N)."""
    (dl, vl, pl), (dr, vr, pr) = left, right
    slowest, fastest = _outer_speeds(left, right, gamma)
    # of the contact wave between them
    flow_l, flow_r = dl * (slowest - vl), dr * (fastest - vr)
    contact = (pr - pl + flow_l * vl - flow_r * vr) / (flow_l - flow_r)
    upwind = contact >= 0
    values, speed = np.where(upwind, left, right), np.where(upwind, slowest, fastest)
    state, flux = conserved(values, gamma), _flux(values, gamma)
    density, velocity, pressure = values
    factor = density * (speed - velocity) / (speed - contact)
    energy = state[2] / density + (contact - velocity) * (contact + pressure / (density * (speed - velocity)))
    star = factor * np.stack([np.ones_like(contact), contact, energy])
    between = np.where(upwind, speed < 0, speed > 0)
    return flux + np.where(between, speed * (star - state), 0.0)


def _outer_speeds(left: np.ndarray, right: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of the slowest and fastest wave, from the pressure between them (Toro, Sec. 10.5.2)."""
    (dl, vl, pl), (dr, vr, pr) = left, right
    cl, cr = np.sqrt(gamma * pl / dl), np.sqrt(gamma * pr / dr)
    middle = np.maximum(0.0, 0.5 * (pl + pr) - 0.125 * (vr - vl) * (dl + dr) * (cl + cr))
    shock = [np.sqrt(1 + (gamma + 1) / (2 * gamma) * np.maximum(middle / pressure - 1, 0.0)) for pressure in (pl, pr)]
    return vl - cl * shock[0], vr + cr * shock[1]


def _flux(values: np.ndarray, gamma: float) -> np.ndarray:
    density, velocity, pressure = values
    energy = pressure / (gamma - 1) + 0.5 * density * velocity**2
    return np.stack([density * velocity, density * velocity**2 + pressure, velocity * (energy + pressure)])


def _fastest(state: np.ndarray, gamma: float) -> float:
    density, velocity, pressure = primitive(state, gamma)
    return float((np.abs(velocity) + np.sqrt(gamma * pressure / density)).max())
