"""Data by PDEBench's recipes."""

from __future__ import annotations

import numpy as np
import pytest

from ocp_dc.pinn.equations import ADVECTION, BETA, CFD, DIFFUSION_REACTION
from ocp_dc.pinn.generation import Wave, generate, random_gas


def test_a_sample_is_determined_by_its_number(equation):
    first, again, other = (generate(equation, sample, cells=16, times=3).values for sample in (5, 5, 6))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert first.shape == (3, *[16] * equation.space, len(equation.components))


def test_advection_carries_the_initial_values_round():
    # in 10 times 2 they go round twice; a cell of 40 is passed in a quarter of a time
    field = generate(ADVECTION, sample=1, cells=40, times=9)
    for time, values in zip(field.t, field.values[..., 0], strict=True):
        cells = BETA * time * 40
        assert cells == pytest.approx(round(cells), abs=1e-9)
        assert values == pytest.approx(np.roll(field.values[0, :, 0], round(cells)), abs=1e-9)


def test_waves_fit_the_domain_and_a_tenth_is_cut_to_a_window():
    def wave(seed):
        return Wave(np.random.default_rng(seed), ADVECTION, wave_numbers=4, window_probability=0.1)

    ends = np.array([ADVECTION.low, ADVECTION.high])
    waves = [wave(seed)(np.array([0.01, *ends])) for seed in range(1000)]
    assert all(abs(values[1] - values[2]) < 1e-7 for values in waves)
    assert sum(abs(values[0]) < 1e-6 for values in waves) == pytest.approx(100, abs=30)


def test_a_gas_has_positive_density_and_pressure():
    x = np.linspace(-1, 1, 200)
    for seed in range(50):
        density, velocity, pressure = random_gas(np.random.default_rng(seed), x)
        assert 1 <= density.min() <= 10
        assert 1 <= np.ptp(density) <= 10
        assert 10 <= pressure.min() <= 100
        assert 10 <= np.ptp(pressure) <= 100
        assert np.abs(velocity).max() <= 2


def test_gas_conserves_mass():
    field = generate(CFD, sample=0, cells=64, times=5)
    assert field.values[..., 0].sum(axis=1) == pytest.approx(np.full(5, field.values[0, :, 0].sum()), rel=1e-12)


def test_diffusion_reaction_starts_with_normal_noise():
    first = generate(DIFFUSION_REACTION, sample=0, cells=64, times=2).values[0]
    assert abs(first.mean()) < 0.05
    assert first.std() == pytest.approx(1, abs=0.05)
