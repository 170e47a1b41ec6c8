"""``ocp-dc md-report``: metrics of simulations, side by side."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ocp_dc.calculator import load
from ocp_dc.datasets.manifest import sha256_of
from ocp_dc.datasets.structure_files import Structures, read_structures
from ocp_dc.errors import InputError
from ocp_dc.files import replace_bytes, replace_text
from ocp_dc.runs.rendering import MISSING, Line, Section, Value, to_markdown, to_text
from ocp_dc.simulate.figures import pictures
from ocp_dc.simulate.measuring import Measured, ReplicaMetrics, measure
from ocp_dc.simulate.metrics import mean_and_deviation
from ocp_dc.simulate.reading import Reference, Simulation, read_simulation

TITLE = "Molecular dynamics"
# of larger data, so many random structures are taken
MOST_IN_REFERENCE = 10_000
MOST_TESTED = 1_000
MEV = 1000


@dataclass(frozen=True)
class Metric:
    """A column: its name and unit, and a number for each replica, some None."""

    name: str
    unit: str
    of: Callable[[ReplicaMetrics], float | None]
    form: str

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def values(self, measured: Measured) -> list[float]:
        return [value for replica in measured.replicas if (value := self.of(replica)) is not None]

    def shown(self, measured: Measured) -> str:
        """Mean ± deviation."""
        values = self.values(measured)
        if not values:
            return MISSING
        mean, deviation = mean_and_deviation(values)
        return f"{mean:{self.form}}" + ("" if deviation is None else f" ± {deviation:{self.form.lstrip('+')}}")

    def record(self, measured: Measured) -> dict[str, Any]:
        values = self.values(measured)
        mean, deviation = mean_and_deviation(values) if values else (None, None)
        return {
            "unit": self.unit,
            "mean": mean,
            "deviation": deviation,
            "values": list(map(self.of, measured.replicas)),
        }


METRICS = (
    Metric("stability", "ps", lambda replica: replica.stability, ".4g"),
    Metric("h(r) error", "", lambda replica: replica.distribution_error, ".3f"),
    Metric("drift", "meV/atom/ps", lambda replica: replica.drift, "+.3g"),
    Metric("residual", "meV/atom", lambda replica: replica.drift_residual, ".3g"),
    Metric("temperature", "K", lambda replica: replica.temperature, ".0f"),
)


def report(
    folders: Sequence[Path],
    reference: str,
    test: str | None = None,
    names: Sequence[str] | None = None,
    out: Path | None = None,
    warm_up: float | None = None,
    cpu: bool = False,
) -> str:
    """The table of some simulations; with ``out``, also files of it: JSON, Markdown, figures.

    Args:
        folders: of simulations, finished or not.
        reference: what bond lengths and h(r) are compared with.
        test: labelled structures that a checkpoint's forces are tested on; None for the reference.
        names: of the simulations, None for their folders'.
        out: folder to write to.
        warm_up: left out of drift and temperature, in ps; None for a tenth of a simulation.
        cpu: use the CPU even if there is a GPU.

    Raises:
        InputError: no such simulation or reference, or they are of different atoms.
    """
    simulations = [read_simulation(*each) for each in zip(folders, _names(folders, names), strict=True)]
    structures = read_structures(reference)
    of_reference = Reference(reference, _some(structures, MOST_IN_REFERENCE))
    tested = _labelled(read_structures(test) if test else structures)
    errors: dict[str, float | None] = {}
    measured = []
    for simulation in simulations:
        checkpoint = simulation.description["identity"]["checkpoint_sha256"]
        if checkpoint not in errors:
            errors[checkpoint] = _force_error(simulation, tested, cpu)
        replicas = tuple(
            measure(trajectory, simulation, of_reference, warm_up) for trajectory in simulation.trajectories
        )
        measured.append(Measured(simulation, replicas, errors[checkpoint]))
    notes = [
        f"Reference: {reference}, {min(len(structures), MOST_IN_REFERENCE):,} of {len(structures):,} structures. "
        f"Force MAE: on {len(tested):,} of {test or reference}.",
        *_ends(measured),
    ]
    section = _section(measured, notes)
    if out:
        _write(out, measured, section, of_reference, notes)
    return to_text(section)


def _names(folders: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    if names:
        if len(names) != len(folders):
            raise InputError(f"--names has {len(names)} names for {len(folders)} runs; give one for each")
        return list(names)
    counts = Counter(folder.resolve().name for folder in folders)
    return [
        folder.name if counts[folder.name] == 1 else f"{folder.parent.name}/{folder.name}"
        for folder in map(Path.resolve, folders)
    ]


def _some(structures: Structures, most: int) -> list:
    rows = np.arange(len(structures))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    return [structures[int(row)] for row in rows]


def _labelled(structures: Structures) -> list:
    return [atoms for atoms in _some(structures, MOST_TESTED) if atoms.calc and "forces" in atoms.calc.results]


def _force_error(simulation: Simulation, tested: list, cpu: bool) -> float | None:
    """The mean error of a force component, eV/Å; None, said in the log, where checkpoint or labels are missing."""
    path = Path(simulation.description["checkpoint"])
    identity = simulation.description["identity"]
    if not tested:
        logging.warning("no structure has forces: there is no force MAE; give labelled ones with --test")
        return None
    if not path.is_file() or sha256_of(path) != identity["checkpoint_sha256"]:
        logging.warning(f"{path} is not the checkpoint of {simulation.folder} any more: there is no force MAE")
        return None
    model = load(path, "cpu" if cpu else None, identity["energy_unit"], any_element=True)
    results = model.evaluate(tested)
    differences = [
        result["forces"] - atoms.calc.results["forces"] for result, atoms in zip(results, tested, strict=True)
    ]
    return float(np.abs(np.concatenate(differences)).mean())


def _ends(measured: Sequence[Measured]) -> list[str]:
    return [
        f"{each.simulation.name}: replica {number} ended at {trajectory.ended_ps:g} ps: {trajectory.reason}."
        for each in measured
        for number, trajectory in enumerate(each.simulation.trajectories)
        if trajectory.ended_ps is not None
    ]


def _section(measured: Sequence[Measured], notes: Sequence[str]) -> Section:
    shown = [metric for metric in METRICS if any(map(metric.values, measured))]
    header = ("run", "conditions", "ps", "stable", *(metric.title for metric in shown), "force MAE (meV/Å)", "steps/s")
    rows = []
    for each in measured:
        stable = sum(not replica.broken for replica in each.replicas)
        rate = each.simulation.steps_per_second
        cells = [
            f"{each.simulation.done_ps:g}",
            f"{stable} of {len(each.replicas)}",
            *(metric.shown(each) for metric in shown),
            MISSING if each.force_mae is None else f"{MEV * each.force_mae:.1f}",
            MISSING if rate is None else f"{rate:,.0f} × {len(each.replicas)}",
        ]
        labels = (each.simulation.name, each.simulation.conditions)
        rows.append(Line(labels, tuple((Value(cell),) for cell in cells)))
    legend = "Mean ± standard deviation over replicas. Steps/s: of the batch, times the replicas in it."
    return Section("Simulations", header, tuple(rows), legend, tuple(notes))


def _write(
    out: Path, measured: Sequence[Measured], section: Section, reference: Reference, notes: Sequence[str]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    record = {"notes": list(notes), "runs": list(map(_record, measured))}
    replace_text(out / "report.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    shown = pictures(measured, reference)
    for picture in shown:
        replace_bytes(out / f"{picture.name}.png", picture.png)
    text = to_markdown(TITLE, [], [section, Section("Figures", pictures=tuple(shown))], ".")
    replace_text(out / "report.md", text)


def _record(measured: Measured) -> dict[str, Any]:
    simulation = measured.simulation
    return {
        "name": simulation.name,
        "folder": str(simulation.folder),
        "settings": vars(simulation.settings),
        "done": {"unit": "ps", "value": simulation.done_ps},
        "stable replicas": sum(not replica.broken for replica in measured.replicas),
        "force MAE": {"unit": "eV/Å", "value": measured.force_mae},
        "steps per second": {"unit": "1/s", "value": simulation.steps_per_second},
        **{metric.name: metric.record(measured) for metric in METRICS},
    }
