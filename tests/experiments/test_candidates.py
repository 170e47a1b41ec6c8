"""Candidates for the recommended protocol: the plan, what each trains, and what the report makes of the results."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
from fairchem.core.common.utils import load_config

from ocp_dc.candidates.definitions import (
    CANDIDATES,
    RECOMMENDED,
    SCALES,
    CandidateExperiment,
    CandidateRun,
    experiments_of,
    on_validation,
)
from ocp_dc.candidates.training import train_validate_and_test
from ocp_dc.cli import main
from ocp_dc.config_files import config_file
from ocp_dc.configuration.arguments import checked_arguments
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.samples import sample_path
from ocp_dc.errors import InputError
from ocp_dc.evaluation import evaluate
from ocp_dc.experiments.definitions import MD17, MODELS
from ocp_dc.experiments.plan import CHECKPOINT, prepare
from ocp_dc.experiments.sources import MoleculeSource
from ocp_dc.runs.commands import add_run_commands
from ocp_dc.runs.records import read_record, write_record

OF_CGCNN = [*experiments_of("ethanol", 1, ["cgcnn"]), *experiments_of("oc22", 1, ["cgcnn"])]


@pytest.fixture
def reproduce(tmp_path, monkeypatch, capsys):
    """Runs `ocp-dc reproduce candidates`; gives its exit status, what it printed, and its error message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["reproduce", "candidates", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def planned(experiment: CandidateExperiment, tmp_path) -> CandidateRun:
    return CandidateRun(experiment, SCALES["small", experiment.collection], MoleculeSource(tmp_path), tmp_path)


# --- the plan -----------------------------------------------------------------------------------------------------


def test_every_candidate_of_every_model_is_planned_for_both_samples(reproduce, tmp_path):
    of_model = [sum(model in candidate.models for candidate in CANDIDATES.values()) for model in MODELS]
    status, printed, _ = reproduce("--data", "sample", "--dry-run")
    assert status == 0
    assert printed.splitlines()[-1] == f"{2 * 3 * sum(of_model)} runs"
    assert list(tmp_path.iterdir()) == []
    chosen = ("--model", "schnet", "--collection", "oc22", "--candidate", "ema_0.99", "clip_1")
    _, printed, _ = reproduce(*chosen, "--dry-run")
    assert printed.splitlines()[-1] == "9 runs"
    assert re.search(r"-schnet-oc22-recommended-s2 +oc22/schnet_recommended +800 ", printed)
    assert re.search(r"-schnet-oc22-clip_1-s0 +oc22/schnet_recommended --optim.clip_grad_norm=1 +800 ", printed)


def test_molecules_are_planned_unless_slabs_are_asked_for(reproduce):
    _, printed, _ = reproduce("--seeds", "1", "--model", "cgcnn", "--candidate", "beta_10", "--dry-run")
    assert printed.splitlines()[-1] == "2 runs"
    losses = "[{'energy': {'fn': 'mae', 'coefficient': 1}}, {'forces': {'fn': 'mae', 'coefficient': 10}}]"
    assert f'md17/cgcnn_recommended "--loss_functions={losses}"' in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--candidate", "ema"), "--candidate ema is unknown; choose from baseline, method, recommended, irelu"),
        (("--candidate", "no_clip+emu"), "--candidate emu is unknown; choose from baseline"),
        (("--candidate", "cosine+plateau"), "cosine and plateau both change --optim.scheduler"),
        (("--candidate", "irelu+silu"), "irelu and silu both change activation"),
        (("--candidate", "squared+beta_10+vectors"), "squared and vectors both change forces.fn"),
        (("--candidate", "no_clip+no_clip"), "no_clip and no_clip both change --optim.clip_grad_norm"),
        (("--candidate", "no_norm+not_conservative"), "these are of no model in common"),
        (("--candidate", "no_clip+method"), "method changes nothing that could be joined with others"),
        (("--model", "schnett"), "--model schnett is unknown; choose from schnet"),
        (("--collection", "md18"), "--collection md18 is unknown; choose from md17, oc22"),
        (("--collection", "md17", "oc22", "--data", "x"), "--collection md17 oc22: --data x is of one of them"),
        (("--variant", "irelu"), "--variant is an option of molecules and materials, not of candidates"),
        (("--scale", "length"), "--scale length: candidates has small, wide, smoke"),
        (("--epochs", "0"), "--epochs 0: give 1 or more"),
        (("--out", "a=b"), "cannot read a path with = in it"),
    ],
)
def test_mistakes_are_named(reproduce, tmp_path, arguments, message):
    status, _, error = reproduce(*arguments)
    assert status == 2
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_every_run_can_be_of_as_many_epochs_as_one_likes(reproduce):
    chosen = ("--data", "sample", "--seeds", "1", "--model", "gemnet_t", "--candidate", "method", "--epochs", "10")
    _, printed, _ = reproduce(*chosen, "--dry-run")
    steps = dict(re.findall(r"candidates-gemnet_t-(\w+-\w+)-s0 .* (\S+) +not measured", printed))
    ethanol = {"ethanol-recommended": "400", "ethanol-method": "400"}
    assert steps == ethanol | {"oc22-recommended": "320", "oc22-method": "320"}


