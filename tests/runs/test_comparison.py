from __future__ import annotations

import math
from pathlib import Path

import pytest

from ocp_dc.runs.comparison import Direction, Paired, about_seeds, mean_of, paired
from ocp_dc.runs.results import Cell, Measure, RunResult

WEIGHT = Measure("weight", "kg")
LOWER, HIGHER, NOT_LOWER = Direction


def cell(**values: float | str) -> Cell:
    """Of seeds ``s0``, ``s1``, …: what each came to, or its state."""
    runs = []
    for seed, value in values.items():
        record = {"status": value} if isinstance(value, str) else {"status": "finished"}
        if not isinstance(value, str):
            record["quantities"] = {"weight": {"value": value, "unit": "kg"}}
        runs.append(RunResult(Path(seed), {"seed": int(seed[1:])}, record))
    return Cell("", tuple(runs))


def test_seeds_are_paired_and_those_that_one_lacks_left_out():
    pair = paired(cell(s0=4.0, s1=8.0, s2=1.0, s3=1.0), cell(s3="failed", s1=2.0, s0=2.0, s4=9.0), WEIGHT)
    assert pair.differences == pytest.approx({0: math.log(0.5), 1: math.log(0.25)})
    assert pair.mean == pytest.approx(-1.5 * math.log(2))
    assert pair.deviation == pytest.approx(math.log(2) / math.sqrt(2))
    assert (pair.count, pair.lower) == (2, 2)
    assert str(pair) == "-1.04 ± 0.49, × 0.354"


def test_what_diverged_is_infinitely_worse_and_tells_nothing_of_what_diverged_too():
    pair = paired(cell(s0=1.0, s1="diverged", s2="diverged"), cell(s0="diverged", s1=1.0, s2="diverged"), WEIGHT)
    assert pair.differences == {0: math.inf, 1: -math.inf}
    assert math.isnan(pair.mean)
    assert pair.finite.count == 0
    assert str(pair.finite) == "–"
    assert all(pair.verdict(claim) == "undecided" for claim in Direction)
    every = paired(cell(s0=1.0, s1=2.0), cell(s0="diverged", s1="diverged"), WEIGHT)
    assert [every.verdict(claim) for claim in Direction] == ["opposite", "seen", "seen"]
    assert every.deviation is None
    assert str(every) == "diverged"


@pytest.mark.parametrize(
    ("differences", "lower", "higher", "not_lower"),
    [
        ([-0.7, -0.6, -0.8], "seen", "opposite", "opposite"),
        ([0.7, 0.6, 0.8], "opposite", "seen", "seen"),
        ([-0.7, -0.1, -2.0], "undecided", "undecided", "undecided"),
        # a change by a percent or two is none, if it is known as well as that
        ([-0.01, 0.01, 0.0], "not seen", "not seen", "seen"),
        ([-0.7], "undecided", "undecided", "undecided"),
        ([], "undecided", "undecided", "undecided"),
    ],
)
def test_verdicts(differences, lower, higher, not_lower):
    pair = Paired(dict(enumerate(differences)))
    assert [pair.verdict(claim) for claim in (LOWER, HIGHER, NOT_LOWER)] == [lower, higher, not_lower]


def test_interval_is_students():
    low, high = Paired({0: 1.0, 1: 2.0, 2: 3.0}).interval
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


def test_mean_of_changes_takes_the_seeds_that_all_have():
    both = mean_of([Paired({0: 1.0, 1: 3.0}), Paired({0: 2.0, 2: 5.0})])
    assert both.differences == {0: 1.5}
    assert mean_of([]).count == 0


def test_what_a_number_of_seeds_can_say():
    assert about_seeds([3, 1, 3]) == (
        "One seed decides nothing: the comparison is shown, the verdict is undecided. With 3 seeds the interval "
        "reaches 2.5 s to both sides, and all d have one sign by chance in 1 of 4."
    )
