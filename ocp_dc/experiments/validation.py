"""What a run's log says of its errors on the validation set."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from ocp_dc.experiments.definitions import MEASURED, collection_of
from ocp_dc.runs.results import Measure, RunResult

# in a log, by the name of the measure
LOG_KEYS = dict(zip(MEASURED, ("energy_mae", "forces_mae"), strict=True))
LAST_EPOCHS = 5


def validation_errors(run: RunResult, measure: Measure) -> tuple[list[int], list[float]]:
    """Steps and errors, in the measure's unit.

    Args:
        measure: of :data:`LOG_KEYS`.
    """
    steps, errors = run.logged(LOG_KEYS[measure.name], split="val")
    factor = measure.factor(_unit(run, measure))
    return steps, [error * factor for error in errors]


def _unit(run: RunResult, measure: Measure) -> str:
    """Of the labels, which logs do not state; nor do runs of earlier versions, which have the paper's."""
    energy_unit = run.description.get("energy_unit", collection_of(run.description["molecule"]).energy_unit)
    return f"{energy_unit}/Å" if measure.unit.endswith("/Å") else energy_unit


@dataclass(frozen=True)
class LastEpochs(Measure):
    """The median of the validation errors of the last five epochs: less a matter of chance than the last step's."""

    @property
    def title(self) -> str:
        return f"{super().title}, median of the last {LAST_EPOCHS} epochs on the validation set"

    def of(self, run: RunResult) -> float | None:
        """What a run came to; NaN if it diverged, None where there is no number."""
        if run.status != "finished":
            return math.nan if run.status == "diverged" else None
        steps = run.description["steps"]
        first = steps - LAST_EPOCHS * steps / run.description["epochs"]
        last = [error for step, error in zip(*validation_errors(run, self), strict=True) if step > first]
        return statistics.median(last) if last else None
