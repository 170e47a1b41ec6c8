import io

import numpy as np
import pytest
from matplotlib.image import imread

from ocp_dc.experiments import figures
from ocp_dc.experiments.definitions import MD17, Experiment, PaperValue
from ocp_dc.experiments.tables import measures
from ocp_dc.runs.results import read_results

MEASURES = measures(MD17)


def assert_is_a_picture(png: bytes) -> None:
    pixels = imread(io.BytesIO(png), format="png")
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 800
    assert len(png) > 10_000
    assert pixels[..., :3].std() > 0.02


@pytest.fixture
def drawn(monkeypatch):
    """Makes the functions return what they drew instead of its PNG."""
    monkeypatch.setattr(figures, "png", lambda figure: figure)


def labels_of(axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


@pytest.fixture
def beta_cells(write_run, tmp_path):
    experiments = [Experiment("schnet", "original", "aspirin", beta=beta) for beta in (0.1, 30.0, 200.0)]
    write_run(experiments[0], energy=500.0, force=4.0, losses=np.geomspace(1e3, 10, 1000).tolist())
    write_run(experiments[1], energy=2000.0, force=1.0, losses=[50.0, 40.0])
    write_run(experiments[2], "diverged", step=1234, losses=[70.0])
    results = read_results(tmp_path)
    return {experiment.beta: results.cell(experiment.cell) for experiment in experiments}


def test_fig1_is_a_picture(beta_cells):
    assert_is_a_picture(figures.plot_betas(beta_cells, MEASURES))


def test_fig1_shows_losses_and_errors_by_beta(drawn, beta_cells):
    figure = figures.plot_betas(beta_cells, MEASURES)
    curves, errors = figure.axes
    assert labels_of(curves) == ["β = 0.1", "β = 30", "β = 200 (diverged)"]
    assert len(curves.lines[0].get_xdata()) == figures.CURVE_POINTS
    np.testing.assert_allclose(curves.lines[1].get_ydata(), [50, 40])
    energy, force = (container.lines[0] for container in errors.containers)
    np.testing.assert_allclose(energy.get_xydata(), [[0.1, 0.5], [30, 2.0]])
    np.testing.assert_allclose(force.get_xydata(), [[0.1, 4.0], [30, 1.0]])
    assert labels_of(errors) == ["energy / 1000 (kcal/mol)", "force (kcal/mol/Å)"]
    assert "β = 200 at step 1,234" in figure.get_supxlabel()
    assert "kcal/mol" in curves.get_ylabel()
    assert "(Å)" in errors.get_xlabel()


@pytest.fixture
def size_cells(write_run, tmp_path):
    for molecule, sizes in {"ethanol": (50_000, 100_000), "uracil": (50_000,)}.items():
        for size in sizes:
            for seed in (0, 1):
                experiment = Experiment("schnet", "irelu+rescaled", molecule, size, seed=seed)
                write_run(experiment, energy=size / 1000 + 2 * seed, force=1e5 / size)
    results = read_results(tmp_path)
    return {
        molecule: [results.cell(Experiment("schnet", "irelu+rescaled", molecule, size).cell) for size in sizes]
        for molecule, sizes in {"ethanol": (50_000, 100_000), "uracil": (50_000,)}.items()
    }


PAPERS = {Experiment("schnet", "irelu+rescaled", "ethanol", 50_000): PaperValue({"energy MAE": 8.0, "force MAE": 1.5})}


def test_fig2_is_a_picture(size_cells):
    assert_is_a_picture(figures.plot_sizes(size_cells, PAPERS, MEASURES))


def test_fig2_shows_means_at_the_sizes_trained_on_and_the_papers(drawn, size_cells):
    energy, force = figures.plot_sizes(size_cells, PAPERS, MEASURES).axes
    ethanol = energy.containers[0]
    np.testing.assert_allclose(ethanol.lines[0].get_xydata(), [[800, 51], [1600, 101]])
    bars = ethanol.lines[2][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 1], [51 - np.sqrt(2), 51 + np.sqrt(2)])
    assert [50_000, 8.0] in [line.get_xydata().tolist()[0] for line in energy.lines if len(line.get_xdata())]
    assert labels_of(force) == ["the paper's", "ethanol", "uracil"]
    assert "(kcal/mol)" in energy.get_ylabel()
    assert "(kcal/mol/Å)" in force.get_ylabel()


@pytest.fixture
def run(write_run, tmp_path):
    experiment = Experiment("schnet", "original", "ethanol")
    write_run(experiment, predictions=True)
    return read_results(tmp_path).cell(experiment.cell).runs[0]


def test_plots_of_a_run_are_pictures(run):
    assert_is_a_picture(figures.plot_parity(run, figures.read_predictions(run)))
    assert_is_a_picture(figures.plot_error_distribution(run, figures.read_predictions(run)))


def test_parity_of_energies_is_relative_to_their_means_which_are_compared(drawn, run):
    predictions = figures.read_predictions(run)
    energies, forces = figures.plot_parity(run, predictions).axes
    true, predicted = predictions["energy_true"], predictions["energy_predicted"]
    np.testing.assert_allclose(energies.lines[0].get_xdata(), true - true.mean())
    np.testing.assert_allclose(energies.lines[0].get_ydata(), predicted - predicted.mean())
    assert energies.get_title() == f"mean predicted − mean true: {(predicted - true).mean():.3g} kcal/mol"
    np.testing.assert_allclose(forces.lines[0].get_ydata(), predictions["forces_predicted"])
    assert "(kcal/mol)" in energies.get_xlabel()
    assert "(kcal/mol/Å)" in forces.get_ylabel()


def test_histograms_count_every_conformation_and_mark_the_limits(drawn, run):
    predictions = figures.read_predictions(run)
    predictions["energy_error"][0] = 0.0
    energy, mean_force, largest = figures.plot_error_distribution(run, predictions).axes
    assert [sum(bar.get_height() for bar in axes.patches) for axes in (energy, mean_force, largest)] == [90, 90, 90]
    assert energy.lines[0].get_xdata()[0] == pytest.approx(predictions["energy_error"].mean())
    assert energy.lines[1].get_xdata()[0] == pytest.approx(0.02 / 0.0433634)
    assert largest.lines[1].get_xdata()[0] == pytest.approx(0.03 / 0.0433634)
    assert len(mean_force.lines) == 1
    assert "largest force component (kcal/mol/Å)" in largest.get_xlabel()
