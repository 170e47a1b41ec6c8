from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from ocp_dc.datasets.generation.autocorrelation import autocorrelation_time


def autoregressive(count, memory, rng):
    """x_t = memory x_{t-1} + noise, whose autocorrelation is memory^t."""
    return lfilter([1], [1, -memory], rng.normal(size=count + 100))[100:]


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("runs", [1, 8])
def test_of_a_process_with_a_known_time(memory, runs):
    rng = np.random.default_rng(0)
    series = [autoregressive(400_000 // runs, memory, rng) - 97_000 for _ in range(runs)]
    assert autocorrelation_time(series) == pytest.approx((1 + memory) / (1 - memory), rel=0.1)


def test_runs_are_not_joined():
    """Steps between runs are no memory, runs that stay where they are have all of it."""
    rng = np.random.default_rng(0)
    apart = [rng.normal(size=200) + 100 * run for run in range(10)]
    assert autocorrelation_time(apart) > 50
    assert autocorrelation_time([rng.normal(size=3) for _ in range(2_000)]) == pytest.approx(1, abs=0.3)


def test_of_constants_and_single_values():
    assert autocorrelation_time([np.full(10, -3.0)]) == 1
    assert autocorrelation_time([np.array([1.0]), np.array([2.0])]) == 1
