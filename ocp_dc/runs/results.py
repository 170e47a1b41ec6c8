"""What the runs in a folder came to, over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ocp_dc.errors import InputError
from ocp_dc.runs.records import is_done, last_logged_step, read_record


@dataclass(frozen=True)
class RunResult:
    """One run, as far as it has come.

    Attributes:
        folder: ``OUT/runs/<name>``.
        description: its ``experiment.json``.
        record: its ``result.json``; empty while it has none.
    """

    folder: Path
    description: dict
    record: dict

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def status(self) -> str:
        """``finished``, ``diverged``, ``failed`` or ``unfinished``."""
        return self.record.get("status", "unfinished")

    @property
    def step(self) -> int:
        """The steps taken, or the one at which the run diverged or failed."""
        return self.record["step"] if self.record else last_logged_step(self.folder / self.description["log"])

    def log_lines(self) -> list[str]:
        """The lines of the run's log, without one that is being written; none where there is no log."""
        path = self.folder / self.description["log"]
        return path.read_text("utf-8").split("\n")[:-1] if path.is_file() else []

    def logged(self, key: str, **match: str) -> tuple[list[int], list[float]]:
        """Steps and values of a key in the run's log, from the lines that have ``match`` in them."""
        # most lines of a long log are of other splits: not worth reading
        wanted = (line for line in self.log_lines() if all(json.dumps(value) in line for value in match.values()))
        records = [record for record in map(json.loads, wanted) if match.items() <= record.items()]
        found = [record for record in records if record.get(key) is not None]
        return [record["step"] for record in found], [record[key] for record in found]


@dataclass(frozen=True)
class Measure:
    """A quantity as a table shows it.

    Attributes:
        name: of the quantity in ``result.json``.
        unit: that it is shown in.
        units: how much of ``unit`` one of another unit is; quantities in yet others are an error.
        lower_is_better: whether the smaller of two is the better one; None where they are not compared.
    """

    name: str
    unit: str
    units: Mapping[str, float] = field(default_factory=dict)
    lower_is_better: bool | None = True

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def of(self, run: RunResult) -> float | None:
        """What a run came to; NaN if it diverged, None where there is no number."""
        if run.status == "diverged":
            return math.nan
        if run.status != "finished" or self.name not in run.record["quantities"]:
            return None
        quantity = run.record["quantities"][self.name]
        try:
            return quantity["value"] * self.factor(quantity["unit"])
        except InputError as error:
            raise InputError(f"{run.folder}: {error}") from error

    def factor(self, unit: str) -> float:
        """How much of the measure's unit one of another is.

        Raises:
            InputError: it is not known.
        """
        factors = {**self.units, self.unit: 1.0}
        if unit not in factors:
            raise InputError(f"{self.name} is in {unit!r}; known are {', '.join(factors)}")
        return factors[unit]

    def improves(self, baseline: float | None, other: float | None) -> bool | None:
        """Whether the other is better than the baseline; what diverged (NaN) is worse than all that did not.

        Returns:
            None where one is missing, both diverged, or this measure is not compared.
        """
        if baseline is None or other is None or self.lower_is_better is None:
            return None
        if math.isnan(baseline) and math.isnan(other):
            return None
        return math.isnan(baseline) or (other < baseline if self.lower_is_better else other > baseline)


@dataclass(frozen=True)
class Cell:
    """The runs of a cell of a table, one for each seed, in the order of their seeds."""

    name: str
    runs: tuple[RunResult, ...] = ()

    @property
    def finished(self) -> list[RunResult]:
        return [run for run in self.runs if run.status == "finished"]

    @property
    def diverged(self) -> list[RunResult]:
        return [run for run in self.runs if run.status == "diverged"]

    def mean(self, measure: Measure) -> float | None:
        """Over the seeds that finished; NaN if all that ended diverged, None if none has ended."""
        values = self._values(measure)
        if values:
            return statistics.fmean(values)
        return math.nan if self.diverged else None

    def deviation(self, measure: Measure) -> float | None:
        """The sample standard deviation over the seeds that finished; None for less than two."""
        values = self._values(measure)
        return statistics.stdev(values) if len(values) > 1 else None

    def extent(self, measure: Measure) -> tuple[float, float]:
        """How far the lowest of the seeds that finished lies below their mean, and the highest above."""
        values = self._values(measure)
        mean = statistics.fmean(values)
        return mean - min(values), max(values) - mean

    def _values(self, measure: Measure) -> list[float]:
        return [value for run in self.finished if (value := measure.of(run)) is not None]


class Results:
    """All runs of a folder, by cell."""

    def __init__(self, runs: Iterable[RunResult]) -> None:
        self._runs: dict[str, list[RunResult]] = {}
        for run in sorted(runs, key=lambda run: run.description["seed"]):
            self._runs.setdefault(run.description["cell"], []).append(run)

    @property
    def cells(self) -> list[str]:
        """Those that have runs."""
        return sorted(self._runs)

    def cell(self, name: str) -> Cell:
        """The runs of a cell, whatever their seeds."""
        return Cell(name, tuple(self._runs.get(name, ())))


def read_results(out: Path) -> Results:
    """The runs in ``out/runs``, finished or not.

    Raises:
        InputError: there is no such folder, or a file of a run is damaged.
    """
    if not out.is_dir():
        raise InputError(f"{out}: there is no such folder; give the --out of `ocp-dc reproduce`")
    return Results(_read_run(path) for path in out.glob("runs/*/experiment.json"))


def _read_run(path: Path) -> RunResult:
    description, record = read_record(path), read_record(path.with_name("result.json")) or {}
    missing = [key for key in ("cell", "seed", "steps", "log") if key not in description]
    if missing or (record.get("status") == "finished" and not is_done(record)):
        raise InputError(
            f"{path.parent} is damaged, or of an earlier version: it lacks {', '.join(missing) or 'quantities'}. Run "
            "the same `ocp-dc reproduce` again: what has been trained is not trained again; or remove that folder"
        )
    return RunResult(path.parent, description, record)
