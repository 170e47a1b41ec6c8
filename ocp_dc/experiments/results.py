"""What the runs in a folder came to: their errors, over seeds, and how they compare with the paper."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import Experiment, PaperValue
from ocp_dc.experiments.records import last_logged_step, metrics_path, read_record
from ocp_dc.units import ENERGY_UNITS_IN_EV

# the errors that the paper's tables show, energy over force
QUANTITIES = ("energy", "force")


@dataclass(frozen=True)
class RunResult:
    """One run, as far as it has come.

    Attributes:
        experiment: what it is a run of.
        folder: ``OUT/runs/<experiment.id>``.
        description: its ``experiment.json``.
        record: its ``result.json``; empty while it has none.
    """

    experiment: Experiment
    folder: Path
    description: dict
    record: dict

    @property
    def status(self) -> str:
        """``finished``, ``diverged``, ``failed`` or ``unfinished``."""
        return self.record.get("status", "unfinished")

    @property
    def step(self) -> int:
        """The steps taken, or the one at which training diverged or failed."""
        return self.record["step"] if self.record else last_logged_step(self.folder)

    def error(self, quantity: str) -> float | None:
        """The mean absolute test error in the paper's units; NaN if training diverged, None where there is none."""
        if self.status == "diverged":
            return math.nan
        if self.status != "finished":
            return None
        unit, papers = self.record["energy_unit"], self.experiment.collection.energy_unit
        return self.record[f"{quantity}_mae"] * ENERGY_UNITS_IN_EV[unit] / ENERGY_UNITS_IN_EV[papers]

    def predictions(self) -> dict[str, np.ndarray] | None:
        """``errors.npz``, None where there is none."""
        path = self.folder / "errors.npz"
        if not path.is_file():
            return None
        with np.load(path) as arrays:
            return dict(arrays)

    def training_loss(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (L,) and the training loss (L,) logged there."""
        path = metrics_path(self.folder)
        # the last piece is empty, or a line that is being written
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        records = [record for record in map(json.loads, lines) if record["split"] == "train"]
        logged = [(record["step"], record["loss"]) for record in records if record.get("loss") is not None]
        steps, losses = np.array(logged, dtype=float).reshape(-1, 2).T
        return steps, losses


@dataclass(frozen=True)
class Cell:
    """The runs of one experiment, one for each seed.

    Attributes:
        experiment: with seed 0.
        runs: in the order of their seeds.
    """

    experiment: Experiment
    runs: tuple[RunResult, ...] = ()

    @property
    def finished(self) -> list[RunResult]:
        return [run for run in self.runs if run.status == "finished"]

    @property
    def diverged(self) -> list[RunResult]:
        return [run for run in self.runs if run.status == "diverged"]

    def mean(self, quantity: str) -> float | None:
        """Over the seeds that finished; NaN if all that ended diverged, None if none has ended."""
        if self.finished:
            return statistics.fmean(run.error(quantity) for run in self.finished)
        return math.nan if self.diverged else None

    def deviation(self, quantity: str) -> float | None:
        """The sample standard deviation over the seeds that finished; None for less than two."""
        if len(self.finished) < 2:
            return None
        return statistics.stdev(run.error(quantity) for run in self.finished)


class Results:
    """All runs of a folder, by experiment."""

    def __init__(self, runs: Iterable[RunResult]) -> None:
        self._runs: dict[Experiment, list[RunResult]] = {}
        for run in sorted(runs, key=lambda run: run.experiment.seed):
            self._runs.setdefault(replace(run.experiment, seed=0), []).append(run)

    def cell(self, experiment: Experiment) -> Cell:
        """The runs of an experiment, whatever their seeds."""
        of_any_seed = replace(experiment, seed=0)
        return Cell(of_any_seed, tuple(self._runs.get(of_any_seed, ())))


def read_results(out: Path) -> Results:
    """The runs in ``out/runs``, finished or not.

    Raises:
        InputError: there is no such folder, or a file of a run is damaged.
    """
    if not out.is_dir():
        raise InputError(f"{out}: there is no such folder; give the --out of `ocp-dc reproduce`")
    return Results(_read_run(path) for path in out.glob("runs/*/experiment.json"))


def _read_run(path: Path) -> RunResult:
    try:
        description = read_record(path)
        experiment = Experiment.of_record(description)
        record = read_record(path.with_name("result.json")) or {}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path.parent}: experiment.json or result.json is damaged ({type(error).__name__}: {error}); "
            "remove that folder and run `ocp-dc reproduce` again"
        ) from None
    return RunResult(experiment, path.parent, description, record)


def improves(baseline: float | None, method: float | None) -> bool | None:
    """Whether the method's error is below its baseline's; one that diverged (NaN) is above all that did not.

    Returns:
        None where an error is missing or both diverged.
    """
    if baseline is None or method is None or (math.isnan(baseline) and math.isnan(method)):
        return None
    return math.isnan(baseline) or method < baseline


def agrees(quantity: str, ours: tuple[Cell, Cell], papers: tuple[PaperValue | None, PaperValue | None]) -> bool | None:
    """Whether the method improves on its baseline here if it does in the paper, and does not if it does not there.

    Args:
        quantity: of ``QUANTITIES``.
        ours, papers: the baseline's and the method's.

    Returns:
        None where one of the four is missing.
    """
    if None in papers:
        return None
    here = improves(*(cell.mean(quantity) for cell in ours))
    there = improves(*(getattr(paper, quantity) for paper in papers))
    return None if here is None or there is None else here == there
