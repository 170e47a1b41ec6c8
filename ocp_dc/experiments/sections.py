"""What a report says: the paper's tables and figures from our runs, ours beside theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ocp_dc.experiments import figures
from ocp_dc.experiments.definitions import (
    COLUMNS,
    MD17,
    MODELS,
    MOLECULES,
    OC22,
    PAPER_BETA,
    TABLES,
    Experiment,
    PaperValue,
    Table,
    collection_of,
    paper_value,
    recommended_variants,
)
from ocp_dc.experiments.plan import format_duration
from ocp_dc.experiments.rendering import MISSING, Picture, Row, Section, Value, format_number
from ocp_dc.experiments.results import QUANTITIES, Cell, Results, RunResult, agrees

# what a model's name is followed by
PROTOCOL_TITLES = {
    "paper": "",
    "as_published": ", as published: no periodic images",
    "recommended": ", recommended protocol (ours)",
}
SPLIT_VERBS = {"train": "train", "val": "validate", "test": "test"}
FIGURE_LEGEND = (
    "Energy MAE (kcal/mol) over force MAE (kcal/mol/Å) on the test set, mean ± standard deviation over seeds; the "
    f"paper's numbers, where there are records of them, in parentheses. {MISSING}: no result yet."
)


@dataclass(frozen=True)
class Pair:
    """A model in a table: a baseline and, where the table compares, the method (*) it is held against."""

    model: str
    variants: tuple[str, ...]
    protocol: str = "paper"

    def cells(self, results: Results, molecule: str) -> list[Cell]:
        size = collection_of(molecule).size
        experiments = [Experiment(self.model, name, molecule, size, protocol=self.protocol) for name in self.variants]
        return [results.cell(experiment) for experiment in experiments]


def cells_of(target: str, results: Results) -> list[Cell]:
    """The cells of a table or figure, with and without runs; those of other protocols than the paper's only with."""
    table = TABLES[target]
    if target in FIGURES:
        return [results.cell(each) for each in table.experiments(_figure_molecules(table, results), seed=0)]
    cells = [results.cell(experiment) for experiment in table.experiments(table.molecules, seed=0)]
    others = [pair for pair in _pairs(table) if pair.protocol != "paper"]
    extra = [cell for pair in others for molecule in table.molecules for cell in pair.cells(results, molecule)]
    return cells + [cell for cell in extra if cell.runs]


def sections_of(targets: Sequence[str], results: Results) -> list[Section]:
    """A section for each table and figure that has runs, and one of all those runs."""
    sections = [section for target in targets if (section := section_of(target, results))]
    runs = {run.experiment.id: run for target in targets for cell in cells_of(target, results) for run in cell.runs}
    return [*sections, _runs_section(list(runs.values()))] if runs else sections


def section_of(target: str, results: Results) -> Section | None:
    """A table or figure; None while it has no run."""
    if not any(cell.runs for cell in cells_of(target, results)):
        return None
    return FIGURES.get(target, _table_section)(TABLES[target], results)


def _pairs(table: Table) -> Iterator[Pair]:
    for row in table.rows:
        yield Pair(row.model, tuple(row.variants))
        if table.collection == OC22:
            yield Pair(row.model, tuple(row.variants), "as_published")
        yield Pair(row.model, recommended_variants(row.model, table.collection), "recommended")


def _figure_molecules(table: Table, results: Results) -> list[str]:
    """Those with a run that is the figure's own: the tables' runs are at the usual β and training size."""
    experiments = table.experiments(tuple(MOLECULES), seed=0)
    own = [each for each in experiments if each.beta != PAPER_BETA or each.train_size != MD17.size]
    return list(dict.fromkeys(each.molecule for each in own if results.cell(each).runs))


# --- tables ---------------------------------------------------------------------------------------------------------


def _table_section(table: Table, results: Results) -> Section:
    """A table as in the paper: a row for each model and model*, a column for each molecule."""
    cells = [cell for cell in cells_of(table.name, results) if cell.runs]
    molecules = [name for name in table.molecules if any(cell.experiment.molecule == name for cell in cells)]
    seeds = _seeds(cells)
    rows: list[Row] = []
    for pair in _pairs(table):
        columns = [pair.cells(results, molecule) for molecule in molecules]
        if any(cell.runs for column in columns for cell in column):
            rows += _pair_rows(pair, table, columns, len(seeds))
    run = {cell.experiment.model for cell in cells}
    left_out = [COLUMNS[name] for name in table.molecules if name not in molecules]
    left_out += [MODELS[row.model].title for row in table.rows if row.model not in run]
    return Section(
        title=f"Table {table.name.removeprefix('table')}: {table.title}",
        header=("Model", "Settings", *(COLUMNS[name] for name in molecules)),
        rows=tuple(rows),
        notes=(
            _agreement(rows),
            *_circumstances(cells),
            *([f"Not run yet: {', '.join(left_out)}"] if left_out else []),
            *_misprints(table, cells),
        ),
        units=table.collection.units,
    )


