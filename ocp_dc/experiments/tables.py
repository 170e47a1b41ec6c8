"""The paper's chemistry tables and figures as a report shows them, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from ocp_dc.experiments.definitions import (
    COLUMNS,
    MD17,
    MEASURED,
    MODELS,
    MOLECULES,
    PAPER_BETA,
    SCHEDULES,
    TABLES,
    Collection,
    Experiment,
    Table,
    paper_value,
    published_protocol,
    recommended_variants,
)
from ocp_dc.experiments.plan import training_conformations
from ocp_dc.runs import tables
from ocp_dc.runs.rendering import Picture
from ocp_dc.runs.results import Measure, Results, RunResult
from ocp_dc.units import ENERGY_UNITS_IN_EV

SPLIT_VERBS = {"train": "train", "val": "validate", "test": "test"}
CENTERED = "centered energy MAE"
EFWT_NOTE = "EFwT: test conformations with energy within 0.02 eV and every force component within 0.03 eV/Å."
# what is added to a model's name, by the protocol of the paper's runs
PROTOCOL_SUFFIXES = {
    "paper": "",
    "as_published": ", as published",
    **{schedule: f", {words}" for schedule, words in SCHEDULES.items()},
}
FIGURES = {"fig1": "Fig. 1", "fig2": "Fig. 2"}


def measures(collection: Collection) -> tuple[Measure, Measure]:
    """The errors that the paper's tables show, in its units."""
    unit = collection.energy_unit
    per_length = {f"{other}/Å": factor for other, factor in _factors_to(unit).items()}
    energy, force = MEASURED
    return Measure(energy, unit, _factors_to(unit)), Measure(force, f"{unit}/Å", per_length)


def centered_measure(collection: Collection) -> Measure:
    """The energy error without its mean, see :class:`ocp_dc.evaluation.TestErrors`."""
    return Measure(CENTERED, collection.energy_unit, _factors_to(collection.energy_unit))


def run_measures(runs: Iterable[RunResult]) -> list[Measure]:
    """What is shown with each run, in their unit, or eV where they have several; of an earlier version only EFwT."""
    units = {run.description.get("energy_unit") for run in runs} - {None}
    unit = units.pop() if len(units) == 1 else "eV"
    return [
        Measure("EFwT", "%", lower_is_better=False),
        Measure("energy offset", unit, _factors_to(unit), lower_is_better=None),
        Measure(CENTERED, unit, _factors_to(unit)),
    ]


def _factors_to(unit: str) -> dict[str, float]:
    return {other: in_ev / ENERGY_UNITS_IN_EV[unit] for other, in_ev in ENERGY_UNITS_IN_EV.items()}


def table_of(target: str, results: Results) -> tables.Table:
    """A table as in the paper, a row for each model and model*; of a figure its numbers, a row for each molecule."""
    table = TABLES[target]
    experiments = _figure_cells(table, results) if target in FIGURES else _table_cells(table, results)
    papers = {each.cell: value for each in experiments if (value := paper_value(each, target))}
    shared = {
        "measures": measures(table.collection),
        "measured_on": "on the test set",
        "published": {cell: value.published for cell, value in papers.items()},
        "printed": {cell: value.printed for cell, value in papers.items()},
    }
    if target in FIGURES:
        return tables.Table(
            title=f"{FIGURES[target]}: {table.title}, {_settings(table)}",
            labels=("Molecule",),
            columns=tuple(_figure_columns(table, results)),
            groups=tuple(_figure_groups(table, results)),
            keep_columns=True,
            **shared,
        )
    return tables.Table(
        title=f"Table {target.removeprefix('table')}: {table.title}",
        labels=("Model", "Settings"),
        columns=tuple(COLUMNS[molecule] for molecule in table.molecules),
        groups=tuple(_table_groups(table, results)),
        **shared,
    )


# --- tables ---------------------------------------------------------------------------------------------------------