def test_joined_candidates_make_all_their_changes(reproduce):
    _, printed, _ = reproduce("--seeds", "1", "--model", "cgcnn", "--candidate", "squared+beta_10+no_norm", "--dry-run")
    assert printed.splitlines()[-1] == "2 runs"
    losses = "[{'energy': {'fn': 'mse', 'coefficient': 1}}, {'forces': {'fn': 'mse', 'coefficient': 10}}]"
    (line,) = [line for line in printed.splitlines() if "-beta_10+squared+no_norm-s0" in line]
    assert f'md17/cgcnn_recommended --model.denormalize=all "--loss_functions={losses}"' in line
    _, printed, _ = reproduce("--seeds", "1", "--candidate", "silu+batch_norm", "beta_10+irelu", "--dry-run")
    joined = [line.split()[1] for line in printed.splitlines() if "+" in line and line[0].isdigit()]
    assert joined[:2] == [
        "candidates-schnet-ethanol-irelu+beta_10-s0",
        "candidates-cgcnn-ethanol-silu+batch_norm-s0",
    ]
    assert sum("silu+batch_norm" in name for name in joined) == 1


def test_names_give_the_experiments_back():
    assert [CandidateExperiment.of_id(experiment.id) for experiment in OF_CGCNN] == OF_CGCNN
    assert len({experiment.id for experiment in OF_CGCNN}) == len(OF_CGCNN)
    assert CandidateExperiment("irelu", "cgcnn", "oc22", 4).cell == "candidates-cgcnn-oc22-irelu-s0"


@pytest.mark.parametrize("experiment", OF_CGCNN, ids=lambda each: each.id)
def test_it_is_its_config_and_the_planned_overrides_and_nothing_else(experiment, tmp_path):
    run = planned(experiment, tmp_path)
    recommended = planned(CandidateExperiment(RECOMMENDED, "cgcnn", experiment.molecule), tmp_path)
    of_all = {word for word in recommended.command if str(tmp_path) not in word and not word.endswith(".yml")}
    more = [word for word in run.command[2:] if word not in of_all and str(tmp_path) not in word]
    assert [word for word in more if not word.endswith(".yml")] == run.overrides
    assert run.settings.replace('"', "") == " ".join([experiment.config, *run.overrides])
    assert bool(run.overrides) == (experiment.candidate not in ("baseline", "method", RECOMMENDED))
    # that these are keys and values of a config
    assert checked_arguments("train", run.command[2:])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("molecule", ["ethanol", "oc22"])
def test_recommended_configs_have_classes_whose_activation_can_be_replaced(model, molecule):
    config = load_config(config_file(CandidateExperiment(RECOMMENDED, model, molecule).config))[0]
    assert config["model"]["name"] == f"{model}_irelu"
    assert config["model"]["activation"] == "original"


def test_the_page_names_every_candidate():
    page = (Path(__file__).parents[2] / "docs" / "recommended.md").read_text()
    assert [name for name in CANDIDATES if name != RECOMMENDED and f"`{name}`" not in page] == []


