"""What a worker makes of each way in which a run can end, without training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ocp_dc.errors import InputError, TrainingDivergedError
from ocp_dc.experiments import worker
from ocp_dc.experiments.records import checkpoint_path, metrics_path, read_record, write_record

ERRORS = {"conformations": 2, "energy_unit": "kcal/mol", "energy_mae": 3.0, "force_mae": 0.5, "efwt": 0.5}
PREDICTIONS = {"energy_error": np.array([2.0, 4.0])}


@pytest.fixture
def folder(tmp_path):
    description = {"steps": 100, "scale": "smoke", "test_data": "data/test", "test_batch_size": 20}
    write_record(tmp_path / "experiment.json", {**description, "command": "ocp-dc train --config-yml 'a b.yml'"})
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """What was trained and tested; both succeed."""
    calls = []
    monkeypatch.setattr(worker, "run_fairchem", lambda *call: calls.append(call))
    monkeypatch.setattr(worker, "evaluate_predictions", lambda *call: (ERRORS, PREDICTIONS))
    return calls


def save_checkpoint(folder, step: int) -> None:
    checkpoint_path(folder).parent.mkdir(parents=True)
    torch.save({"step": step, "state_dict": {}, "config": {}, "normalizers": {}}, checkpoint_path(folder))


def test_finished(folder, trained):
    worker.work(folder)
    assert trained == [("train", ["--config-yml", "a b.yml"])]
    result = read_record(folder / "result.json")
    assert (result["status"], result["step"], result["message"], result["scale"]) == ("finished", 100, None, "smoke")
    assert {key: result[key] for key in ERRORS} == ERRORS
    with np.load(folder / "errors.npz") as arrays:
        assert arrays["energy_error"].tolist() == [2.0, 4.0]


def test_diverged(folder, trained, monkeypatch):
    def diverge(*_):
        raise TrainingDivergedError("loss", 42, ["ethanol_7"], None)

    monkeypatch.setattr(worker, "run_fairchem", diverge)
    worker.work(folder)
    result = read_record(folder / "result.json")
    assert (result["status"], result["step"]) == ("diverged", 42)
    assert "loss not finite at step 42" in result["message"]
    assert not (folder / "errors.npz").exists()


def test_predictions_that_are_not_finite_are_divergence_too(folder, trained, monkeypatch):
    monkeypatch.setattr(worker, "evaluate_predictions", lambda *_: ({**ERRORS, "force_mae": float("nan")}, PREDICTIONS))
    worker.work(folder)
    text = (folder / "result.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["status"] == "diverged"
    assert json.loads(text)["step"] == 100


def test_an_error_is_recorded(folder, trained, monkeypatch, capsys):
    def fail(*_):
        raise InputError("dataset.train.src is gone")

    monkeypatch.setattr(worker, "run_fairchem", fail)
    worker.work(folder)
    result = read_record(folder / "result.json")
    assert (result["status"], result["message"]) == ("failed", "InputError: dataset.train.src is gone")
    assert "Traceback" in capsys.readouterr().err


def test_being_stopped_leaves_no_result(folder, trained, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "run_fairchem", stop)
    with pytest.raises(KeyboardInterrupt):
        worker.work(folder)
    assert not (folder / "result.json").exists()


def test_what_was_logged_before_the_first_checkpoint_is_forgotten(folder, trained):
    metrics_path(folder).parent.mkdir(parents=True)
    metrics_path(folder).write_text('{"step": 10}\n')
    worker.work(folder)
    assert not metrics_path(folder).exists()


def test_seconds_are_those_of_all_steps(folder, trained, monkeypatch):
    metrics_path(folder).parent.mkdir(parents=True)
    metrics_path(folder).write_text('{"step": 70}\n')
    save_checkpoint(folder, step=60)
    clock = iter([100.0, 120.0])
    monkeypatch.setattr(worker.time, "monotonic", lambda: next(clock))
    worker.work(folder)
    assert read_record(folder / "result.json")["seconds"] == pytest.approx(20 * 100 / 40)
    assert metrics_path(folder).exists()
