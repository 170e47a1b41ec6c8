"""How long a quantity remembers what it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = 5  # autocorrelation times that are summed over


def autocorrelation_time(series: Sequence[np.ndarray]) -> float:
    """Integrated autocorrelation time, in steps of the series: 1 + 2 Σ_t ρ(t), at least 1.

    The sum ends at the first t of at least five times what it has come to (Sokal's window). ρ is of all series
    together, about their common mean; times beyond a fifth of a series' length are underestimated.

    Args:
        series: of independent runs, each (n,), with n from 1.
    """
    mean = np.concatenate(series).mean()
    longest = max(map(len, series))
    covariance, pairs = np.zeros(longest), np.zeros(longest)
    for values in series:
        count = len(values)
        # zeros behind the values keep the transform's end from meeting its start
        spectrum = np.fft.rfft(values - mean, 2 * count)
        covariance[:count] += np.fft.irfft(np.abs(spectrum) ** 2, 2 * count)[:count]
        pairs[:count] += np.arange(count, 0, -1)
    variance = covariance[0] / pairs[0]
    if variance == 0:
        return 1.0
    times = 2 * np.cumsum(covariance / pairs / variance) - 1
    ends = np.flatnonzero(np.arange(longest) >= WINDOW * times)
    return float(max(1.0, times[ends[0] if len(ends) else -1]))


def independent_count(count: int, time: float) -> int:
    """How many independent values ``count`` of them are worth, of that autocorrelation time in steps: at least 1."""
    return max(1, round(count / time))