def _pair_rows(pair: Pair, table: Table, columns: Sequence[Sequence[Cell]], seeds: int) -> list[Row]:
    """The rows of a baseline and its method; ``columns`` has the cells of both for each molecule."""
    recommended, suffix = pair.protocol == "recommended", PROTOCOL_TITLES[pair.protocol]
    rows = []
    for index, variant in enumerate(pair.variants):
        star = "*" if index else ""
        values = tuple(_pair_values(table, column, index, seeds) for column in columns)
        rows.append(Row((f"{MODELS[pair.model].title}{star}{suffix}", variant), values, recommended))
    return rows


def _pair_values(table: Table, column: Sequence[Cell], index: int, seeds: int) -> tuple[Value, ...]:
    """Energy over force of a baseline (index 0) or its method (1); the method's say whether the directions agree."""
    papers = [paper_value(cell.experiment, table.name) for cell in column]
    return tuple(
        _value(
            column[index],
            papers[index],
            quantity,
            seeds,
            rivals=column,
            agreed=agrees(quantity, tuple(column), tuple(papers)) if index else None,
        )
        for quantity in QUANTITIES
    )


def _value(
    cell: Cell,
    paper: PaperValue | None,
    quantity: str,
    seeds: int,
    rivals: Sequence[Cell] = (),
    agreed: bool | None = None,
) -> Value:
    mean = cell.mean(quantity)
    known = [other for other in (rival.mean(quantity) for rival in rivals) if other is not None]
    finite = [other for other in known if not math.isnan(other)]
    return Value(
        ours=_ours(cell, quantity, seeds),
        best=len(known) > 1 and mean is not None and mean == min(finite, default=None),
        paper=None if paper is None else format_number(getattr(paper, quantity)),
        agrees=agreed,
    )


def _ours(cell: Cell, quantity: str, seeds: int) -> str:
    """The mean and deviation, and the number of seeds where that is not ``seeds``; or why there is none."""
    mean, deviation = cell.mean(quantity), cell.deviation(quantity)
    if mean is None:
        return "failed" if any(run.status == "failed" for run in cell.runs) else MISSING
    if math.isnan(mean):
        return f"NaN at step {cell.diverged[0].step:,}"
    return "".join(
        [
            format_number(mean),
            "" if deviation is None else f" ± {format_number(deviation)}",
            "" if len(cell.finished) == seeds else f" n={len(cell.finished)}",
        ]
    )


# --- figures and runs -----------------------------------------------------------------------------------------------


def _betas_section(table: Table, results: Results) -> Section:
    """Fig. 1; a row for each molecule, as others than the paper's may be asked for."""
    cells = _cells_by_molecule(table, results)
    pictures = [
        Picture(
            f"fig1-{molecule}",
            f"Fig. 1: {_settings(table)}, {molecule}: training loss, and test errors, by β",
            figures.plot_betas([cell for cell in of_betas if cell.runs]),
        )
        for molecule, of_betas in cells.items()
    ]
    header = [f"β = {beta:g}" for beta in table.betas]
    return _figure_section("Fig. 1", table, header, cells, {}, pictures)


def _sizes_section(table: Table, results: Results) -> Section:
    """Fig. 2; a row for each molecule, a column for each training size."""
    cells = _cells_by_molecule(table, results)
    papers = {cell.experiment: paper_value(cell.experiment, table.name) for column in cells.values() for cell in column}
    picture = Picture(
        "fig2",
        f"Fig. 2: {_settings(table)}: test errors by number of training conformations",
        figures.plot_sizes(
            {molecule: [cell for cell in of_sizes if cell.runs] for molecule, of_sizes in cells.items()},
            {key: value for key, value in papers.items() if value},
        ),
    )
    header = [_size_title(size, cells.values()) for size in table.sizes]
    return _figure_section("Fig. 2", table, header, cells, papers, [picture])


def _size_title(size: int, cells: Iterable[Sequence[Cell]]) -> str:
    """The paper's size, and ours where it is another."""
    of_size = [cell for column in cells for cell in column if cell.experiment.train_size == size and cell.runs]
    ours = sorted({figures.training_conformations(cell) for cell in of_size} - {size})
    return f"{size:,}" + (f" (ours {', '.join(f'{count:,}' for count in ours)})" if ours else "")


FIGURES = {"fig1": _betas_section, "fig2": _sizes_section}


def _cells_by_molecule(table: Table, results: Results) -> dict[str, list[Cell]]:
    return {
        molecule: [results.cell(experiment) for experiment in table.experiments([molecule], seed=0)]
        for molecule in _figure_molecules(table, results)
    }