def _table_groups(table: Table, results: Results) -> Iterator[tables.Group]:
    """For each model a baseline and, where the table compares, its method (*); then in other protocols."""
    for row in table.rows:
        yield _group(table, row.model, dict.fromkeys(row.variants, "paper"), "")
        published = {name: published_protocol(row.model, name, table.collection) for name in row.variants}
        runs = (each for name in published for each in _of_molecules(table, row.model, name, "as_published"))
        if any(results.cell(each.cell).runs for each in runs):
            suffix = f"{PROTOCOL_SUFFIXES['as_published']}: {table.collection.as_published}"
            yield _group(table, row.model, published, suffix, optional=True)
        for schedule in SCHEDULES:
            variants = dict.fromkeys(row.variants, schedule)
            yield _group(table, row.model, variants, PROTOCOL_SUFFIXES[schedule], optional=True)
        recommended = dict.fromkeys(recommended_variants(row.model, table.collection), "recommended")
        yield _group(table, row.model, recommended, ", recommended protocol (ours)", optional=True, highlighted=True)


def _group(
    table: Table, model: str, protocols: dict[str, str], suffix: str, optional: bool = False, highlighted: bool = False
) -> tables.Group:
    rows = []
    for variant, protocol in protocols.items():
        title = f"{MODELS[model].title}{'*' if rows else ''}{suffix}"
        cells = tuple(each.cell for each in _of_molecules(table, model, variant, protocol))
        rows.append(tables.Row((title, variant), cells, highlighted))
    return tables.Group(tuple(rows), optional)


def _of_molecules(table: Table, model: str, variant: str, protocol: str) -> list[Experiment]:
    size = table.collection.size
    return [Experiment(model, variant, molecule, size, protocol=protocol) for molecule in table.molecules]


def _table_cells(table: Table, results: Results) -> list[Experiment]:
    """With and without runs."""
    found = [*table.experiments(table.molecules, seed=0), *table.experiments(table.molecules, 0, "as_published")]
    return list(dict.fromkeys(found))


# --- figures --------------------------------------------------------------------------------------------------------


def pictures_of(target: str, results: Results) -> list[Picture]:
    """The figures of the paper, or the learning curves of a table."""
    table = TABLES[target]
    return _figure_pictures(table, results) if target in FIGURES else _curve_pictures(table, results)


def _curve_pictures(table: Table, results: Results) -> list[Picture]:
    """Of each model on each molecule, those of its rows that have been validated."""
    from ocp_dc.experiments import figures

    pictures = []
    for model, place in product(dict.fromkeys(row.model for row in table.rows), range(len(table.molecules))):
        rows = [
            row
            for group in _table_groups(table, results)
            for row in group.rows
            if Experiment.of_id(row.cells[place]).model == model
        ]
        cells = {": ".join(row.labels): results.cell(row.cells[place]) for row in rows}
        molecule = table.molecules[place]
        curves = figures.plot_learning_curves(cells, measures(table.collection))
        if curves:
            caption = f"{MODELS[model].title}, {molecule}: errors on the validation set by step"
            pictures.append(Picture(f"{table.name}-{model}-{molecule}-curves", caption, curves))
    return pictures


def _figure_pictures(table: Table, results: Results) -> list[Picture]:
    """Fig. 1 for each molecule, as others than the paper's may be asked for; Fig. 2 for all."""
    from ocp_dc.experiments import figures

    cells = {
        molecule: [(each, cell) for each in experiments if (cell := results.cell(each.cell)).runs]
        for molecule, experiments in _by_molecule(table, results).items()
    }
    shown = measures(table.collection)
    if table.name == "fig1":
        return [
            Picture(
                f"fig1-{molecule}",
                f"Fig. 1: {_settings(table)}, {molecule}: training loss, and test errors, by β",
                figures.plot_betas({each.beta: cell for each, cell in of_betas}, shown),
            )
            for molecule, of_betas in cells.items()
        ]
    papers = {each: paper_value(each, table.name) for each in _figure_cells(table, results)}
    caption = f"Fig. 2: {_settings(table)}: test errors by number of training conformations"
    of_molecules = {molecule: [cell for _, cell in of_sizes] for molecule, of_sizes in cells.items()}
    known = {each: value for each, value in papers.items() if value}
    return [Picture("fig2", caption, figures.plot_sizes(of_molecules, known, shown))]


