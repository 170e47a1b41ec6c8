"""The diffusion-reaction equations in two dimensions (paper, Appx. E.3): finite volumes in a closed square."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.integrate import solve_ivp

from ocp_dc.errors import InputError
from ocp_dc.pinn.equations import DIFFUSION_U, DIFFUSION_V, REACTION

TOLERANCE = 1e-6
DIFFUSION = np.array([DIFFUSION_U, DIFFUSION_V])


def fitzhugh_nagumo(values: np.ndarray) -> np.ndarray:
    """What the reaction makes per time of u and v, (…, 2) of (…, 2)."""
    u, v = values[..., 0], values[..., 1]
    return np.stack([u - u**3 - REACTION - v, u - v], axis=-1)


def laplacian(values: np.ndarray, width: float) -> np.ndarray:
    """(Y, X, C) of the means of cells (Y, X, C): what flows in through their sides; nothing does at the boundary."""
    total = np.zeros_like(values)
    for axis in (0, 1):
        flow = np.diff(values, axis=axis) / width**2
        before, after = ([(0, 0)] * 3 for _ in range(2))
        before[axis], after[axis] = (0, 1), (1, 0)
        total += np.pad(flow, before) - np.pad(flow, after)
    return total


def solve(
    initial: np.ndarray,
    width: float,
    times: Sequence[float],
    reaction: Callable[[np.ndarray], np.ndarray] = fitzhugh_nagumo,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """u and v at each of some times, by an explicit Runge-Kutta method of order 5 with error control.

    Args:
        initial: (Y, X, 2).
        width: of a cell.
        times: increasing, from 0.
        tolerance: relative and absolute, of a step.

    Returns:
        (len(times), Y, X, 2)
    """

    def rate(_, flat: np.ndarray) -> np.ndarray:
        values = flat.reshape(initial.shape)
        return (reaction(values) + DIFFUSION * laplacian(values, width)).ravel()

    solution = solve_ivp(
        rate, (0.0, times[-1]), initial.ravel(), method="RK45", t_eval=times, rtol=tolerance, atol=tolerance
    )
    if not solution.success:
        raise InputError(f"the diffusion-reaction equations could not be solved: {solution.message}")
    return solution.y.T.reshape(len(times), *initial.shape)
