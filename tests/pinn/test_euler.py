"""The finite-volume solver of the Euler equations against exact solutions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from ocp_dc.pinn import euler

GAMMA = 1.4
# density, velocity and pressure on both sides, the time, and published values between the waves
SOD = ((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), 0.2)
LAX = ((0.445, 0.698, 3.528), (0.5, 0.0, 0.571), 0.13)


def exact_riemann(left, right, speeds: np.ndarray) -> np.ndarray:
    """The exact solution (3, N) at x / t = ``speeds``, by Toro's Chapter 4."""

    def change(pressure, state):
        density, _, p = state
        sound = np.sqrt(GAMMA * p / density)
        if pressure > p:
            a, b = 2 / ((GAMMA + 1) * density), (GAMMA - 1) / (GAMMA + 1) * p
            return (pressure - p) * np.sqrt(a / (pressure + b))
        return 2 * sound / (GAMMA - 1) * ((pressure / p) ** ((GAMMA - 1) / (2 * GAMMA)) - 1)

    middle = brentq(lambda p: change(p, left) + change(p, right) + right[1] - left[1], 1e-8, 100)
    contact = 0.5 * (left[1] + right[1] + change(middle, right) - change(middle, left))

    def side(state, sign, speed):
        density, velocity, p = state
        sound, own = np.sqrt(GAMMA * p / density), sign * (speed - velocity)
        ratio, g = middle / p, (GAMMA - 1) / (GAMMA + 1)
        if middle > p:
            front = sound * np.sqrt((GAMMA + 1) / (2 * GAMMA) * ratio + (GAMMA - 1) / (2 * GAMMA))
            return state if own > front else (density * (ratio + g) / (g * ratio + 1), contact, middle)
        tail = sound * ratio ** ((GAMMA - 1) / (2 * GAMMA)) + sign * (contact - velocity)
        if own > sound:
            return state
        if own < tail:
            return density * ratio ** (1 / GAMMA), contact, middle
        c = 2 / (GAMMA + 1) * (sound + (GAMMA - 1) / 2 * own)
        return (
            density * (c / sound) ** (2 / (GAMMA - 1)),
            velocity + sign * (own - c),
            p * (c / sound) ** (2 * GAMMA / (GAMMA - 1)),
        )

    return np.array([side(left, -1, s) if s < contact else side(right, 1, s) for s in speeds]).T


def centres(cells: int, low: float, high: float) -> np.ndarray:
    return low + (high - low) / cells * (np.arange(cells) + 0.5)


def shock_tube(case, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The solver's and the exact solution at the end."""
    left, right, end = case
    x = centres(cells, -0.5, 0.5)
    initial = np.where(x < 0, np.array(left)[:, None], np.array(right)[:, None])
    (found,) = euler.solve(initial, 1 / cells, [end], euler.outflow, GAMMA)
    return found, exact_riemann(left, right, x / end)


def test_the_exact_solution_of_sod_has_its_published_values():
    between = exact_riemann(*SOD[:2], np.array([0.5, 1.3]))
    assert between[:, 0] == pytest.approx([0.42632, 0.92745, 0.30313], abs=2e-5)
    assert between[:, 1] == pytest.approx([0.26557, 0.92745, 0.30313], abs=2e-5)


@pytest.mark.parametrize(("case", "limit"), [(SOD, 0.004), (LAX, 0.02)], ids=["Sod", "Lax"])
def test_shock_tubes(case, limit):
    errors = []
    for cells in (100, 200, 400):
        found, exact = shock_tube(case, cells)
        errors.append(np.abs(found - exact).mean())
    # first order at most, since there are discontinuities
    assert errors[2] < limit
    assert errors[0] / errors[2] > 2.5
    # nothing overshoots by more than a little
    assert found.max() < exact.max() * 1.02


def test_second_order_where_the_solution_is_smooth():
    def error(cells: int) -> float:
        x = centres(cells, 0, 1)

        def density(t):
            return 1 + 0.2 * np.sin(2 * np.pi * (x - t))

        initial = np.stack([density(0), np.ones(cells), np.ones(cells)])
        (found,) = euler.solve(initial, 1 / cells, [0.5], gamma=GAMMA)
        assert found[1:] == pytest.approx(np.ones((2, cells)), abs=1e-10)
        return np.abs(found[0] - density(0.5)).mean()

    coarse, fine = error(64), error(256)
    assert np.log(coarse / fine) / np.log(4) > 1.9


def test_mass_momentum_and_energy_are_conserved():
    x = centres(128, 0, 1)
    initial = np.stack([1 + (x > 0.3), np.sin(2 * np.pi * x), 1 + 5.0 * (x > 0.6)])
    (found,) = euler.solve(initial, 1 / 128, [0.3])
    before, after = (euler.conserved(values).sum(axis=1) for values in (initial, found))
    assert after == pytest.approx(before, rel=1e-12, abs=1e-11)
    assert np.abs(found - initial).max() > 0.5


def test_flux_of_equal_states_and_of_supersonic_flow_is_theirs():
    slow, fast = np.array([[1.2, 0.3, 2.0]]).T, np.array([[1.2, 7.0, 2.0]]).T
    for states in ((slow, slow), (fast, slow + 0.5), (slow * [[1], [-20], [1]], slow * [[1], [-30], [1]])):
        flux = euler.hllc_flux(*states)
        density, velocity, pressure = states[int(states[0][1, 0] < 0)]
        energy = pressure / (euler.GAMMA - 1) + 0.5 * density * velocity**2
        expected = [density * velocity, density * velocity**2 + pressure, velocity * (energy + pressure)]
        assert flux == pytest.approx(np.array(expected))


def test_saved_times_are_those_asked_for():
    x = centres(32, 0, 1)
    initial = np.stack([1 + 0.1 * np.sin(2 * np.pi * x), np.ones(32), np.ones(32)])
    saved = euler.solve(initial, 1 / 32, [0.0, 0.05, 0.1])
    assert saved[0] == pytest.approx(initial)
    (alone,) = euler.solve(initial, 1 / 32, [0.05])
    assert np.array_equal(saved[1], alone)
