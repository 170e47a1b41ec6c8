"""The plan that `ocp-dc reproduce` prints: what will be run, and how long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ocp_dc.runs.records import is_done, last_logged_step, read_record
from ocp_dc.runs.rendering import format_duration
from ocp_dc.terminal import format_table


class PlannedRun(Protocol):
    """A run before it is described in its folder.

    Attributes:
        folder: ``OUT/runs/<name>``.
        settings: what is run, in a word, such as its config.
        steps, log, pace: as in ``experiment.json`` (see :mod:`ocp_dc.runs`).
    """

    folder: Path
    settings: str
    steps: int
    log: str
    pace: Sequence[str]


class StepTimes:
    """Seconds per step in the runs that finished in a folder."""

    def __init__(self, out: Path) -> None:
        self._measured: dict[str, list[float]] = {}
        for path in out.glob("runs/*/experiment.json"):
            description, result = read_record(path), read_record(path.with_name("result.json"))
            if result and result["status"] == "finished" and result["seconds"]:
                for word in description.get("pace", ()):
                    self._measured.setdefault(word, []).append(result["seconds"] / result["step"])

    def of(self, run: PlannedRun) -> float | None:
        """The mean over the runs that are closest to it; None without any."""
        times = next((self._measured[word] for word in run.pace if word in self._measured), None)
        return sum(times) / len(times) if times else None


def format_plan(runs: Sequence[PlannedRun], out: Path) -> str:
    """The runs with their settings, steps, estimated times and states; ``N runs`` in the last line."""
    step_times = StepTimes(out)
    rows = [("#", "run", "config", "steps", "estimated", "state")]
    seconds = []
    for index, run in enumerate(runs):
        result, step = read_record(run.folder / "result.json"), last_logged_step(run.folder / run.log)
        estimate, state = "", f"at step {step:,}" if step else "to do"
        if is_done(result):
            state = result["status"]
        else:
            step_time = step_times.of(run)
            seconds.append(None if step_time is None else step_time * (run.steps - step))
            estimate = "not measured" if step_time is None else format_duration(seconds[-1])
        rows.append((str(index), run.folder.name, run.settings, f"{run.steps:,}", estimate, state))
    return "\n".join([format_table(rows), _format_total(seconds), f"{len(runs)} runs"])


def _format_total(seconds: Sequence[float | None]) -> str:
    measured = [value for value in seconds if value is not None]
    if not seconds:
        return "nothing is left to do"
    if not measured:
        return "estimated time: not measured; it will be from the runs that finish"
    total = f"estimated time, one run after the other: {format_duration(sum(measured))}"
    left = len(seconds) - len(measured)
    return f"{total}, and that of {left} runs whose step time is not measured yet" if left else total
