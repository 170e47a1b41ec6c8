"""The plan that `ocp-dc reproduce` prints: what will be run, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ocp_dc.runs.devices import CPU
from ocp_dc.runs.records import is_done, last_logged_step, read_record
from ocp_dc.runs.rendering import format_duration
from ocp_dc.terminal import format_table

# where times are from
MEASURED, ESTIMATED, UNKNOWN = "measured", "estimated, GPU", "not measured"
LIKE_IT = "in runs like it"


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


@dataclass(frozen=True)
class Estimate:
    """How long steps may take that have not been measured.

    Attributes:
        seconds: of a step of a run on a GPU; None where that is not known.
        assumption: what it rests on, in a sentence.
    """

    seconds: Callable[[PlannedRun], float | None]
    assumption: str


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step, and where they are from.

    That is ``measured`` (here, or where else; or in other runs that are like it), or ``estimated`` for a GPU.
    """

    seconds: float
    origin: str


class StepTimes:
    """How long a step takes: measured in the runs that finished in a folder, else estimated.

    Args:
        out: the folder.
        device: what the plan is for: the name of a device, or None for any GPU. Times of a CPU tell nothing of a GPU;
            those of a GPU are taken where there are none of the device itself.
        estimate: for what has not been measured.
    """

    def __init__(self, out: Path, device: str | None, estimate: Estimate | None = None) -> None:
        self._estimate = estimate
        self._measured: dict[str, dict[str, list[float]]] = {}
        for path in out.glob("runs/*/experiment.json"):
            description, result = read_record(path), read_record(path.with_name("result.json"))
            if result and result["status"] == "finished" and result["seconds"]:
                # runs of earlier versions do not say
                measured_on = result.get("device") or device or MEASURED
                if measured_on == CPU != device:
                    continue
                origin = MEASURED if measured_on in (device, MEASURED) else f"{MEASURED}, {measured_on}"
                for word in description.get("pace", ()):
                    times = self._measured.setdefault(word, {}).setdefault(origin, [])
                    times.append(result["seconds"] / result["step"])

    def of(self, run: PlannedRun) -> StepTime | None:
        """The mean over the runs that are closest to it, or what is estimated; None without any."""
        for closeness, word in enumerate(run.pace):
            found = self._measured.get(word, {})
            for origin in sorted(found):
                like_it = f", {LIKE_IT}" if closeness else ""
                return StepTime(sum(found[origin]) / len(found[origin]), origin + like_it)
        seconds = self._estimate.seconds(run) if self._estimate else None
        return None if seconds is None else StepTime(seconds, ESTIMATED)


def format_plan(
    runs: Sequence[PlannedRun],
    out: Path,
    device: str | None = CPU,
    estimate: Estimate | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The runs with their settings, steps, the time that is left and where it is from, and states; ``N runs`` at last.

    Args:
        device, estimate: see :class:`StepTimes`.
        notes: what else is to be said.
    """
    step_times = StepTimes(out, device, estimate)
    rows = [("#", "run", "config", "steps", "time", "from", "state")]
    left: dict[str, list[float]] = {}
    for index, run in enumerate(runs):
        result, step = read_record(run.folder / "result.json"), last_logged_step(run.folder / run.log)
        time = origin = ""
        state = f"at step {step:,}" if step else "to do"
        if is_done(result):
            state = result["status"]
        else:
            step_time = step_times.of(run)
            origin = step_time.origin if step_time else UNKNOWN
            left.setdefault(origin, []).append(step_time.seconds * (run.steps - step) if step_time else 0.0)
            time = format_duration(left[origin][-1]) if step_time else ""
        rows.append((str(index), run.folder.name, run.settings, f"{run.steps:,}", time, origin, state))
    assumed = [f"estimated: {estimate.assumption}"] if estimate and ESTIMATED in left else []
    return "\n".join([format_table(rows), _format_total(left), *assumed, *notes, f"{len(runs)} runs"])


def _format_total(left: Mapping[str, Sequence[float]]) -> str:
    """Of the runs that are not done, by where their times are from."""
    if not left:
        return "nothing is left to do"
    sums = [f"{format_duration(sum(seconds))} ({origin})" for origin, seconds in left.items() if origin != UNKNOWN]
    unknown = len(left.get(UNKNOWN, ()))
    if not sums:
        return f"time: {UNKNOWN}; it will be from the runs that finish"
    total = f"time, one run after the other: {' + '.join(sums)}"
    return f"{total}, and that of {unknown} runs whose step time is not measured yet" if unknown else total
