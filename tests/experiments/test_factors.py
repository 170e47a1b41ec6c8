"""One factor at a time: the plan, what each cell trains, and what the report makes of the results."""

from __future__ import annotations

import argparse
import math
import re
from itertools import product

import pytest
import torch

from ocp_dc.cli import main
from ocp_dc.experiments.plan import CHECKPOINT, Run
from ocp_dc.experiments.sources import MoleculeSource
from ocp_dc.factors import figures
from ocp_dc.factors.definitions import FACTORS, SCALES, FactorExperiment, experiments_of
from ocp_dc.factors.tables import MEASURES
from ocp_dc.runs.commands import add_run_commands
from ocp_dc.runs.results import read_results

LEVELS = {"activation": 7, "labels": 3, "rate": 3}


@pytest.fixture
def reproduce(tmp_path, monkeypatch, capsys):
    """Runs `ocp-dc reproduce factors`; gives its exit status, what it printed, and its error message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["reproduce", "factors", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def report(out) -> str:
    parser = argparse.ArgumentParser()
    add_run_commands(parser.add_subparsers())
    args = parser.parse_args(["report", str(out), "--target", "factors"])
    assert args.func(args) == 0
    return (out / "report.md").read_text()


def row(text: str, *labels: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    (found,) = [cells[len(labels) :] for cells in rows if cells[: len(labels)] == list(labels)]
    return found


def test_every_combination_is_planned_with_two_seeds(reproduce, tmp_path):
    status, printed, _ = reproduce("--dry-run")
    assert status == 0
    assert printed.splitlines()[-1] == "126 runs"
    assert re.search(r"factors-ethanol-irelu-rescaled-halved-s1 +md17/schnet_irelu +10,000 ", printed)
    assert list(tmp_path.iterdir()) == []
    assert {factor: len(levels) for factor, levels in FACTORS.items()} == LEVELS
    _, printed, _ = reproduce("--rate", "cosine", "halved", "--activation", "silu", "--seeds", "3", "--dry-run")
    assert printed.splitlines()[-1] == "18 runs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--activation", "relu"), "--activation relu is unknown; choose from original, silu, irelu"),
        (("--rate", "halved", "linear"), "--rate linear is unknown"),
        (("--data", "sample"), "--data sample has 1,000 conformations, too few for --scale full; add --scale small"),
        (("--model", "cgcnn"), "--model is an option of molecules and materials, not of factors"),
        (("--scale", "length"), "--scale length: factors has full, small, smoke"),
    ],
)
def test_mistakes_are_named(reproduce, tmp_path, arguments, message):
    status, _, error = reproduce(*arguments)
    assert status == 2
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_names_give_the_experiments_back():
    experiments = list(experiments_of("aspirin", 2))
    assert len({experiment.id for experiment in experiments}) == 126
    assert [FactorExperiment.of_id(experiment.id) for experiment in experiments] == experiments
    assert len({experiment.cell for experiment in experiments}) == 63


def test_the_papers_baseline_and_method_are_among_them(tmp_path):
    def settings(*levels: str) -> set[str]:
        run = Run(FactorExperiment(*levels), SCALES["full"], MoleculeSource(tmp_path), tmp_path)
        return {word for word in run.command if word.startswith(("--model.act", "--task.", "--optim.s", "--optim.g"))}

    common = {"--task.reference_energy=none", "--optim.scheduler=Null"}
    assert settings("original", "raw", "constant") == {
        *common,
        "--model.activation=original",
        "--task.label_rescaling=none",
    }
    assert settings("irelu", "rescaled", "constant") == {
        *common,
        "--model.activation=irelu",
        "--task.label_rescaling=1.0e+6",
    }
    # five epochs of 4,000 conformations in batches of 20
    assert {"--optim.scheduler=StepLR", "--optim.step_size=1000"} < settings("irelu", "centered", "halved")


def test_a_cell_trains_as_its_levels_say(reproduce, tmp_path):
    levels = {"activation": "bounded_irelu", "labels": "centered", "rate": "cosine"}
    asked = [word for factor, level in levels.items() for word in (f"--{factor}", level)]
    status, printed, _ = reproduce(*asked, "--seeds", "1", "--scale", "smoke", "--data", "sample", "--out", "out")
    assert status == 0
    assert "bounded IReLU" in printed
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    checkpoint = torch.load(folder / CHECKPOINT, weights_only=False)
    config = checkpoint["config"]
    assert config["model"]["activation"] == "bounded_irelu"
    assert (config["task"]["label_rescaling"], config["task"]["reference_energy"]) == ("none", "mean")
    assert (config["optim"]["scheduler"], config["optim"]["T_max"]) == ("CosineAnnealingLR", 20)
    assert "| ethanol | bounded IReLU |" in report(tmp_path / "out")


@pytest.fixture
def results(write_run, tmp_path):
    """All cells of which IReLU halves the force error, more so in the second seed, with two exceptions."""
    chosen = {"activation": ["original", "irelu"], "labels": ["raw", "rescaled"], "rate": ["constant", "cosine"]}
    for experiment in experiments_of("ethanol", 2, **chosen):
        force = 8.0 if experiment.labels == "raw" else 4.0
        if experiment.activation == "irelu":
            force /= 2.0 + 2.0 * experiment.seed
        if experiment.levels == ("irelu", "raw", "cosine"):
            write_run(experiment, "diverged", step=7)
        elif experiment.levels == ("original", "rescaled", "cosine") and experiment.seed == 0:
            write_run(experiment, force=1.0, energy=1.0, centered=1.0)
        else:
            write_run(experiment, force=force, energy=force, centered=force)
    return tmp_path


def test_table_has_a_row_for_each_activation_and_a_column_for_labels_and_rates(results):
    text = report(results)
    assert row(text, "Molecule", "Activation") == [
        *("raw / constant", "raw / cosine", "rescaled / constant", "rescaled / cosine"),
    ]
    cells = row(text, "ethanol", "IReLU")
    assert cells[0] == "<br>".join(["**3.00 ± 1.41**"] * 3)
    assert cells[1].startswith("NaN at step 7")
    assert row(text, "ethanol", "shifted softplus")[0].startswith("8.00 ± 0.00<br>")
    assert "Force MAE (kcal/mol/Å) over energy MAE (kcal/mol) over centered energy MAE (kcal/mol)" in text
    assert "rescaled: divided by C = 1,000,000" in text
    assert "Not run yet: raw / halved, rescaled / halved, centered / constant" in text


def test_effects_are_means_of_logarithms_paired_by_seed(results):
    text = report(results)
    average, baseline, method = (cell.split("<br>")[0] for cell in row(text, "activation", "IReLU"))
    assert baseline == "-1.04 ± 0.49, × 0.354, lower in 2 of 2"
    assert method == baseline
    # seed 0: ln of 1/2, 1/2 and (2 to 1); seed 1: ln of 1/4 three times; where IReLU diverged nothing is compared
    seeds = [(2 * math.log(0.5) + math.log(2)) / 3, math.log(0.25)]
    mean = sum(seeds) / 2
    assert (
        average
        == f"{mean:+.2f} ± {abs(seeds[0] - seeds[1]) / math.sqrt(2):.2f}, × {math.exp(mean):.3g}, lower in 5 of 6"
    )
    # one level of the rate: the same but where a cell is
    assert row(text, "rate", "to zero by a cosine")[1].startswith("+0.00 ± 0.00, × 1, lower in 0 of 2")
    assert row(text, "activation", "SiLU") == ["–<br>–<br>–"] * 3
    assert "](figures/factors-ethanol.png)" in text


def test_figure_shows_every_cell_that_finished(results, monkeypatch):
    monkeypatch.setattr(figures, "png", lambda figure: figure)
    figure = figures.plot_factors("ethanol", read_results(results))
    assert len(figure.axes) == len(MEASURES)
    force = figure.axes[0]
    shown = {container.get_label(): container.lines[0].get_xydata() for container in force.containers}
    assert set(shown) == {f"{labels} / {rate}" for labels, rate in product(["raw", "rescaled"], ["constant", "cosine"])}
    assert shown["raw / constant"][:, 1] == pytest.approx([8.0, 3.0])
    assert len(shown["raw / cosine"]) == 1
    assert "kcal/mol/Å" in force.get_ylabel()
