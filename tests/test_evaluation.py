import json
import logging
import math
import pickle
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from ocp_dc.cli import main
from ocp_dc.errors import InputError
from ocp_dc.evaluation import ConformationErrors, Predictions, conformation_errors, evaluate, predict, summarize
from ocp_dc.launch import run_fairchem
from ocp_dc.prediction_commands import format_errors

KCAL_IN_EV = 0.0433634


def test_errors_of_each_conformation():
    errors = conformation_errors(
        Predictions(
            energy=torch.tensor([1.0, -97_073.03125, 2.0], dtype=torch.float64),
            forces=torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 0, -1.5]]),
            true_energy=torch.tensor([3.0, -97_073.0, 2.5], dtype=torch.float64),
            true_forces=torch.zeros(3, 3),
            # the last conformation's atoms are all fixed, and do not count
            natoms=torch.tensor([2, 1, 0]),
            formulas=["H2", "H", "H"],
            names=["a_0", "a_1", "a_2"],
        )
    )
    assert errors.energy_difference.tolist() == [-2.0, -0.03125, -0.5]
    assert errors.energy.tolist() == [2.0, 0.03125, 0.5]
    assert errors.force.tolist() == [0.5, 0.5, 0.0]
    assert errors.largest_force.tolist() == [3.0, 1.5, 0.0]


def errors_of(energy_difference, force=0.0, largest_force=0.0, formula="C2H6O"):
    count = len(energy_difference)
    return ConformationErrors(
        *(np.broadcast_to(values, count) for values in (energy_difference, force, largest_force, formula)),
        name=np.array([f"ethanol_{row}" for row in range(count)]),
    )


def test_efwt_thresholds_are_in_ev():
    energy_limit, force_limit = 0.02 / KCAL_IN_EV, 0.03 / KCAL_IN_EV
    errors = errors_of(
        energy_difference=np.array([0.99, 1.01, -0.99, -0.5]) * energy_limit,
        force=0.1,
        largest_force=np.array([0.99, 0.99, 1.01, 0.5]) * force_limit,
    )
    summary = summarize(errors, "kcal/mol")
    assert summary.efwt == 0.5
    assert summary.energy_mae == pytest.approx(errors.energy.mean())
    assert summary.energy_mae_eV == pytest.approx(errors.energy.mean() * KCAL_IN_EV)
    assert summary.force_mae_eV_per_angstrom == pytest.approx(0.1 * KCAL_IN_EV)
    assert "kcal/mol/Å" in format_errors(summary)


def test_errors_at_the_thresholds_are_within_them():
    errors = errors_of(np.array([0.02, 0.0]), largest_force=np.array([0.0, 0.03]))
    assert summarize(errors, "eV").efwt == 1.0


def test_conformations_with_an_error_that_is_not_finite():
    nan, inf = float("nan"), float("inf")
    errors = errors_of(
        np.array([0.0, nan, 0, 0, inf]),
        force=np.array([0.0, 0, inf, 0, 0]),
        largest_force=np.array([0.0, 0, 0, nan, 0]),
    )
    assert errors.not_finite == ["ethanol_1", "ethanol_2", "ethanol_3", "ethanol_4"]


def test_unknown_unit():
    with pytest.raises(InputError, match="'furlong' is unknown; known: kcal/mol"):
        summarize(errors_of([0.0]), "furlong")


def test_the_offset_of_each_composition_is_taken_off_energy_errors():
    of_one = summarize(errors_of([-3_879.0, -3_867.0, -3_873.0]), "kcal/mol")
    assert of_one.energy_mae == of_one.energy_mae_centered + 3_869 == -of_one.energy_offset == 3_873
    formulas = ["CH4", "H2O", "CH4", "H2O", "H2"]
    of_several = summarize(errors_of([5.0, -7.0, 6.0, -10.0, 1.0], formula=formulas), "eV")
    assert of_several.energy_offset == -1.0
    # hydrogen, of which there is one, is left out
    assert of_several.energy_mae_centered == np.mean([0.5, 1.5, 0.5, 1.5])
    assert summarize(errors_of([1.0, 2.0], formula=["CH4", "H2"]), "eV").energy_mae_centered is None


@pytest.fixture
def checkpoint(train_arguments, tmp_path):
    run_fairchem("train", train_arguments("schnet_irelu_recommended", "--optim.max_epochs=2", "--timestamp-id", "run"))
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