def _figure_section(
    name: str,
    table: Table,
    header: Sequence[str],
    cells: dict[str, list[Cell]],
    papers: dict[Experiment, PaperValue | None],
    pictures: Sequence[Picture],
) -> Section:
    """The numbers of a figure, a row for each molecule, with its pictures."""
    shown = [cell for column in cells.values() for cell in column if cell.runs]
    seeds = len(_seeds(shown))
    rows = []
    for molecule, column in cells.items():
        values = [
            tuple(_value(cell, papers.get(cell.experiment), quantity, seeds) for quantity in QUANTITIES)
            for cell in column
        ]
        # sizes beyond the molecule's data, which the paper leaves out
        blank = [()] * (len(header) - len(column))
        rows.append(Row((molecule,), (*values, *blank)))
    return Section(
        title=f"{name}: {table.title}, {_settings(table)}",
        header=("Molecule", *header),
        rows=tuple(rows),
        notes=(FIGURE_LEGEND, *_circumstances(shown)),
        pictures=tuple(pictures),
    )


def _settings(table: Table) -> str:
    return f"{MODELS[table.rows[0].model].title} {table.rows[0].baseline}"


def _runs_section(runs: Sequence[RunResult]) -> Section:
    """Every run, with its plots."""
    return Section(
        title="Runs",
        header=("Run", "State", "Step", "Training time", "EFwT"),
        rows=tuple(Row(_run_labels(run)) for run in runs),
        notes=("EFwT: test conformations with energy within 0.02 eV and every force component within 0.03 eV/Å.",),
        pictures=tuple(picture for run in runs for picture in _run_pictures(run)),
        folded=True,
    )


def _run_labels(run: RunResult) -> tuple[str, ...]:
    seconds, within = run.record.get("seconds"), run.record.get("efwt")
    return (
        run.experiment.id,
        run.status,
        f"{run.step:,} of {run.description['steps']:,}",
        MISSING if seconds is None else format_duration(seconds),
        MISSING if within is None else f"{100 * within:.1f} %",
    )


def _run_pictures(run: RunResult) -> list[Picture]:
    predictions = run.predictions()
    if run.status != "finished" or predictions is None:
        return []
    name = run.experiment.id
    return [
        Picture(f"{name}-parity", f"{name}: parity", figures.plot_parity(run, predictions)),
        Picture(f"{name}-errors", f"{name}: errors", figures.plot_error_distribution(run, predictions)),
    ]


# --- what is to be said about them ----------------------------------------------------------------------------------


def _agreement(rows: Sequence[Row]) -> str:
    counts = []
    for index, quantity in enumerate(QUANTITIES):
        marks = [cell[index].agrees for row in rows for cell in row.cells if cell[index].agrees is not None]
        counts.append(f"{sum(marks)} of {len(marks)} for the {quantity}")
    return f"Directions that agree with the paper's: {', '.join(counts)}."


def _seeds(cells: Sequence[Cell]) -> list[int]:
    return sorted({run.experiment.seed for cell in cells for run in cell.runs})


def _circumstances(cells: Sequence[Cell]) -> list[str]:
    """Scale, conformations, how they were split, epochs, data, seeds, and which runs diverged."""
    runs = [run for cell in cells for run in cell.runs]
    molecules: dict[str, dict[str, None]] = {}
    sources = {}
    for run in sorted(runs, key=lambda run: list(COLUMNS).index(run.experiment.molecule)):
        molecule, split = run.experiment.molecule, run.description["split"]
        molecules.setdefault(_circumstance(run), {})[molecule] = None
        sources[f"{molecule} from {split['source_file']} ({split['theory']})"] = None
    diverged = [f"{run.experiment.id} at step {run.step:,}" for run in runs if run.status == "diverged"]
    return [
        *(f"{text} ({', '.join(sharing)})." for text, sharing in molecules.items()),
        f"Data: {', '.join(sources)}. Seeds: {', '.join(map(str, _seeds(cells)))}.",
        *([f"Diverged: {', '.join(diverged)}."] if diverged else []),
    ]


def _circumstance(run: RunResult) -> str:
    description, split = run.description, run.description["split"]
    verbs = [verb for name, verb in SPLIT_VERBS.items() if name in split["sizes"]]
    sizes = " / ".join(f"{split['sizes'][name]:,}" for name in SPLIT_VERBS if name in split["sizes"])
    if split["method"] == "random":
        drawn = f"drawn at random with seed {split['seed']}"
    else:
        drawn = f"as given by {', '.join(split['files'])}"
    return (
        f"Scale {description['scale']}, {description['epochs']} epochs, {description['steps']:,} steps; {sizes} "
        f"conformations to {' / '.join(verbs)}, {drawn}"
    )


def _misprints(table: Table, cells: Sequence[Cell]) -> Iterator[str]:
    for cell in cells:
        paper = paper_value(cell.experiment, table.name)
        for quantity in QUANTITIES if paper else ():
            printed = getattr(paper, f"printed_{quantity}")
            if printed is not None:
                yield (
                    f"{MODELS[cell.experiment.model].title}, {COLUMNS[cell.experiment.molecule]}: the paper prints "
                    f"{printed} for the {quantity}, its record is {getattr(paper, quantity)}."
                )