def test_only_steps_of_the_same_number_are_compared(tmp_path):
    for model in MODELS:
        for molecule in ("ethanol", "oc22"):
            steps = {planned(each, tmp_path).steps for each in experiments_of(molecule, 1, [model])}
            assert steps == {2_000 if molecule == "ethanol" else 800 if model in ("schnet", "cgcnn") else 1_600}


def test_wide_networks_have_the_published_widths_and_few_steps(tmp_path):
    for molecule, steps in (("ethanol", 200), ("oc22", 80)):
        experiment = CandidateExperiment("clip_1", "schnet", molecule)
        run = CandidateRun(experiment, SCALES["wide", experiment.collection], MoleculeSource(tmp_path), tmp_path)
        assert run.steps == steps
        assert not any("hidden_channels" in word for word in run.command)


# --- the runs -----------------------------------------------------------------------------------------------------


def test_errors_on_the_validation_set_are_those_that_evaluate_finds(tmp_path):
    experiment = CandidateExperiment("mean_force", "cgcnn", "ethanol")
    run = CandidateRun(experiment, SCALES["smoke", MD17], MoleculeSource(sample_path()), tmp_path)
    prepare([run])
    description = read_record(run.folder / "experiment.json")
    assert description["work"] == f"{train_validate_and_test.__module__}:{train_validate_and_test.__name__}"
    quantities = train_validate_and_test(run.folder, description).quantities
    for split, name in (("val", on_validation), ("test", str)):
        errors, _ = evaluate(run.folder / CHECKPOINT, run.data / split)
        assert quantities[name("force MAE")].value == pytest.approx(errors.force_mae, rel=1e-9)
        assert quantities[name("energy MAE")].value == pytest.approx(errors.energy_mae, rel=1e-9)
        assert quantities[name("centered energy MAE")].value == pytest.approx(errors.energy_mae_centered, rel=1e-9)
    assert quantities["validation force MAE"] != quantities["force MAE"]


@pytest.mark.parametrize(("key", "other"), [("overrides", ["--task.label_rescaling=30"]), ("config_sha256", "0")])
def test_runs_of_another_config_or_change_are_not_taken_for_it(tmp_path, sample_data, key, other):
    run = planned(CandidateExperiment("mean_force", "cgcnn", "ethanol"), tmp_path)
    manifests = {"train": read_manifest(sample_data / "train")}
    run.describe(manifests)
    run.describe(manifests)
    description = read_record(run.folder / "experiment.json")
    assert description["overrides"] == ["--task.label_rescaling=mean_force"]
    write_record(run.folder / "experiment.json", {**description, key: other})
    with pytest.raises(InputError, match=re.escape(f"is of a run with {key} {json.dumps(other)}, not")):
        run.describe(manifests)


# --- the report ---------------------------------------------------------------------------------------------------