def test_an_lmdb_without_a_manifest_is_taken_to_be_in_ev_unless_a_unit_is_given(
    checkpoint, sample_data, tmp_path, caplog
):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "data.lmdb").write_bytes((sample_data / "test" / "data.lmdb").read_bytes())
    with caplog.at_level(logging.WARNING):
        assert main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(bare), "--cpu"]) == 0
    assert "has no manifest: energies taken to be in eV" in caplog.text
    result = json.loads((checkpoint.parent / "result.json").read_text())
    assert result["energy_unit"] == "eV"
    assert result["energy_mae"] == result["energy_mae_eV"]

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        stated, _ = evaluate(checkpoint, bare, cpu=True, energy_unit="kcal/mol")
    assert "has no manifest" not in caplog.text
    assert stated == evaluate(checkpoint, sample_data / "test", cpu=True)[0]
    assert "has no manifest" not in caplog.text


def _to_ev(record):
    record.y *= KCAL_IN_EV
    record.force = record.force * KCAL_IN_EV


def _state(source, target, **units):
    manifest = json.loads((source / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**manifest, **units}))


def test_predictions_are_converted_to_the_energy_unit_of_the_data(checkpoint, sample_data, tmp_path, caplog):
    in_ev = tmp_path / "in_ev"
    in_ev.mkdir()
    _rewrite(sample_data / "test", in_ev, _to_ev)
    _state(sample_data / "test", in_ev, energy_unit="eV")
    errors, _ = evaluate(checkpoint, sample_data / "test", 20, cpu=True)
    assert "converted" not in caplog.text
    converted, _ = evaluate(checkpoint, in_ev, 20, cpu=True)
    assert "in kcal/mol and Ang, are converted to those of" in caplog.text
    assert converted.energy_unit == "eV"
    assert converted.energy_mae == pytest.approx(errors.energy_mae * KCAL_IN_EV, rel=1e-6)
    assert converted.force_mae == pytest.approx(errors.force_mae * KCAL_IN_EV, rel=1e-6)
    assert converted.energy_mae_eV == pytest.approx(errors.energy_mae_eV, rel=1e-6)
    assert converted.efwt == errors.efwt
    assert converted.energy_offset == pytest.approx(errors.energy_offset * KCAL_IN_EV, rel=1e-6)


def test_another_length_unit_is_refused(checkpoint, sample_data, tmp_path):
    in_bohr = tmp_path / "in_bohr"
    in_bohr.mkdir()
    _rewrite(sample_data / "test", in_bohr, lambda record: None)
    _state(sample_data / "test", in_bohr, length_unit="Bohr")
    with pytest.raises(InputError, match=r"is of data in kcal/mol and Ang, .*in_bohr is in kcal/mol and Bohr: "):
        evaluate(checkpoint, in_bohr, 20, cpu=True)


def test_an_old_checkpoint_is_taken_to_be_in_the_units_of_the_data(sample_data, caplog):
    path = Path(__file__).parent / "data" / "checkpoints" / "cgcnn_irelu_recommended.pt"
    errors, _ = evaluate(path, sample_data / "test", 20, cpu=True)
    assert f"{path} states no units: taken to be those of {sample_data / 'test'}, kcal/mol and Ang" in caplog.text
    assert errors.energy_unit == "kcal/mol"
    assert errors.energy_mae < 20  # the mean energy is 97,073 from 0


def test_an_lmdb_without_labels_is_refused(checkpoint, sample_data, tmp_path):
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    _rewrite(sample_data / "test", unlabelled, _forget_labels)
    with pytest.raises(InputError, match=r"unlabelled has no energy and no forces: errors need labels"):
        evaluate(checkpoint, unlabelled, 20, cpu=True)


def _forget_labels(record):
    del record.y, record.force


def test_missing_data_and_checkpoint(checkpoint, sample_data, tmp_path, capsys):
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: there is no such file or folder" in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", str(tmp_path / "no.pt"), "--data", str(sample_data / "test")]) == 2
    assert "no.pt: no such file" in capsys.readouterr().err


def test_averaged_weights_are_evaluated_where_there_are_some(train_arguments, sample_data, tmp_path):
    run_fairchem(
        "train", train_arguments("schnet", "--optim.max_epochs=1", "--timestamp-id", "run", "--optim.ema_decay=0.9")
    )
    path = tmp_path / "checkpoints" / "run" / "checkpoint.pt"
    checkpoint = torch.load(path, weights_only=False)
    # the filter networks stand there twice, under .mlp. and .conv.nn.
    names = [name for name in checkpoint["state_dict"] if ".conv.nn." not in name and not name.endswith("offset")]
    averaged = dict(zip(names, checkpoint["ema"]["shadow_params"], strict=True))
    averaged |= {name.replace(".mlp.", ".conv.nn."): average for name, average in averaged.items()}
    assert all(average.shape == checkpoint["state_dict"][name].shape for name, average in averaged.items())
    errors, _ = evaluate(path, sample_data / "test", 20, cpu=True)

    torch.save({**checkpoint, "state_dict": {**checkpoint["state_dict"], **averaged}, "ema": None}, path)
    expected, _ = evaluate(path, sample_data / "test", 20, cpu=True)
    assert errors == expected
    torch.save({**checkpoint, "ema": None}, path)
    raw, _ = evaluate(path, sample_data / "test", 20, cpu=True)
    assert raw.energy_mae != errors.energy_mae


