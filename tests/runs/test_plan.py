"""Where a plan's times are from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ocp_dc.runs.plan import Estimate, StepTime, StepTimes, format_plan
from ocp_dc.runs.records import write_record

A100, H100 = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"
ESTIMATE = Estimate(lambda run: None if run.settings == "unknown" else 5.0, "the weather")


@dataclass(frozen=True)
class Brew:
    folder: Path
    settings: str = "2 spoons"
    steps: int = 100
    log: str = "log.jsonl"
    pace: tuple[str, ...] = ("exact", "close")


@pytest.fixture
def measured(tmp_path):
    """A function that leaves a finished run."""

    def write(name: str, seconds: float, device: str | None, pace: str = "exact") -> None:
        folder = tmp_path / "runs" / name
        write_record(folder / "experiment.json", {"pace": [pace]})
        result = {"status": "finished", "step": 10, "seconds": 10 * seconds, "quantities": {}}
        write_record(folder / "result.json", {**result, **({"device": device} if device else {})})

    return write


def test_times_of_the_same_device_come_first_then_those_of_others_with_their_name(measured, tmp_path):
    run = Brew(tmp_path / "runs" / "new")
    assert StepTimes(tmp_path, A100, ESTIMATE).of(run) == StepTime(5.0, "estimated, GPU")
    assert StepTimes(tmp_path, A100).of(run) is None
    measured("on-cpu", 9.0, "CPU")
    assert StepTimes(tmp_path, A100, ESTIMATE).of(run).origin == "estimated, GPU"
    assert StepTimes(tmp_path, None, ESTIMATE).of(run).origin == "estimated, GPU"
    assert StepTimes(tmp_path, "CPU", ESTIMATE).of(run) == StepTime(9.0, "measured")
    measured("on-h100", 2.0, H100)
    assert StepTimes(tmp_path, A100, ESTIMATE).of(run) == StepTime(2.0, f"measured, {H100}")
    measured("on-a100", 3.0, A100)
    measured("on-a100-again", 4.0, A100)
    assert StepTimes(tmp_path, A100, ESTIMATE).of(run) == StepTime(3.5, "measured")


def test_a_closer_run_counts_for_more_than_a_closer_device(measured, tmp_path):
    measured("like-it", 2.0, H100, "exact")
    measured("another", 3.0, A100, "close")
    assert StepTimes(tmp_path, A100).of(Brew(tmp_path)) == StepTime(2.0, f"measured, {H100}")


def test_times_of_runs_that_are_only_like_it_are_said_to_be(measured, tmp_path):
    measured("another", 3.0, A100, "close")
    assert StepTimes(tmp_path, A100).of(Brew(tmp_path)) == StepTime(3.0, "measured, in runs like it")
    assert StepTimes(tmp_path, H100).of(Brew(tmp_path)) == StepTime(3.0, f"measured, {A100}, in runs like it")


def test_runs_of_earlier_versions_say_no_device_and_count_for_any(measured, tmp_path):
    measured("old", 7.0, None)
    for device in (A100, "CPU", None):
        assert StepTimes(tmp_path, device).of(Brew(tmp_path)) == StepTime(7.0, "measured")


def test_totals_tell_what_is_measured_estimated_and_unknown(measured, tmp_path):
    measured("on-cpu", 6.0, "CPU")
    brews = [Brew(tmp_path / "a"), Brew(tmp_path / "b", pace=()), Brew(tmp_path / "c", "unknown", pace=())]
    lines = format_plan(brews, tmp_path, "CPU", ESTIMATE, ["milk is extra"]).splitlines()
    assert lines[-4:] == [
        "time, one run after the other: 10 min (measured) + 8 min (estimated, GPU), and that of 1 runs whose step time "
        "is not measured yet",
        "estimated: the weather",
        "milk is extra",
        "3 runs",
    ]
