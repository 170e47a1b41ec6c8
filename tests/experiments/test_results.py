import math

import numpy as np
import pytest

from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import Experiment, PaperValue
from ocp_dc.experiments.records import metrics_path
from ocp_dc.experiments.results import agrees, improves, read_results

BASELINE = Experiment("schnet", "original", "ethanol")
METHOD = Experiment("schnet", "irelu+rescaled", "ethanol")


def seed(experiment, number):
    return Experiment(experiment.model, experiment.variant, experiment.molecule, seed=number)


def test_mean_and_sample_deviation_over_the_seeds_that_finished(write_run, tmp_path):
    for number, energy in enumerate((10.0, 12.0, 17.0)):
        write_run(seed(BASELINE, number), energy=energy, force=0.5)
    write_run(seed(BASELINE, 3), "diverged", step=40)
    write_run(METHOD, energy=1.0)
    cell = read_results(tmp_path).cell(seed(BASELINE, 2))
    assert cell.experiment == BASELINE
    assert [run.experiment.seed for run in cell.runs] == [0, 1, 2, 3]
    assert cell.mean("energy") == pytest.approx(13.0)
    assert cell.deviation("energy") == pytest.approx(math.sqrt(13.0))
    assert cell.mean("force") == 0.5
    assert [(run.experiment.seed, run.step) for run in cell.diverged] == [(3, 40)]


def test_cells_without_a_number(write_run, tmp_path):
    write_run(BASELINE, "diverged", step=3)
    write_run(METHOD, "failed")
    results = read_results(tmp_path)
    assert math.isnan(results.cell(BASELINE).mean("force"))
    assert results.cell(METHOD).mean("force") is None
    assert results.cell(Experiment("cgcnn", "original", "ethanol")).mean("force") is None
    assert results.cell(BASELINE).deviation("energy") is None


def test_recommended_runs_are_not_mixed_with_the_papers(write_run, tmp_path):
    write_run(BASELINE, energy=3.0)
    write_run(Experiment("schnet", "original", "ethanol", protocol="recommended"), energy=0.1)
    assert read_results(tmp_path).cell(BASELINE).mean("energy") == 3.0


def test_errors_in_other_units_are_converted(write_run, tmp_path):
    write_run(BASELINE, energy=1.0, force=2.0, unit="eV")
    (run,) = read_results(tmp_path).cell(BASELINE).runs
    assert run.error("energy") == pytest.approx(23.0609, rel=1e-5)
    assert run.error("force") == pytest.approx(46.1218, rel=1e-5)


@pytest.mark.parametrize(
    ("baseline", "method", "expected"),
    [
        (2.0, 1.0, True),
        (1.0, 2.0, False),
        (math.nan, 9e9, True),
        (1.0, math.nan, False),
        (math.nan, math.nan, None),
        (None, 1.0, None),
        (1.0, None, None),
    ],
)
def test_improves(baseline, method, expected):
    assert improves(baseline, method) is expected


def test_agreement_is_of_directions_not_of_sizes(write_run, tmp_path):
    write_run(BASELINE, energy=100.0, force=1.0)
    write_run(METHOD, energy=99.0, force=2.0)
    results = read_results(tmp_path)
    ours = results.cell(BASELINE), results.cell(METHOD)
    better, worse = PaperValue(1.0, 1.0), PaperValue(2.0, 2.0)
    diverged = PaperValue(math.nan, math.nan)
    assert agrees("energy", ours, (worse, better)) is True
    assert agrees("force", ours, (worse, better)) is False
    assert agrees("force", ours, (better, diverged)) is True
    assert agrees("energy", ours, (diverged, diverged)) is None
    assert agrees("energy", ours, (None, better)) is None


def test_training_loss_of_a_run_that_is_being_logged(write_run, tmp_path):
    folder = write_run(BASELINE, "unfinished", losses=[5.0, 4.0, None, 3.0])
    with metrics_path(folder).open("a") as file:
        file.write('{"split": "train", "st')
    (run,) = read_results(tmp_path).cell(BASELINE).runs
    steps, losses = run.training_loss()
    np.testing.assert_array_equal(steps, [10, 20, 40])
    np.testing.assert_array_equal(losses, [5, 4, 3])
    assert (run.status, run.step) == ("unfinished", 40)


def test_no_training_loss_and_no_predictions(write_run, tmp_path):
    metrics_path(write_run(BASELINE)).unlink()
    (run,) = read_results(tmp_path).cell(BASELINE).runs
    assert [len(values) for values in run.training_loss()] == [0, 0]
    assert run.predictions() is None


@pytest.mark.parametrize("name", ["experiment.json", "result.json"])
def test_damaged_files_are_named(write_run, tmp_path, name):
    folder = write_run(BASELINE)
    (folder / name).write_text('{"model": "sch')
    with pytest.raises(InputError, match=f"{folder}.*damaged.*remove that folder"):
        read_results(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_results(tmp_path / "nowhere")
