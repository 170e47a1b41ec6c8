"""Tables of runs: declared as rows of cells, and what is to be said of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ocp_dc.runs.rendering import MISSING, Line, Picture, Section, Value, format_duration, format_number
from ocp_dc.runs.results import Cell, Measure, Results, RunResult

# the sentences of a legend
SPREAD = "± is the standard deviation over seeds; n, the number of seeds that finished, is given where not all did."
BEST = "The best of ours among rows that compete is {best}."
MARKS = (
    "✓: a row improves on its baseline, the first of those that compete, here as in the paper, or does not in either; "
    "✗: it is the other way round."
)
NONE = f"{MISSING}: no result yet. NaN: training diverged."


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        labels: one for each of the table's ``labels``.
        cells: the name of the cell in each column, None for none.
        highlighted: set apart, as what is not the paper's.
    """

    labels: tuple[str, ...]
    cells: tuple[str | None, ...]
    highlighted: bool = False


@dataclass(frozen=True)
class Group:
    """Rows that compete in each column; the others are held against the first, their baseline.

    Attributes:
        optional: need not be run; where it is not, nothing is said of it.
    """

    rows: tuple[Row, ...]
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """What a table shows. Cells without runs are shown as missing; groups and columns without any are left out.

    Attributes:
        title: of the whole.
        labels: what the rows' labels are.
        columns: their titles.
        groups: the rows.
        measures: shown in each cell, one above the other.
        measures_in_columns: they are shown side by side instead, under their names; such a table has one column.
        measured_on: what the numbers are taken on, for the legend.
        published: the paper's numbers, by cell and name of the measure.
        printed: those that the paper prints otherwise than its records have them.
        keep_columns: show those without runs too.
        format_value: how a number is printed.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    measures: tuple[Measure, ...]
    measured_on: str = ""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    printed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    keep_columns: bool = False
    measures_in_columns: bool = False
    format_value: Callable[[float], str] = format_number

    def cells(self, results: Results) -> list[Cell]:
        """All, but for those of optional groups without runs."""
        rows = [(group, row) for group in self.groups for row in group.rows]
        cells = [(group, results.cell(name)) for group, row in rows for name in row.cells if name is not None]
        return [cell for group, cell in cells if cell.runs or not group.optional]


def table_section(
    table: Table, results: Results, remarks: Sequence[str] = (), pictures: Sequence[Picture] = ()
) -> Section | None:
    """A table with ours beside the paper's, a legend, and how often directions agree; None while nothing was run.

    Args:
        remarks: further notes.
        pictures: shown below.
    """
    cells = [cell for cell in table.cells(results) if cell.runs]
    if not cells:
        return None
    run = {cell.name for cell in cells}
    groups = [group for group in table.groups if any(run.intersection(row.cells) for row in group.rows)]
    columns = [
        index
        for index in range(len(table.columns))
        if table.keep_columns or any(row.cells[index] in run for group in groups for row in group.rows)
    ]
    seeds = len({each.description["seed"] for cell in cells for each in cell.runs})
    lines = [_line(table, group, row, columns, results, seeds) for group in groups for row in group.rows]
    compared = any(len(group.rows) > 1 for group in table.groups)
    not_run = [title for index, title in enumerate(table.columns) if index not in columns]
    not_run += [group.rows[0].labels[0] for group in table.groups if group not in groups and not group.optional]
    return Section(
        title=table.title,
        header=(*table.labels, *_column_titles(table, columns)),
        rows=tuple(map(_one_column_each, lines) if table.measures_in_columns else lines),
        legend=_legend(table, compared),
        notes=(
            *(_agreement(table, lines) if compared and table.published else []),
            *remarks,
            *([f"Not run yet: {', '.join(not_run)}"] if not_run else []),
            *_misprints(table, run),
        ),
        pictures=tuple(pictures),
    )


def _line(table: Table, group: Group, row: Row, columns: Sequence[int], results: Results, seeds: int) -> Line:
    values = []
    for index in columns:
        rivals = [results.cell(each.cells[index] or "") for each in group.rows]
        position = group.rows.index(row)
        values.append(
            tuple(_value(table, measure, rivals, position, seeds) for measure in table.measures)
            if row.cells[index]
            else ()
        )
    return Line(row.labels, tuple(values), row.highlighted)


def _column_titles(table: Table, columns: Sequence[int]) -> Iterator[str]:
    if table.measures_in_columns:
        yield from (measure.title for measure in table.measures)
    else:
        yield from (table.columns[index] for index in columns)


def _one_column_each(line: Line) -> Line:
    return replace(line, cells=tuple((value,) for cell in line.cells for value in cell))


def _value(table: Table, measure: Measure, rivals: Sequence[Cell], position: int, seeds: int) -> Value:
    cell = rivals[position]
    published = [table.published.get(rival.name, {}).get(measure.name) for rival in rivals]
    means = [rival.mean(measure) for rival in rivals]
    known = [mean for mean in means if mean is not None]
    finite = [mean for mean in known if not math.isnan(mean)]
    best = max(finite, default=None) if measure.lower_is_better is False else min(finite, default=None)
    compared = len(known) > 1 and measure.lower_is_better is not None
    return Value(
        ours=format_mean(cell, measure, seeds, table.format_value),
        best=compared and means[position] == best,
        paper=None if published[position] is None else table.format_value(published[position]),
        agrees=_agrees(measure, (means[0], means[position]), (published[0], published[position])) if position else None,
    )


def _agrees(measure: Measure, ours: tuple, papers: tuple) -> bool | None:
    """Whether what improves on its baseline here does in the paper, and what does not, does not; None if unknown."""
    here, there = measure.improves(*ours), measure.improves(*papers)
    return None if here is None or there is None else here == there


def format_mean(
    cell: Cell, measure: Measure, seeds: int | None = None, format_value: Callable[[float], str] = format_number
) -> str:
    """The mean and deviation, and the number of seeds where that is not ``seeds``; or why there is none."""
    mean, deviation = cell.mean(measure), cell.deviation(measure)
    if mean is None:
        return "failed" if any(run.status == "failed" for run in cell.runs) else MISSING
    if math.isnan(mean):
        return f"NaN at step {cell.diverged[0].step:,}"
    spread = "" if deviation is None else f" ± {format_value(deviation)}"
    return f"{format_value(mean)}{spread}" + ("" if len(cell.finished) == seeds else f" n={len(cell.finished)}")


def _legend(table: Table, compared: bool) -> str:
    papers = ", and the paper's records in parentheses" if table.published else ""
    sentences = [f"{_shown(table)} {table.measured_on}".rstrip() + f": ours{papers}.", SPREAD]
    if compared:
        sentences.append(BEST)
        if table.published:
            sentences.append(MARKS)
    return " ".join([*sentences, NONE])


def _shown(table: Table) -> str:
    if table.measures_in_columns:
        return "Errors"
    shown = " over ".join(measure.title for measure in table.measures)
    return f"{shown[0].upper()}{shown[1:]}"


def _agreement(table: Table, lines: Sequence[Line]) -> list[str]:
    """A note; none where nothing can be compared yet."""
    counts = []
    for index, measure in enumerate(table.measures):
        marks = [cell[index].agrees for line in lines for cell in line.cells if cell and cell[index].agrees is not None]
        if marks:
            counts.append(f"{sum(marks)} of {len(marks)} for the {measure.name}")
    return [f"Directions that agree with the paper's: {', '.join(counts)}."] if counts else []


def _misprints(table: Table, run: set[str]) -> Iterator[str]:
    for row in (row for group in table.groups for row in group.rows):
        for column, cell in zip(table.columns, row.cells, strict=True):
            for name, printed in table.printed.get(cell or "", {}).items() if cell in run else ():
                record = table.published[cell][name]
                yield f"{row.labels[0]}, {column}: the paper prints {printed} for the {name}, its record is {record}."


def runs_section(runs: Sequence[RunResult], measures: Sequence[Measure] = (), **more) -> Section:
    """Every run: its state, steps, time, and further measures.

    Args:
        more: ``notes`` and ``pictures`` of the section.
    """
    lines = []
    for run in runs:
        seconds, values = run.record.get("seconds"), [measure.of(run) for measure in measures]
        lines.append(
            Line(
                (
                    run.name,
                    run.status,
                    f"{run.step:,} of {run.description['steps']:,}",
                    MISSING if seconds is None else format_duration(seconds),
                    *(MISSING if value is None else format_number(value) for value in values),
                )
            )
        )
    header = ("Run", "State", "Step", "Training time", *(measure.title for measure in measures))
    return Section(title="Runs", header=header, rows=tuple(lines), folded=True, **more)