def report(out, *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    add_run_commands(parser.add_subparsers())
    args = parser.parse_args(["report", str(out), "--target", "candidates", *arguments])
    assert args.func(args) == 0
    return next(out.glob("report.*")).read_text()


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The table under a heading, by the first cell of its rows."""
    (section,) = [part for part in text.split("\n## ") if part.startswith(title)]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}


# of each candidate the factor by which its errors are the recommended one's, by seed
FACTORS = {
    RECOMMENDED: (1.0, 1.0, 1.0),
    "baseline": (20.0, 22.0, 21.0),
    "ema_0.99": (0.80, 0.81, 0.79),
    "no_clip": (1.01, 1.0, 0.99),
    "bounded_irelu": (0.9, 1.2, 1.1),
    "irelu": (1.3, 1.2, 1.4),
    "irelu+beta_10": (1.0, 1.1, 1.05),
}


@pytest.fixture
def results(write_run, tmp_path):
    """Of SchNet on both; the test set would have chosen another."""
    for molecule, unit in (("ethanol", "kcal/mol"), ("oc22", "eV")):
        for name, factors in FACTORS.items():
            for seed, factor in enumerate(factors):
                experiment = CandidateExperiment(name, "schnet", molecule, seed)
                error = factor * (1.0 + 0.2 * seed)
                folder = write_run(experiment, force=3.0 - error / 40, energy=0.5, centered=0.25, unit=unit)
                result = read_record(folder / "result.json")
                for quantity, value, per in (
                    ("force", error, "/Å"),
                    ("energy", error, ""),
                    ("centered energy", 0.3, ""),
                ):
                    result["quantities"][f"validation {quantity} MAE"] = {"value": value, "unit": unit + per}
                write_record(folder / "result.json", result)
    write_run(CandidateExperiment("integrated_elu", "schnet", "ethanol"), "diverged", step=7)
    write_run(CandidateExperiment("silu", "cgcnn", "ethanol"), "unfinished", losses=[3.0])
    return tmp_path


def test_a_table_for_each_model_and_collection_by_the_validation_sets_force_error(results):
    text = report(results)
    table = rows(text, "SchNet, ethanol: candidates")
    header, _, *found = table
    assert found == [
        "ema_0.99",
        "no_clip",
        RECOMMENDED,
        "irelu+beta_10",
        "bounded_irelu",
        "irelu",
        "baseline",
        "integrated_elu",
    ]
    assert table[header] == [
        "What it is",
        *(f"validation {name}" for name in ("force MAE (kcal/mol/Å)", "energy MAE (kcal/mol)")),
        *("validation centered energy MAE (kcal/mol)", "force MAE (kcal/mol/Å)"),
        *("energy MAE (kcal/mol)", "centered energy MAE (kcal/mol)"),
    ]
    assert table["ema_0.99"][:2] == ["average of weights, decay 0.99", "**0.96 ± 0.15**"]
    assert table["irelu+beta_10"][0] == "IReLU, β = 10"
    assert table[RECOMMENDED][3:5] == ["**0.30 ± 0.00**", "2.97 ± 0.0050"]
    assert table["baseline"][4].startswith("**")
    assert table["integrated_elu"][1] == "NaN at step 7"
    assert "validation force MAE (eV/Å)" in rows(text, "SchNet, oc22: candidates")["Candidate"]
    assert list(rows(text, "CGCNN, ethanol: candidates"))[2:] == ["silu"]
    assert "Diverged: candidates-schnet-ethanol-integrated_elu-s0 at step 7." in text


def test_candidates_are_held_against_the_recommended_protocol_by_the_stated_rule(results):
    text = report(results)
    table = rows(text, "SchNet, ethanol: held against")
    assert RECOMMENDED not in table
    of_forces = {name: [cell.split("<br>")[0] for cell in cells] for name, cells in table.items()}
    assert of_forces["ema_0.99"] == ["validation force MAE", "-0.22 ± 0.01, × 0.8, lower in 3 of 3", "better"]
    assert of_forces["baseline"][2] == "worse"
    assert of_forces["no_clip"][2] == "alike"
    assert of_forces["bounded_irelu"][1:] == ["+0.06 ± 0.15, × 1.06, lower in 1 of 3", "undecided"]
    assert of_forces["irelu"][2] == "worse"
    # of one seed, which diverged
    assert of_forces["integrated_elu"][1:] == ["diverged, lower in 0 of 1", "undecided"]
    notes = text.split("SchNet, ethanol: held against")[1].split("\n## ")[0]
    assert "Better in forces, and in no energy worse: ema_0.99." in notes
    assert "less than 1.1 times as large: irelu+beta_10, bounded_irelu." in notes
    assert "CGCNN, ethanol: held against" not in text


def test_frames_that_validate_and_test_are_said_to_be_the_same(write_run, tmp_path):
    description = write_run(CandidateExperiment(RECOMMENDED, "schnet", "oc22")) / "experiment.json"
    assert "Tested on the validation set itself" not in report(tmp_path)
    split = {**read_record(description)["split"], "sizes": {"train": 320, "val": 40}}
    write_record(description, read_record(description) | {"split": split})
    assert "Tested on the validation set itself: oc22." in report(tmp_path)


def test_csv_tells_candidates_and_units_apart(results):
    lines = report(results, "--format", "csv").splitlines()
    assert lines[0].startswith("target,candidate,model,molecule,seed,scale,epochs,status,step,quantity,unit,value")
    assert any(line.startswith("candidates,ema_0.99,schnet,oc22,1,small,50,finished") for line in lines)
    assert {line.split(",")[10] for line in lines[1:]} == {"kcal/mol/Å", "kcal/mol", "eV/Å", "eV"}
