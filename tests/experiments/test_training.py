"""The work of a run, without training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ocp_dc.errors import DivergedError
from ocp_dc.evaluation import TestErrors
from ocp_dc.experiments import training
from ocp_dc.experiments.plan import CHECKPOINT, LOG
from ocp_dc.runs.worker import Quantity
from ocp_dc.trainers.checkpoints import previous_checkpoint

DESCRIPTION = {
    "steps": 100,
    "test_data": "data/test",
    "test_batch_size": 20,
    "command": "ocp-dc train --config-yml 'a b.yml'",
}
PREDICTIONS = {"energy_error": np.array([2.0, 4.0])}


def errors(energy: float = 3.0, force: float = 0.5) -> TestErrors:
    return TestErrors(2, "kcal/mol", energy, force, energy * 0.04, force * 0.04, 0.5, 1.0, -2.0)


@pytest.fixture
def trained(monkeypatch):
    """What was trained and tested; both succeed."""
    calls = []
    monkeypatch.setattr(training, "run_fairchem", lambda *call: calls.append(call))
    monkeypatch.setattr(training, "evaluate_predictions", lambda *call: (errors(), PREDICTIONS))
    return calls


def test_trains_as_the_command_says_and_tests(tmp_path, trained):
    work = training.train_and_test(tmp_path, DESCRIPTION)
    assert trained == [("train", ["--config-yml", "a b.yml"])]
    assert work.quantities == {
        "energy MAE": Quantity(3.0, "kcal/mol"),
        "force MAE": Quantity(0.5, "kcal/mol/Å"),
        "EFwT": Quantity(50.0, "%"),
        "energy offset": Quantity(-2.0, "kcal/mol"),
        "centered energy MAE": Quantity(1.0, "kcal/mol"),
    }
    with np.load(tmp_path / "errors.npz") as arrays:
        assert arrays["energy_error"].tolist() == [2.0, 4.0]


def test_predictions_that_are_not_finite_are_divergence(tmp_path, trained, monkeypatch):
    not_finite = errors(force=math.nan), PREDICTIONS
    monkeypatch.setattr(training, "evaluate_predictions", lambda *_: not_finite)
    with pytest.raises(DivergedError, match="predictions for the test set are not finite") as raised:
        training.train_and_test(tmp_path, DESCRIPTION)
    assert raised.value.step == 100
    assert not (tmp_path / "errors.npz").exists()


def test_what_was_logged_before_the_first_checkpoint_is_forgotten(tmp_path, trained):
    (tmp_path / LOG).parent.mkdir(parents=True)
    (tmp_path / LOG).write_text('{"step": 10}\n')
    training.train_and_test(tmp_path, DESCRIPTION)
    assert not (tmp_path / LOG).exists()


def test_seconds_are_those_of_all_steps(tmp_path, trained, monkeypatch):
    for file in (LOG, CHECKPOINT):
        (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / LOG).write_text('{"step": 70}\n')
    torch.save({"step": 60, "state_dict": {}, "config": {}, "normalizers": {}}, tmp_path / CHECKPOINT)
    clock = iter([100.0, 120.0])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    assert training.train_and_test(tmp_path, DESCRIPTION).seconds == pytest.approx(20 * 100 / 40)
    assert (tmp_path / LOG).exists()


@pytest.mark.parametrize("with_previous", [True, False])
def test_a_damaged_checkpoint_is_put_aside(tmp_path, trained, with_previous, caplog):
    path = tmp_path / CHECKPOINT
    path.parent.mkdir(parents=True)
    torch.save({"step": 60, "state_dict": {}, "config": {}, "normalizers": {}}, path)
    sound = path.read_bytes()
    path.write_bytes(sound[:500])
    if with_previous:
        previous_checkpoint(path).write_bytes(sound)
    training.train_and_test(tmp_path, DESCRIPTION)
    assert f"going on from {previous_checkpoint(path) if with_previous else 'the start'}" in caplog.text
    assert path.with_name("damaged_checkpoint.pt").read_bytes() == sound[:500]
    assert (path.read_bytes() == sound) if with_previous else not path.exists()
