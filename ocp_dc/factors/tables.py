"""The table of all combinations, and what each level changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from ocp_dc.experiments.definitions import MD17, MOLECULES
from ocp_dc.experiments.tables import centered_measure, circumstances, measures
from ocp_dc.factors.definitions import FACTORS, MOLECULE, REFERENCES, FactorExperiment
from ocp_dc.runs.comparison import Paired, mean_of, paired
from ocp_dc.runs.rendering import MISSING, Line, Section, Value
from ocp_dc.runs.results import Cell, Measure, Results
from ocp_dc.runs.tables import Group, Row, Table

ENERGY, FORCE = measures(MD17)
CENTERED = centered_measure(MD17)
MEASURES = (FORCE, ENERGY, CENTERED)


def cell_of(results: Results, molecule: str, levels: Sequence[str]) -> Cell:
    return results.cell(FactorExperiment(*levels, molecule).cell)


def molecules_of(results: Results) -> list[str]:
    """Those that have runs."""
    combinations = list(product(*FACTORS.values()))
    return [name for name in MOLECULES if any(cell_of(results, name, levels).runs for levels in combinations)]


def table_of(results: Results) -> Table:
    """A row for each activation, a column for each kind of labels and rate."""
    columns = list(product(FACTORS["labels"], FACTORS["rate"]))
    return Table(
        title="One factor at a time: SchNet's activation, labels and learning rate",
        labels=("Molecule", "Activation"),
        columns=tuple(f"{labels} / {rate}" for labels, rate in columns),
        groups=tuple(_group(molecule, columns) for molecule in molecules_of(results) or [MOLECULE]),
        measures=MEASURES,
        measured_on="on the test set",
    )


def _group(molecule: str, columns: Sequence[tuple[str, str]]) -> Group:
    return Group(
        tuple(
            Row((molecule, name), tuple(FactorExperiment(activation, *of, molecule).cell for of in columns))
            for activation, name in FACTORS["activation"].items()
        )
    )


def remarks(results: Results) -> list[str]:
    runs = [run for cell in table_of(results).cells(results) for run in cell.runs]
    meanings = (f"{level}: {name}" for factor in ("labels", "rate") for level, name in FACTORS[factor].items())
    return [
        f"{'; '.join(meanings)}. All else is the paper's protocol, its initial learning rate of 1e-4 too.",
        *circumstances(runs),
    ]


def effects_section(molecule: str, results: Results) -> Section:
    """What each level changes, held against the first of its factor."""
    lines = [
        Line((factor, name), tuple(_effects(molecule, factor, level, results)))
        for factor, levels in FACTORS.items()
        for level, name in list(levels.items())[1:]
    ]
    shown = ", ".join(measure.name for measure in MEASURES)
    defaults = "; ".join(f"{factor}: {next(iter(levels.values()))}" for factor, levels in FACTORS.items())
    return Section(
        title=f"What each level changes, {molecule}",
        header=("Factor", "Level", "on average", *(f"in the {name}" for name in REFERENCES)),
        rows=tuple(lines),
        notes=(
            f"What a level does to the {shown}, one above the other, held against the first level of its factor "
            f"({defaults}): the mean of ln(error / error there) ± its standard deviation over seeds, the factor by "
            "which the error is multiplied, and in how many comparisons it is lower.",
            "On average: over all levels of the other factors, each combination and seed being compared with the one "
            "that differs in this factor alone. In the paper's baseline or method: with its levels of the other "
            "factors. Combinations of which one lacks a result, or diverged, are left out.",
        ),
    )


def _effects(molecule: str, factor: str, level: str, results: Results) -> Iterator[tuple[Value, ...]]:
    position = list(FACTORS).index(factor)
    first = next(iter(FACTORS[factor]))
    others = [levels.keys() for name, levels in FACTORS.items() if name != factor]
    for settings in (list(product(*others)), *([_without(levels, position)] for levels in REFERENCES.values())):
        yield tuple(
            Value(_effect([_pair(molecule, position, (first, level), rest, measure, results) for rest in settings]))
            for measure in MEASURES
        )


def _without(levels: tuple[str, ...], position: int) -> tuple[str, ...]:
    return levels[:position] + levels[position + 1 :]


def _pair(
    molecule: str, position: int, changed: tuple[str, str], rest: tuple[str, ...], measure: Measure, results: Results
) -> Paired:
    """Two levels of a factor, with ``rest`` of the others."""
    baseline, other = (cell_of(results, molecule, (*rest[:position], level, *rest[position:])) for level in changed)
    return paired(baseline, other, measure).finite


def _effect(pairs: Sequence[Paired]) -> str:
    known = [pair for pair in pairs if pair.count]
    mean = mean_of(known)
    if not mean.count:
        return MISSING
    lower, compared = sum(pair.lower for pair in known), sum(pair.count for pair in known)
    return f"{mean}, lower in {lower} of {compared}"
