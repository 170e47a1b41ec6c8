"""A study of another kind than chemistry moves in by its files alone (tests/runs/toys/kettle)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import ocp_dc
from ocp_dc.cli import main
from ocp_dc.errors import InputError
from ocp_dc.runs.records import read_record
from ocp_dc.runs.study import studies, study_of

TOYS = Path(__file__).parent / "toys"


@pytest.fixture
def tea(tmp_path, monkeypatch, capsys):
    """The study in its place; a function that runs `ocp-dc` and gives its status, output and errors."""
    monkeypatch.setattr(ocp_dc, "__path__", [*ocp_dc.__path__, str(TOYS)])
    # for the workers
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOYS), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([*map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_it_is_found_beside_the_others(tea):
    assert [study.title for study in studies()] == [
        "candidates for the recommended protocol",
        "molecules and materials",
        "one factor at a time",
        "tea",
        "physics-informed networks",
    ]
    assert study_of("tea").title == "tea"
    with pytest.raises(
        InputError, match=r"target coffee is unknown; choose from candidates, table1, .*, tea, table3, "
    ):
        study_of("coffee")


def test_two_runs_of_which_one_is_killed_resumed_and_reported(tea, tmp_path):
    status, printed, _ = tea("reproduce", "tea", "--out", "out", "--dry-run")
    assert status == 0
    assert printed.splitlines()[-1] == "2 runs"
    assert not (tmp_path / "out").exists()

    status, printed, _ = tea("reproduce", "tea", "--out", "out")
    assert status == 1
    assert "green-s0: temperature 80.00 °C, bitterness 5.00 IBU" in printed
    assert "oolong-s0: killed: its process ended with signal 9" in printed
    assert "1 finished, 1 killed" in printed
    green = (tmp_path / "out" / "runs" / "green-s0" / "result.json").stat()

    status, printed, _ = tea("reproduce", "tea", "--out", "out")
    assert status == 0
    assert printed.splitlines()[-1] == "2 finished"
    lines = [line.split() for line in printed.splitlines()]
    assert ["0", "green-s0", "2", "spoons", "20", "finished"] in lines
    # what was measured in the finished run says how long the other takes
    assert ["1", "oolong-s0", "2", "spoons", "20", "1", "s", "measured", "at", "step", "10"] in lines
    assert (tmp_path / "out" / "runs" / "green-s0" / "result.json").stat() == green
    folder = tmp_path / "out" / "runs" / "oolong-s0"
    steps = [json.loads(line)["step"] for line in (folder / "kettle.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 21))
    assert read_record(folder / "result.json")["quantities"] == {
        "temperature": {"value": 90.0, "unit": "°C"},
        "bitterness": {"value": 5.0, "unit": "IBU"},
    }

    assert tea("report", "out")[0] == 0
    text = (tmp_path / "out" / "report.md").read_text()
    # higher temperatures are better, in the paper the other way round; equal bitterness is no better
    assert "| green | 80.0 (70.0)<br>**5.0** |" in text
    assert "| oolong | **90.0** (60.0) ✗<br>**5.0** |" in text
    assert "Temperature (°C) over bitterness (IBU): ours, and the paper's records in parentheses." in text
    assert "Directions that agree with the paper's: 0 of 1 for the temperature." in text
    assert (
        "There are no runs yet for candidates, table1, table2, table7, table8, table9, fig1, fig2, factors, table3, "
        "table4, table5." in text
    )
    assert tea("report", "out", "--format", "csv", "--target", "tea")[0] == 0
    header, first, *_ = (tmp_path / "out" / "report.csv").read_text().splitlines()
    assert header == "target,cell,seed,status,step,quantity,unit,value,paper,paper_printed"
    assert first == "tea,green,0,finished,20,temperature,°C,80.0,70.0,"


def test_options_of_another_study_are_refused(tea):
    assert tea("reproduce", "tea", "--model", "schnet")[::2] == (
        2,
        "ocp-dc: error: --model is an option of molecules and materials, not of tea\n",
    )
    assert "--spoons is an option of tea, not of table1" in tea("reproduce", "table1", "--spoons", 3)[2]
    assert "--spoons 0: at least one" in tea("reproduce", "tea", "--spoons", 0)[2]
    assert "--scale smoke: tea has paper" in tea("reproduce", "tea", "--scale", "smoke")[2]


def test_a_folder_of_another_run_is_refused(tea):
    tea("reproduce", "tea", "--out", "out")
    status, _, error = tea("reproduce", "tea", "--out", "out", "--spoons", 3)
    assert status == 2
    assert "green-s0 is of a run with spoons 2, not 3; choose another --out, or remove that folder" in error


def test_a_study_module_without_a_study_is_named(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "study.py").write_text("")
    monkeypatch.setattr(ocp_dc, "__path__", [*ocp_dc.__path__, str(tmp_path)])
    with pytest.raises(InputError, match=r"empty/study\.py has no STUDY"):
        studies()
