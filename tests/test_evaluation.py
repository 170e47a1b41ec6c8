import json
import logging

import numpy as np
import pytest
import torch

from ocp_dc.cli import format_errors, main, run_host
from ocp_dc.errors import InputError
from ocp_dc.evaluation import ConformationErrors, conformation_errors, summarize

KCAL_IN_EV = 0.0433634


def test_errors_of_each_conformation():
    errors = conformation_errors(
        energy=torch.tensor([1.0, -97_073.03125], dtype=torch.float64),
        forces=torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 0, -1.5]]),
        true_energy=torch.tensor([3.0, -97_073.0], dtype=torch.float64),
        true_forces=torch.zeros(3, 3),
        natoms=torch.tensor([2, 1]),
    )
    assert errors.energy.tolist() == [2.0, 0.03125]
    assert errors.force.tolist() == [0.5, 0.5]
    assert errors.largest_force.tolist() == [3.0, 1.5]


def test_efwt_thresholds_are_in_ev():
    energy_limit, force_limit = 0.02 / KCAL_IN_EV, 0.03 / KCAL_IN_EV
    errors = ConformationErrors(
        energy=np.array([0.99, 1.01, 0.99, 0.5]) * energy_limit,
        force=np.array([0.1, 0.1, 0.1, 0.1]),
        largest_force=np.array([0.99, 0.99, 1.01, 0.5]) * force_limit,
    )
    summary = summarize(errors, "kcal/mol")
    assert summary.efwt == 0.5
    assert summary.energy_mae == pytest.approx(errors.energy.mean())
    assert summary.energy_mae_eV == pytest.approx(errors.energy.mean() * KCAL_IN_EV)
    assert summary.force_mae_eV_per_angstrom == pytest.approx(0.1 * KCAL_IN_EV)
    assert "kcal/mol/Å" in format_errors(summary)


def test_unknown_unit():
    with pytest.raises(InputError, match="'furlong' is unknown; known: kcal/mol"):
        summarize(ConformationErrors(*3 * [np.zeros(1)]), "furlong")


@pytest.fixture
def checkpoint(train_arguments, tmp_path):
    run_host("train", train_arguments("schnet_irelu_recommended", "--optim.max_epochs=2", "--timestamp-id", "run"))
    return tmp_path / "checkpoints" / "run" / "checkpoint.pt"


def test_evaluate_from_the_command_line(checkpoint, sample_data, tmp_path, capsys):
    evaluate = ["evaluate", "--checkpoint", str(checkpoint), "--cpu"]
    assert main([*evaluate, "--data", str(sample_data / "val")]) == 0
    printed = capsys.readouterr().out
    result = json.loads((checkpoint.parent / "result.json").read_text())
    assert f"{result['energy_mae']:.4f} kcal/mol" in printed
    assert result["conformations"] == 20
    # the trainer's own validation, another path to the same number
    log = (tmp_path / "logs/tensorboard/run/metrics.jsonl").read_text().splitlines()
    validated = json.loads(log[-1])
    assert validated["split"] == "val"
    assert result["energy_mae"] == pytest.approx(validated["energy_mae"], rel=1e-5)
    assert result["force_mae"] == pytest.approx(validated["forces_mae"], rel=1e-5)

    assert main([*evaluate, "--data", str(sample_data / "val")]) == 2
    assert "result.json exists" in capsys.readouterr().err
    assert main([*evaluate, "--data", str(sample_data / "val" / "data.lmdb"), "--batch-size", "7", "--overwrite"]) == 0
    batched = json.loads((checkpoint.parent / "result.json").read_text())
    assert batched["energy_mae"] == pytest.approx(result["energy_mae"], rel=1e-6)


def test_an_lmdb_without_a_manifest_is_taken_to_be_in_ev(checkpoint, sample_data, tmp_path, caplog):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "data.lmdb").write_bytes((sample_data / "test" / "data.lmdb").read_bytes())
    with caplog.at_level(logging.WARNING):
        assert main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(bare), "--cpu"]) == 0
    assert "has no manifest: energies taken to be in eV" in caplog.text
    result = json.loads((checkpoint.parent / "result.json").read_text())
    assert result["energy_unit"] == "eV"
    assert result["energy_mae"] == result["energy_mae_eV"]


def test_missing_data_and_checkpoint(checkpoint, sample_data, tmp_path, capsys):
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(tmp_path / "nowhere")]) == 2
    assert "no LMDB there" in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", str(tmp_path / "no.pt"), "--data", str(sample_data / "test")]) == 2
    assert "no.pt: no such file" in capsys.readouterr().err
