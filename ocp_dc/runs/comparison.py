"""Whether one cell is better than another, from seeds that both have."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ocp_dc.runs.results import Cell, Measure


@dataclass(frozen=True)
class Paired:
    """ln(other / baseline) of each seed: what a change multiplies an error by, whatever the error's size.

    Attributes:
        differences: by seed.
    """

    differences: Mapping[int, float]

    @property
    def count(self) -> int:
        return len(self.differences)

    @property
    def mean(self) -> float:
        """NaN without any."""
        return statistics.fmean(self.differences.values()) if self.differences else math.nan

    @property
    def deviation(self) -> float | None:
        """Of the sample; None for less than two."""
        return statistics.stdev(self.differences.values()) if self.count > 1 else None

    @property
    def lower(self) -> int:
        """In how many seeds the other is below the baseline."""
        return sum(difference < 0 for difference in self.differences.values())


def paired(baseline: Cell, other: Cell, measure: Measure) -> Paired:
    """Two cells seed by seed; seeds that one lacks, or that diverged in one, are left out."""
    ours, theirs = (_values(cell, measure) for cell in (other, baseline))
    return Paired({seed: math.log(ours[seed] / theirs[seed]) for seed in theirs if seed in ours})


def mean_of(pairs: Iterable[Paired]) -> Paired:
    """Several changes as one: of each seed that all have, their mean."""
    each = [pair.differences for pair in pairs]
    shared = [seed for seed in each[0] if all(seed in of_one for of_one in each)] if each else []
    return Paired({seed: statistics.fmean(of_one[seed] for of_one in each) for seed in shared})


def _values(cell: Cell, measure: Measure) -> dict[int, float]:
    found = {run.description["seed"]: measure.of(run) for run in cell.finished}
    return {seed: value for seed, value in found.items() if value}
