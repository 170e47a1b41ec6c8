"""Lines and branches are told apart, and files below the least are named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import coverage
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "coverage_report.py"
SOURCE = """\
def sign(x):
    if x < 0:
        return -1
    return 1
"""


@pytest.fixture
def report(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("coverage_report", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("COVERAGE_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.coverage.run]\nbranch = true\n")
    (tmp_path / "signs.py").write_text(SOURCE)
    return module


def measured(folder: Path, arcs: list[tuple[int, int]]) -> None:
    data = coverage.CoverageData(str(folder / ".coverage"))
    data.add_arcs({str(folder / "signs.py"): arcs})
    data.write()


def test_what_is_covered(report, tmp_path, capsys):
    measured(tmp_path, [(-1, 1), (1, -1), (-1, 2), (2, 3), (3, -1), (2, 4), (4, -1)])
    assert report.main() == 0
    assert capsys.readouterr().out == "covered: 100.0 % of 4 lines, 100.0 % of the branches\n"


def test_too_little(report, tmp_path, capsys):
    measured(tmp_path, [(-1, 1), (1, -1), (-1, 2), (2, 4), (4, -1)])
    assert report.main() == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        " 75.0 % of signs.py; not line 3",
        "covered: 75.0 % of 4 lines, 50.0 % of the branches",
    ]
    assert printed.err == "coverage: less than 92 % of the lines\n"


def test_a_file_without_a_line(report):
    assert report.lines({"covered_lines": 0, "num_statements": 0}) == 100


def test_numbers_of_lines(report):
    assert report.missing([3, 7, 8, 9, 11]) == "3, 7-9, 11"