def _figure_groups(table: Table, results: Results) -> Iterator[tables.Group]:
    number = len(table.sizes or table.betas)
    for molecule, experiments in _by_molecule(table, results).items():
        cells = [each.cell for each in experiments]
        # sizes beyond the molecule's data, which the paper leaves out
        yield tables.Group((tables.Row((molecule,), (*cells, *[None] * (number - len(cells)))),))


def _figure_columns(table: Table, results: Results) -> list[str]:
    if table.sizes is None:
        return [f"β = {beta:g}" for beta in table.betas]
    cells = [(each.train_size, results.cell(each.cell)) for each in _figure_cells(table, results)]
    titles = []
    for size in table.sizes:
        ours = sorted({training_conformations(cell) for of, cell in cells if of == size and cell.runs} - {size})
        titles.append(f"{size:,}" + (f" (ours {', '.join(f'{count:,}' for count in ours)})" if ours else ""))
    return titles


def _figure_cells(table: Table, results: Results) -> list[Experiment]:
    return [each for experiments in _by_molecule(table, results).values() for each in experiments]


def _by_molecule(table: Table, results: Results) -> dict[str, list[Experiment]]:
    """Those with a run that is the figure's own: the tables' runs are at the usual β and training size."""
    found: dict[str, list[Experiment]] = {}
    for each in table.experiments(tuple(MOLECULES), seed=0):
        found.setdefault(each.molecule, []).append(each)
    return {
        molecule: experiments
        for molecule, experiments in found.items()
        if any(
            (each.beta != PAPER_BETA or each.train_size != MD17.size) and results.cell(each.cell).runs
            for each in experiments
        )
    }


def _settings(table: Table) -> str:
    return f"{MODELS[table.rows[0].model].title} {table.rows[0].baseline}"


# --- what is to be said about them ----------------------------------------------------------------------------------


def remarks_of(target: str, results: Results) -> list[str]:
    """See :func:`circumstances`."""
    return circumstances([run for cell in table_of(target, results).cells(results) for run in cell.runs])


def circumstances(runs: Iterable[RunResult]) -> list[str]:
    """Scale, conformations, how they were split, epochs, data, seeds, and which runs diverged."""
    runs = sorted(runs, key=lambda run: list(COLUMNS).index(run.description["molecule"]))
    molecules: dict[str, dict[str, None]] = {}
    sources = {}
    for run in runs:
        molecule, split = run.description["molecule"], run.description["split"]
        molecules.setdefault(_circumstance(run), {})[molecule] = None
        sources[f"{molecule} from {split['source_file']} ({split['theory']})"] = None
    seeds = sorted({run.description["seed"] for run in runs})
    diverged = [f"{run.name} at step {run.step:,}" for run in runs if run.status == "diverged"]
    return [
        *(f"{text} ({', '.join(sharing)})." for text, sharing in molecules.items()),
        f"Data: {', '.join(sources)}. Seeds: {', '.join(map(str, seeds))}.",
        *([f"Diverged: {', '.join(diverged)}."] if diverged else []),
    ]


def scale_of_run(run: RunResult) -> str:
    """The name of its scale, with the widths that were given in place of the scale's."""
    widths = run.description.get("widths") or {}
    return ", ".join([run.description["scale"], *(f"{key}={value}" for key, value in widths.items())])


def _circumstance(run: RunResult) -> str:
    description, split = run.description, run.description["split"]
    names = [name for name in SPLIT_VERBS if name in split["sizes"]]
    sizes = " / ".join(f"{split['sizes'][name]:,}" for name in names)
    if split["method"] == "random":
        drawn = f"drawn at random with seed {split['seed']}"
    else:
        drawn = f"as given by {', '.join(split['files'])}"
    return (
        f"Scale {scale_of_run(run)}, {description['epochs']} epochs, {description['steps']:,} steps; {sizes} "
        f"conformations to {' / '.join(SPLIT_VERBS[name] for name in names)}, {drawn}"
    )
