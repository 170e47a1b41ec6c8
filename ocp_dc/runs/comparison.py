"""Whether one cell is better than another, from seeds that both have, and what that says of a claim."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ocp_dc.runs.rendering import MISSING
from ocp_dc.runs.results import Cell, Measure

CONFIDENCE = 0.95
# a change by less than this factor is none
NEGLIGIBLE = 1.1


class Direction(Enum):
    """What a claim says of an error: that a change lowers it, raises it, or does not lower it."""

    LOWER = "lower"
    HIGHER = "higher"
    NOT_LOWER = "not lower"


@dataclass(frozen=True)
class Paired:
    """ln(other / baseline) of each seed: what a change multiplies an error by, whatever the error's size.

    Attributes:
        differences: by seed; ∞ where only the other diverged, −∞ where only the baseline did.
    """

    differences: Mapping[int, float]

    @property
    def count(self) -> int:
        return len(self.differences)

    @property
    def finite(self) -> Paired:
        """Without seeds that diverged."""
        return Paired({seed: value for seed, value in self.differences.items() if math.isfinite(value)})

    @property
    def mean(self) -> float:
        """NaN without any, or where the baseline diverged in some seeds and the other in others."""
        return sum(self.differences.values()) / self.count if self.differences else math.nan

    @property
    def deviation(self) -> float | None:
        """Of the sample; None for less than two, or where some diverged."""
        values = self.differences.values()
        return statistics.stdev(values) if self.count > 1 and all(map(math.isfinite, values)) else None

    @property
    def lower(self) -> int:
        """In how many seeds the other is below the baseline."""
        return sum(difference < 0 for difference in self.differences.values())

    @property
    def interval(self) -> tuple[float, float]:
        """Where the mean over all seeds lies with 95 % confidence, by Student's t; all numbers for less than two."""
        if self.count > 1 and len(set(self.differences.values())) == 1:
            return self.mean, self.mean
        if self.deviation is None:
            return -math.inf, math.inf
        reach = _quantile(self.count) * self.deviation / math.sqrt(self.count)
        return self.mean - reach, self.mean + reach

    def verdict(self, claim: Direction) -> str:
        """``seen``, ``not seen``, ``opposite`` or ``undecided``; see :data:`RULE`."""
        low, high = self.interval
        none = math.log(NEGLIGIBLE)
        lowers, raises, negligible = high < 0, low > 0, -none < low and high < none
        if claim is Direction.NOT_LOWER:
            return "opposite" if lowers else "seen" if low > -none else "undecided"
        if lowers or raises:
            return "seen" if lowers == (claim is Direction.LOWER) else "opposite"
        return "not seen" if negligible else "undecided"

    @property
    def summary(self) -> str:
        """The mean, and how often it is lower."""
        return f"{self}, lower in {self.lower} of {self.count}" if self.count else MISSING

    def __str__(self) -> str:
        if not self.count:
            return MISSING
        if not math.isfinite(self.mean):
            return "diverged"
        spread = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:+.2f}{spread}, × {math.exp(self.mean):.3g}"


RULE = (
    "The rule: d is ln(error of the method / error of the baseline) of each seed that both have, s its standard "
    f"deviation, the {CONFIDENCE:.0%} interval the mean of d ± Student's t · s / √n. That an error is lower (higher) "
    "is seen where the interval lies below (above) 0, opposite where it lies on the other side, not seen where it lies "
    f"within ± ln {NEGLIGIBLE}, else undecided. That an error is not lower is opposite where the interval lies below "
    f"0, seen where it lies above −ln {NEGLIGIBLE}, else undecided. A seed in which only one diverged counts as "
    "infinitely worse."
)


def about_seeds(counts: Iterable[int]) -> str:
    """What so many seeds can say."""
    sentences = {count: _about(count) for count in sorted(set(counts))}
    return " ".join(sentences.values())


def _about(count: int) -> str:
    if count == 1:
        return "One seed decides nothing: the comparison is shown, the verdict is undecided."
    return (
        f"With {count} seeds the interval reaches {_quantile(count) / math.sqrt(count):.1f} s to both sides, and all d "
        f"have one sign by chance in 1 of {2 ** (count - 1)}."
    )


def _quantile(count: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))


def paired(baseline: Cell, other: Cell, measure: Measure) -> Paired:
    """Two cells seed by seed; seeds that one lacks, or that diverged in both, are left out."""
    theirs, ours = _values(baseline, measure), _values(other, measure)
    differences = {seed: _difference(theirs[seed], ours[seed]) for seed in theirs if seed in ours}
    return Paired({seed: difference for seed, difference in differences.items() if difference is not None})


def mean_of(pairs: Iterable[Paired]) -> Paired:
    """Several changes as one: of each seed that all have, their mean."""
    each = [pair.differences for pair in pairs]
    shared = [seed for seed in each[0] if all(seed in of_one for of_one in each)] if each else []
    return Paired({seed: statistics.fmean(of_one[seed] for of_one in each) for seed in shared})


def _difference(baseline: float, other: float) -> float | None:
    if math.isnan(baseline) and math.isnan(other):
        return None
    if math.isnan(baseline) or math.isnan(other):
        return -math.inf if math.isnan(baseline) else math.inf
    return math.log(other / baseline)


def _values(cell: Cell, measure: Measure) -> dict[int, float]:
    """By seed, NaN of those that diverged."""
    found = {run.description["seed"]: measure.of(run) for run in cell.runs}
    return {seed: value for seed, value in found.items() if value}
