"""Data made by PDEBench's recipes (Takamoto et al., 2022, Appx. D), where its own files are not at hand.

A sample is determined by the equation, its number and the grid. The recipes are PDEBench's, the random numbers are not:
these are other samples of the same kind.
"""

from __future__ import annotations

import numpy as np

from ocp_dc.pinn import diffusion_reaction, euler
from ocp_dc.pinn.equations import ADVECTION, BETA, CFD, Equation
from ocp_dc.pinn.fields import Field

RECIPES = {
    "advection": "two sines of wave numbers 1 to 4, amplitudes 0 to 1, any phase, either sign; of 10 % the absolute "
    "value, 10 % in a window",
    "cfd": "density, velocity and pressure from two sines of wave numbers 1 to 3 each, 50 % in a window; density from "
    "a minimum of 1 to 10 upwards by 1 to 10, pressure ten times that, both log-uniform",
    "diffusion_reaction": "normal noise of mean 0 and deviation 1 in every cell",
}
SOLVERS = {
    "advection": "exact",
    "cfd": f"Euler equations (viscosities of 1e-8 left out), MUSCL (van Leer) and HLLC, Heun, CFL {euler.CFL}",
    "diffusion_reaction": f"finite volumes, RK45, tolerances {diffusion_reaction.TOLERANCE:g}",
}
WINDOW_WIDTH = 0.01


def generate(equation: Equation, sample: int, cells: int, times: int) -> Field:
    """A sample of an equation's data.

    Args:
        sample: its number, which seeds the random numbers.
        cells: along each coordinate.
        times: from 0 to the equation's end, both included.
    """
    rng = np.random.default_rng([sample, equation.space, len(equation.components)])
    width = (equation.high - equation.low) / cells
    x = equation.low + width * (np.arange(cells) + 0.5)
    t = np.linspace(0.0, equation.end, times)
    if equation is ADVECTION:
        return Field((x,), t, _advect(rng, x, t)[..., None])
    if equation is CFD:
        return Field((x,), t, euler.solve(random_gas(rng, x), width, t).swapaxes(1, 2))
    return Field((x, x), t, diffusion_reaction.solve(rng.standard_normal((cells, cells, 2)), width, t))


def _advect(rng: np.random.Generator, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(T, X): u(x, t) = u(x − βt, 0), exactly."""
    wave = Wave(rng, ADVECTION, wave_numbers=4, window_probability=0.1)
    return wave(ADVECTION.low + np.mod(x - BETA * t[:, None] - ADVECTION.low, ADVECTION.high - ADVECTION.low))


def random_gas(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Density, velocity and pressure at time 0, (3, X)."""
    waves = [Wave(rng, CFD, wave_numbers=3, window_probability=0.5)(x) for _ in CFD.components]
    density, velocity, pressure = waves
    return np.stack([_between(rng, density, 1.0, 10.0), velocity, _between(rng, pressure, 10.0, 100.0)])


def _between(rng: np.random.Generator, values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Shifted and scaled so that minimum and range are random, log-uniform between ``low`` and ``high``."""
    minimum, size = np.exp(rng.uniform(np.log(low), np.log(high), 2))
    return minimum + size * (values - values.min()) / np.ptp(values)


class Wave:
    """A random function of x: the sum of two sines that fit the domain; perhaps its absolute value, or a part of it."""

    def __init__(
        self, rng: np.random.Generator, equation: Equation, wave_numbers: int, window_probability: float
    ) -> None:
        self._numbers = 2 * np.pi / (equation.high - equation.low) * rng.integers(1, wave_numbers + 1, 2)
        self._amplitudes, self._phases = rng.uniform(0, 1, 2), rng.uniform(0, 2 * np.pi, 2)
        self._sign = rng.choice([-1.0, 1.0])
        self._absolute = rng.uniform() < 0.1
        windowed = rng.uniform() < window_probability
        edges = rng.uniform((0.1, 0.55), (0.45, 0.9))
        self._window = edges if windowed else None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        sines = np.sin(x[..., None] * self._numbers + self._phases)
        values = (self._amplitudes * sines).sum(axis=-1)
        values = self._sign * (np.abs(values) if self._absolute else values)
        if self._window is not None:
            left, right = ((x - edge) / WINDOW_WIDTH for edge in self._window)
            values = values * 0.5 * (np.tanh(left) - np.tanh(right))
        return values
