"""The tables of `ocp-dc evaluate --details`, to the letter."""

from __future__ import annotations

import numpy as np
import pytest

from ocp_dc.evaluation import ConformationErrors
from ocp_dc.evaluation_details import percentile_table, worst_table, write_errors


@pytest.fixture
def errors() -> ConformationErrors:
    """101 structures, so that percentiles are structures; the largest energy errors are shared by many."""
    number = np.arange(101.0)
    return ConformationErrors(
        energy_difference=np.where(number < 90, number / 100, -2.0),
        force=number / 10,
        largest_force=number,
        formula=np.array(["H2O"] * 100 + ["CO"]),
        name=np.array([f"β{index}" for index in range(101)]),
    )


def words(table: str) -> list[list[str]]:
    return [[word.strip() for word in line.split("  ") if word.strip()] for line in table.splitlines()]


def test_percentiles(errors):
    assert words(percentile_table(errors, "eV")) == [
        ["percentile", "energy (eV)", "force, mean (eV/Å)", "force, largest (eV/Å)"],
        ["50 %", "0.5", "5", "50"],
        ["90 %", "2", "9", "90"],
        ["95 %", "2", "9.5", "95"],
        ["99 %", "2", "9.9", "99"],
        ["max", "2", "10", "100"],
    ]


def test_the_worst_of_equal_errors_are_the_first(errors):
    assert words(worst_table(errors, "eV")) == [
        ["worst in", "index", "id", "formula", "energy error (eV)", "largest force error (eV/Å)"],
        *(["energy", f"{index}", f"β{index}", "H2O", "-2", f"{index}"] for index in range(90, 95)),
        ["forces", "100", "β100", "CO", "-2", "100"],
        *(["forces", f"{index}", f"β{index}", "H2O", "-2", f"{index}"] for index in range(99, 95, -1)),
    ]


def test_errors_of_each_as_csv(errors, tmp_path):
    write_errors(tmp_path / "errors.csv", errors, "eV")
    header, *rows = (tmp_path / "errors.csv").read_bytes().decode("utf-8").split("\r\n")
    assert header == "index,id,formula,energy_error (eV),force_mae (eV/Ang),largest_force_error (eV/Ang)"
    assert rows[3] == "3,β3,H2O,0.03,0.3,3.0"
    assert rows[100:] == ["100,β100,CO,-2.0,10.0,100.0", ""]
