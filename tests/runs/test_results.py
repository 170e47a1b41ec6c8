"""Cells of runs, with quantities that are not of chemistry."""

import json
import math

import numpy as np
import pytest

from ocp_dc.errors import InputError
from ocp_dc.runs.records import write_record
from ocp_dc.runs.results import Measure, read_results

WEIGHT = Measure("weight", "kg", {"g": 0.001})
SHARE = Measure("share", "", lower_is_better=False)


@pytest.fixture
def write_run(tmp_path):
    def write(cell: str, status: str = "finished", seed: int = 0, step: int = 10, **quantities):
        folder = tmp_path / "runs" / f"{cell}-s{seed}"
        write_record(folder / "experiment.json", {"cell": cell, "seed": seed, "steps": 10, "log": "log.jsonl"})
        measured = {name: {"value": value, "unit": unit} for name, (value, unit) in quantities.items()}
        if status != "unfinished":
            write_record(folder / "result.json", {"status": status, "step": step, "quantities": measured})
        return folder

    return write


def test_mean_and_sample_deviation_over_the_seeds_that_finished(write_run, tmp_path):
    for number, weight in enumerate((10.0, 12.0, 17.0)):
        write_run("sand", seed=number, weight=(weight, "kg"), share=(0.5, ""))
    write_run("sand", "diverged", seed=3, step=4)
    write_run("gravel", weight=(1.0, "kg"))
    cell = read_results(tmp_path).cell("sand")
    assert [run.description["seed"] for run in cell.runs] == [0, 1, 2, 3]
    assert cell.mean(WEIGHT) == pytest.approx(13.0)
    assert cell.deviation(WEIGHT) == pytest.approx(math.sqrt(13.0))
    assert cell.extent(WEIGHT) == pytest.approx((3.0, 4.0))
    assert cell.mean(SHARE) == 0.5
    assert [(run.name, run.step) for run in cell.diverged] == [("sand-s3", 4)]


def test_cells_without_a_number(write_run, tmp_path):
    write_run("sand", "diverged", step=3)
    write_run("gravel", "failed")
    results = read_results(tmp_path)
    assert math.isnan(results.cell("sand").mean(WEIGHT))
    assert results.cell("gravel").mean(WEIGHT) is None
    assert results.cell("clay").mean(WEIGHT) is None
    assert results.cell("sand").deviation(WEIGHT) is None


def test_a_quantity_that_a_run_does_not_have_is_missing(write_run, tmp_path):
    write_run("sand", weight=(1.0, "kg"))
    assert read_results(tmp_path).cell("sand").mean(SHARE) is None


def test_other_units_are_converted_or_named(write_run, tmp_path):
    write_run("sand", weight=(1500.0, "g"))
    write_run("gravel", weight=(1.0, "lb"))
    results = read_results(tmp_path)
    assert results.cell("sand").mean(WEIGHT) == pytest.approx(1.5)
    with pytest.raises(InputError, match=r"gravel-s0: weight is in 'lb'; known are g, kg"):
        results.cell("gravel").mean(WEIGHT)


@pytest.mark.parametrize(
    ("baseline", "other", "lower", "higher"),
    [
        (2.0, 1.0, True, False),
        (1.0, 2.0, False, True),
        (math.nan, 9e9, True, True),
        (1.0, math.nan, False, False),
        (math.nan, math.nan, None, None),
        (None, 1.0, None, None),
        (1.0, None, None, None),
    ],
)
def test_improves(baseline, other, lower, higher):
    assert WEIGHT.improves(baseline, other) is lower
    assert SHARE.improves(baseline, other) is higher
    assert Measure("colour", "", lower_is_better=None).improves(baseline, other) is None


def test_values_of_a_log_that_is_being_written(write_run, tmp_path):
    folder = write_run("sand", "unfinished")
    lines = [{"split": "train", "step": 10 * number, "loss": loss} for number, loss in enumerate([5.0, 4.0, None, 3.0])]
    lines.insert(1, {"split": "val", "step": 10, "loss": -1.0})
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"split": "train", "st')
    (run,) = read_results(tmp_path).cell("sand").runs
    steps, losses = run.logged("loss", split="train")
    np.testing.assert_array_equal(steps, [0, 10, 30])
    np.testing.assert_array_equal(losses, [5, 4, 3])
    assert (run.status, run.step) == ("unfinished", 30)
    (folder / "log.jsonl").unlink()
    assert [len(values) for values in run.logged("loss")] == [0, 0]


@pytest.mark.parametrize("name", ["experiment.json", "result.json"])
def test_damaged_files_are_named(write_run, tmp_path, name):
    folder = write_run("sand")
    (folder / name).write_text('{"model": "sch')
    with pytest.raises(InputError, match=f"{name} is damaged.*remove {folder}"):
        read_results(tmp_path)


def test_runs_of_the_first_versions_are_named(write_run, tmp_path):
    folder = write_run("sand")
    write_record(folder / "result.json", {"status": "finished", "step": 10, "energy_mae": 1.0})
    with pytest.raises(InputError, match=r"lacks quantities\. Run the same `ocp-dc reproduce` again"):
        read_results(tmp_path)
    write_record(folder / "experiment.json", {"seed": 0, "steps": 10})
    with pytest.raises(InputError, match="lacks cell, log"):
        read_results(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_results(tmp_path / "nowhere")
