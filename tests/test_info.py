"""What `ocp-dc info` says of an installation and of checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

import ocp_dc
from ocp_dc.errors import InputError
from ocp_dc.info import add_info_command, describe_checkpoint, describe_installation
from ocp_dc.launch import run_fairchem

OLD = Path(__file__).parent / "data" / "checkpoints"
RUN = ("--timestamp-id", "run", "--optim.max_epochs=1")


def info(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_info_command(parser.add_subparsers())
    args = parser.parse_args(["info", *arguments])
    return args.func(args)


def test_our_models_are_told_from_fairchems(capsys):
    rows = describe_installation()
    assert rows["ocp_dc"] == ocp_dc.__version__
    assert {"schnet_irelu", "cgcnn", "derivative_constrained"} <= set(rows["models of ocp_dc"].split(", "))
    assert {"schnet", "gemnet_t", "painn"} <= set(rows["models of fairchem"].split(", "))
    assert info() == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 110 for line in lines)
    assert lines[0].index(ocp_dc.__version__) == lines[1].index("1.10.0")


def test_what_a_checkpoint_holds(train_arguments, sample_data, tmp_path, capsys):
    run_fairchem("train", train_arguments("cgcnn_irelu_recommended", *RUN, "--optim.ema_decay=0.9"))
    path = tmp_path / "checkpoints" / "run" / "checkpoint.pt"
    capsys.readouterr()
    assert info(str(path)) == 0
    printed = capsys.readouterr().out
    for line in (
        "cgcnn_irelu",
        "cutoff: 6.0 Å",
        "3 replaced",
        "fcs.*: Softplus → IReLU (2 times)",
        "convs.*.bn1: BatchNorm1d → Removed (2 times)",
        "mean: -97,073.7915 kcal/mol",
        "kcal/mol, Å, from: ",
        "records: 100 for train, 20 for val",
        "ethanol: 100 of ",
        "step 5, epoch 1",
        "kcal/mol/Å",
        "beside those of the last step, decay 0.9",
        f"ocp_dc {ocp_dc.__version__}, fairchem-core 1.10.0",
    ):
        assert line in printed
    best = describe_checkpoint(path.with_name("best_checkpoint.pt"))
    assert best["reached"] == "not stated"
    assert best["validation"][1].startswith("forces_mae ")
    assert best["validation"][1].endswith(" kcal/mol/Å")
    assert best["averaged weights"].startswith("in place of those")


def test_a_checkpoint_without_units():
    rows = describe_checkpoint(OLD / "schnet_dc.pt")
    assert rows["parameters"] == "8,865"
    assert rows["activations"][:2] == ["5 replaced", "act: ShiftedSoftplus → IReLU"]
    assert rows["normalizations"] == "none removed"
    assert rows["label rescaling"] == "C = 1,000,000"
    assert rows["reference energy"] == "none"
    assert rows["units"] == "not stated"
    assert rows["trained on"] == "not stated; dataset.train.src was data/train"
    assert rows["best metric"] == ["forces_mae 21,504.3 (unit not stated)"]


def test_element_references_and_a_wrapped_model(train_arguments, tmp_path):
    run_fairchem("train", train_arguments("schnet_irelu_recommended", *RUN, "--task.reference_energy=element"))
    path = tmp_path / "checkpoints" / "run" / "checkpoint.pt"
    assert describe_checkpoint(path)["reference energy"].startswith("element: H ")

    checkpoint = torch.load(path, weights_only=False)
    base = {"name": "painn", "hidden_channels": 16, "cutoff": 5.0, "use_pbc": False}
    checkpoint["config"]["model"] = {"name": "derivative_constrained", "activation": "irelu", "base": base}
    torch.save(checkpoint, path)
    rows = describe_checkpoint(path)
    assert rows["settings"] == (
        "activation: irelu, base: (name: painn, hidden_channels: 16, cutoff: 5.0 Å, use_pbc: False)"
    )
    assert rows["activations"][1].endswith("ScaledSiLU → IReLU")


def test_a_model_that_is_not_installed_leaves_the_rest(tmp_path):
    checkpoint = torch.load(OLD / "schnet_dc.pt", weights_only=False)
    checkpoint["config"]["model"]["name"] = "of_another_package"
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    rows = describe_checkpoint(tmp_path / "checkpoint.pt")
    assert rows["sites"].startswith("not known, the model cannot be built here: ")
    assert rows["label rescaling"] == "C = 1,000,000"


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        info(str(tmp_path / "no.pt"))
    torch.save({"weights": 1}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="has no state_dict, config, normalizers"):
        info(str(tmp_path / "bad.pt"))
