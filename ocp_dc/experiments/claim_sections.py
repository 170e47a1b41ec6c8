"""The paper's claims beside our runs: each comparison seed by seed, and whether the claim is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ocp_dc.experiments.claims import CLAIMS, ENERGY, Claim
from ocp_dc.experiments.definitions import COLUMNS, MODELS, TABLES, Experiment, paper_value
from ocp_dc.experiments.tables import PROTOCOL_SUFFIXES, centered_measure, measures
from ocp_dc.experiments.validation import LAST_EPOCHS, LastEpochs
from ocp_dc.runs.comparison import RULE, Paired, about_seeds, paired
from ocp_dc.runs.rendering import Line, Section, Value, format_number
from ocp_dc.runs.results import Cell, Measure, Results
from ocp_dc.runs.tables import format_mean

HEADER = (
    "Claim",
    "Model",
    "Molecule",
    "Error",
    "Baseline",
    "Method",
    "ln (method / baseline)",
    "Verdict",
    "In the paper",
)
WAYS = (
    "Last step: on the test set after the last step, as the paper takes it. Last five epochs: the median of their "
    "errors on the validation set. Centered: on the test set, without the mean error of the energies, a constant that "
    "changes no force and no relative energy."
)


@dataclass(frozen=True)
class Comparison:
    """Of a baseline and its method, in one way to measure the error."""

    way: str
    measure: Measure
    pair: Paired


@dataclass(frozen=True)
class Compared:
    """A claim on one model and molecule, in one protocol, in all ways that there are results of."""

    claim: Claim
    protocol: str
    experiments: tuple[Experiment, Experiment]
    cells: tuple[Cell, Cell]
    comparisons: tuple[Comparison, ...]

    @property
    def verdicts(self) -> list[str]:
        return [comparison.pair.verdict(self.claim.direction) for comparison in self.comparisons]


def claim_sections(target: str, results: Results) -> list[Section]:
    """What a table's claims look like in our runs; none where no claim has runs of both baseline and method."""
    claims = [claim for claim in CLAIMS if claim.table == target]
    found = [row for claim in claims for protocol in PROTOCOL_SUFFIXES for row in _compared(claim, protocol, results)]
    if not found:
        return []
    comparisons = [comparison for row in found for comparison in row.comparisons]
    counts = Counter(verdict for row in found for verdict in row.verdicts)
    section = Section(
        title=f"Table {target.removeprefix('table')}: the paper's claims",
        header=HEADER,
        rows=tuple(map(_line, found)),
        notes=(
            f"Baseline and method: ours, as mean ± standard deviation over seeds. {WAYS}",
            "ln (method / baseline): its mean ± standard deviation over seeds, the factor that the mean stands for, "
            f"and in how many seeds the method's error is lower. {RULE}",
            "In the paper: its records of baseline and method, after the last step, and on how many molecules its "
            "records show the claim.",
            about_seeds(comparison.pair.count for comparison in comparisons),
            f"Verdicts: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}.",
        ),
    )
    return [section]


def _compared(claim: Claim, protocol: str, results: Results) -> Iterator[Compared]:
    for experiments in claim.pairs(protocol):
        cells = tuple(results.cell(each.cell) for each in experiments)
        ways = (Comparison(way, measure, paired(*cells, measure)) for way, measure in _ways(claim))
        known = tuple(comparison for comparison in ways if comparison.pair.count)
        if known:
            yield Compared(claim, protocol, experiments, cells, known)


def _ways(claim: Claim) -> Iterator[tuple[str, Measure]]:
    collection = TABLES[claim.table].collection
    (measure,) = (each for each in measures(collection) if each.name == claim.quantity)
    yield "last step", measure
    yield f"last {LAST_EPOCHS} epochs", LastEpochs(measure.name, measure.unit, measure.units)
    if claim.quantity == ENERGY:
        yield "last step", centered_measure(collection)


def _line(row: Compared) -> Line:
    claim, baseline = row.claim, row.experiments[0]
    shown, of = claim.papers_count(baseline.model)
    columns = (
        [f"{each.measure.name}, {each.way}" for each in row.comparisons],
        *([format_mean(cell, each.measure) for each in row.comparisons] for cell in row.cells),
        [each.pair.summary for each in row.comparisons],
        row.verdicts,
        [*_papers(row), f"{shown} of {of}"],
    )
    words = f"{claim.quantity} {claim.direction.value}: {claim.words} ({claim.where})"
    title = f"{MODELS[baseline.model].title}{PROTOCOL_SUFFIXES[row.protocol]}"
    return Line((words, title, COLUMNS[baseline.molecule]), tuple(tuple(map(Value, column)) for column in columns))


def _papers(row: Compared) -> list[str]:
    """Its records of the last step, where it has both."""
    values = [paper_value(each, row.claim.table) or paper_value(each) for each in row.experiments]
    return [" → ".join(format_number(value.published[row.claim.quantity]) for value in values)] if all(values) else []
