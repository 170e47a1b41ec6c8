"""What a report says of candidates: their errors, and whether they are better than the recommended protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ocp_dc.candidates.definitions import (
    CANDIDATES,
    INTEGRATED,
    JOINT,
    RECOMMENDED,
    TARGET,
    CandidateExperiment,
    candidate_of,
    on_validation,
)
from ocp_dc.experiments.definitions import COLUMNS, MODELS, collection_of
from ocp_dc.experiments.tables import centered_measure, circumstances, measures
from ocp_dc.runs.comparison import CONFIDENCE, NEGLIGIBLE, Direction, Paired, about_seeds, paired
from ocp_dc.runs.rendering import Line, Section, Value
from ocp_dc.runs.results import Cell, Measure, Results
from ocp_dc.runs.tables import Group, Row, Table

# of the claim that a candidate's error is lower
VERDICTS = {"seen": "better", "opposite": "worse", "not seen": "alike", "undecided": "undecided"}
RULE = (
    f"Better (worse): the {CONFIDENCE:.0%} interval of the mean of ln(candidate / recommended) over seeds, by "
    f"Student's t, lies below (above) 0; alike: it lies within ± ln {NEGLIGIBLE}; else undecided. A seed in which only "
    "one diverged counts as infinitely worse."
)


@dataclass(frozen=True)
class Compared:
    """The candidates of a model on a molecule that have runs, by the validation set's force error."""

    model: str
    molecule: str
    cells: dict[str, Cell]

    @property
    def title(self) -> str:
        return f"{MODELS[self.model].title}, {self.molecule}"

    def pairs(self, candidate: str) -> list[Paired]:
        """It and the recommended protocol, by each of :func:`measures_on_validation`."""
        recommended = self.cells.get(RECOMMENDED, Cell(RECOMMENDED))
        measures_shown = measures_on_validation(self.molecule)
        return [paired(recommended, self.cells[candidate], measure) for measure in measures_shown]

    def verdicts(self, candidate: str) -> list[str]:
        return [VERDICTS[pair.verdict(Direction.LOWER)] for pair in self.pairs(candidate)]

    def is_better(self, candidate: str) -> bool:
        """In forces, and worse in no energy."""
        of_forces, *of_energies = self.verdicts(candidate)
        return of_forces == "better" and "worse" not in of_energies

    def is_as_good(self, candidate: str) -> bool:
        """In forces and energies, on average over seeds."""
        of_forces, of_energies, _ = self.pairs(candidate)
        return all(pair.mean < math.log(NEGLIGIBLE) for pair in (of_forces, of_energies))


def all_compared(results: Results) -> list[Compared]:
    """Of each molecule and model that has runs."""
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    for experiment in _experiments(results):
        found.setdefault((experiment.molecule, experiment.model), {})[experiment.candidate] = results.cell(
            experiment.cell
        )
    return [
        Compared(model, molecule, _by_error(found[molecule, model], molecule))
        for molecule, model in product(COLUMNS, MODELS)
        if (molecule, model) in found
    ]


def _experiments(results: Results) -> Iterator[CandidateExperiment]:
    """Those that have runs, but for candidates of other versions."""
    for cell in results.cells:
        if cell.startswith(f"{TARGET}-"):
            experiment = CandidateExperiment.of_id(cell)
            if set(experiment.candidate.split(JOINT)) <= set(CANDIDATES):
                yield experiment


def _by_error(cells: dict[str, Cell], molecule: str) -> dict[str, Cell]:
    of_forces, *_ = measures_on_validation(molecule)

    def error(name: str) -> float:
        mean = cells[name].mean(of_forces)
        return math.inf if mean is None or math.isnan(mean) else mean

    return {name: cells[name] for name in sorted(cells, key=error)}


def measures_on_test(molecule: str) -> tuple[Measure, ...]:
    """The errors of forces, of energies, and of energies without their mean, on the test set."""
    collection = collection_of(molecule)
    energy, force = measures(collection)
    return force, energy, centered_measure(collection)


def measures_on_validation(molecule: str) -> tuple[Measure, ...]:
    """The same on the validation set."""
    return tuple(replace(measure, name=on_validation(measure.name)) for measure in measures_on_test(molecule))


def tables_of(results: Results) -> list[Table]:
    """For each model and molecule a row for each candidate that has runs."""
    return [
        Table(
            title=f"{compared.title}: candidates for the recommended protocol",
            labels=("Candidate", "What it is"),
            columns=("",),
            groups=(Group(tuple(_row(name, cell) for name, cell in compared.cells.items())),),
            measures=(*measures_on_validation(compared.molecule), *measures_on_test(compared.molecule)),
            measured_on="after the last step, on the test set or, where that is said, on the validation set",
            measures_in_columns=True,
        )
        for compared in all_compared(results)
    ]


def _row(name: str, cell: Cell) -> Row:
    return Row((name, candidate_of(name)[1].title), (cell.name,), highlighted=name == RECOMMENDED)


def remarks(results: Results) -> list[str]:
    runs = [run for compared in all_compared(results) for cell in compared.cells.values() for run in cell.runs]
    untested = sorted({run.description["molecule"] for run in runs if "test" not in run.description["split"]["sizes"]})
    return [
        "All but the paper's two protocols are the recommended config with one change, or several joined by +; the "
        "plan, `--dry-run`, has them as arguments. Rows are in the order of the force error on the validation set, "
        "which a choice is by.",
        *([f"Tested on the validation set itself: {', '.join(untested)}."] if untested else []),
        *circumstances(runs),
    ]


def comparison_sections(results: Results) -> list[Section]:
    """For each model and molecule that has the recommended protocol's runs, what it says of the others'."""
    return [_section(compared) for compared in all_compared(results) if RECOMMENDED in compared.cells]


def _section(compared: Compared) -> Section:
    others = [name for name in compared.cells if name != RECOMMENDED]
    better = [name for name in others if compared.is_better(name)]
    integrated = [name for name in others if candidate_of(name)[1].activation in INTEGRATED]
    as_good = [name for name in integrated if compared.is_as_good(name)]
    counts = {pair.count for name in others for pair in compared.pairs(name)}
    return Section(
        title=f"{compared.title}: held against the recommended protocol",
        header=("Candidate", "Error", "ln (candidate / recommended)", "Verdict"),
        rows=tuple(_line(name, compared) for name in others),
        notes=(
            "ln (candidate / recommended), seed by seed: its mean ± standard deviation, the factor that the mean "
            f"stands for, and in how many seeds the candidate's error is lower. {RULE}",
            about_seeds(counts - {0}),
            f"Better in forces, and in no energy worse: {_listed(better, others)}.",
            "Integrated or bounded activations as good as the model's own, which is where on average over seeds the "
            f"force and the energy error are less than {NEGLIGIBLE} times as large: {_listed(as_good, integrated)}.",
        ),
    )


def _line(name: str, compared: Compared) -> Line:
    columns = (
        [measure.name for measure in measures_on_validation(compared.molecule)],
        [pair.summary for pair in compared.pairs(name)],
        compared.verdicts(name),
    )
    return Line((name,), tuple(tuple(map(Value, column)) for column in columns))


def _listed(found: Sequence[str], of: Sequence[str]) -> str:
    return ", ".join(found) if found else f"none of {len(of)} that were run"