def test_fixed_atoms_count_unless_the_config_says_otherwise(train_arguments, sample_data, tmp_path):
    arguments = train_arguments("schnet", "--optim.max_epochs=1", "--timestamp-id", "run")
    run_fairchem("train", arguments)
    path = tmp_path / "checkpoints" / "run" / "checkpoint.pt"
    checkpoint = torch.load(path, weights_only=False)
    half_fixed = tmp_path / "half_fixed"
    half_fixed.mkdir()
    _rewrite(sample_data / "test", half_fixed, lambda record: record.fixed[:4].fill_(1))

    of_all, errors_of_all = evaluate(path, half_fixed, 20, cpu=True)
    checkpoint["config"]["outputs"]["forces"]["eval_on_free_atoms"] = True
    torch.save(checkpoint, path)
    (free,) = predict(path, half_fixed, 20, cpu=True)
    assert free.natoms.tolist() == 20 * [5]
    of_free, errors_of_free = evaluate(path, half_fixed, 7, cpu=True)
    assert of_free.energy_mae == pytest.approx(of_all.energy_mae)
    by_hand = (free.forces - free.true_forces).abs().reshape(20, -1).mean(dim=1)
    assert errors_of_free.force == pytest.approx(by_hand.numpy(), rel=1e-5)
    assert (errors_of_free.force != errors_of_all.force).all()


def test_structures_without_an_atom_that_counts(ethanol_checkpoint, sample_data, tmp_path):
    checkpoint = torch.load(ethanol_checkpoint, weights_only=False)
    checkpoint["config"]["outputs"]["forces"]["eval_on_free_atoms"] = True
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    _rewrite(sample_data / "test", tmp_path, lambda record: record.fixed.fill_(1))
    (free,) = predict(tmp_path / "checkpoint.pt", tmp_path, 20, cpu=True)
    assert free.natoms.tolist() == 20 * [0]
    assert free.forces.shape == (0, 3)


def test_the_structure_that_is_refused_is_named(ethanol_checkpoint, sample_data, tmp_path):
    names = evaluate(ethanol_checkpoint, sample_data / "test", batch_size=1, cpu=True)[1].name
    for key, values in (("y", lambda record: record.y * math.nan), ("force", lambda record: record.force / 0)):
        bad = tmp_path / key
        bad.mkdir()

        def spoil(record, key=key, values=values):
            if names[3] == f"{record.sid}_{record.fid}":
                record[key] = values(record)

        _rewrite(sample_data / "test", bad, spoil)
        with pytest.raises(InputError, match=f"structure {names[3]} has NaN or infinite"):
            evaluate(ethanol_checkpoint, bad, 20, cpu=True)


def test_structures_without_names_are_numbered_in_what_refuses_them(ethanol_checkpoint, sample_data, tmp_path):
    def forget(record):
        del record.sid, record.fid

    nameless, bad = tmp_path / "nameless", tmp_path / "bad"
    nameless.mkdir()
    _rewrite(sample_data / "test", nameless, forget)
    assert evaluate(ethanol_checkpoint, nameless, cpu=True)[1].name.tolist() == 20 * [""]
    bad.mkdir()
    _rewrite(nameless, bad, lambda record: record.y.fill_(math.inf))
    with pytest.raises(InputError, match="structure 0 has NaN or infinite energy"):
        evaluate(ethanol_checkpoint, bad, cpu=True)


def test_elements_that_were_not_trained_on(ethanol_checkpoint, sample_data, tmp_path):
    def replace_oxygen(record):
        record.atomic_numbers[record.atomic_numbers == 8] = 16

    _rewrite(sample_data / "test", tmp_path, replace_oxygen)
    with pytest.raises(InputError, match=r"structure .*_.* has S, and the model was trained on H, C, O: give"):
        evaluate(ethanol_checkpoint, tmp_path, cpu=True)
    _, errors = evaluate(ethanol_checkpoint, tmp_path, cpu=True, any_element=True)
    assert errors.formula.tolist() == 20 * ["C2H6S"]


def _rewrite(source, target, change):
    """A copy of an LMDB with each record changed in place."""
    with (
        lmdb.open(str(source / "data.lmdb"), subdir=False, readonly=True, lock=False) as old,
        lmdb.open(str(target / "data.lmdb"), subdir=False, map_size=1 << 24) as new,
        old.begin() as reading,
        new.begin(write=True) as writing,
    ):
        for key, record in reading.cursor():
            value = pickle.loads(record)
            if key != b"length":
                change(value)
            writing.put(key, pickle.dumps(value))
