"""What lies behind mean errors: percentiles, the worst structures, and the errors of each one as a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ocp_dc.evaluation import ConformationErrors
from ocp_dc.files import replacing
from ocp_dc.terminal import format_table

PERCENTILES = (50, 90, 95, 99, 100)
WORST = 5


def percentile_table(errors: ConformationErrors, energy_unit: str) -> str:
    """How large errors are that half of the structures stay below, and more and more of them, up to the largest."""
    columns = {
        f"energy ({energy_unit})": errors.energy,
        f"force, mean ({energy_unit}/Å)": errors.force,
        f"force, largest ({energy_unit}/Å)": errors.largest_force,
    }
    rows = [["percentile", *columns]]
    for percentile in PERCENTILES:
        values = (f"{np.percentile(values, percentile):.4g}" for values in columns.values())
        name = "max" if percentile == 100 else f"{percentile} %"
        rows.append([name, *(value.rjust(len(column)) for value, column in zip(values, columns, strict=True))])
    return format_table(rows)


def worst_table(errors: ConformationErrors, energy_unit: str) -> str:
    """The structures with the largest errors, first of energies, then of forces."""
    columns = [f"energy error ({energy_unit})", f"largest force error ({energy_unit}/Å)"]
    rows = [["worst in", "index", "id", "formula", *columns]]
    for measure, ranked in (("energy", errors.energy), ("forces", errors.largest_force)):
        for index in np.argsort(-ranked, kind="stable")[:WORST]:
            values = (errors.energy_difference[index], errors.largest_force[index])
            numbers = (f"{value:.4g}".rjust(len(column)) for value, column in zip(values, columns, strict=True))
            rows.append([measure, f"{index}", str(errors.name[index]), str(errors.formula[index]), *numbers])
    return format_table(rows)


def write_errors(path: Path, errors: ConformationErrors, energy_unit: str) -> None:
    """The errors of each structure as CSV, a row each, their units in the names of the columns."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                *("index", "id", "formula"),
                f"energy_error ({energy_unit})",
                f"force_mae ({energy_unit}/Ang)",
                f"largest_force_error ({energy_unit}/Ang)",
            ]
        )
        writer.writerows(_rows(errors))


def _rows(errors: ConformationErrors) -> Iterator[tuple]:
    names, formulas = errors.name.tolist(), errors.formula.tolist()
    numbers = (values.tolist() for values in (errors.energy_difference, errors.force, errors.largest_force))
    yield from zip(range(len(names)), names, formulas, *numbers, strict=True)
