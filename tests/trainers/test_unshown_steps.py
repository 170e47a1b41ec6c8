"""Metrics and checks of steps that are looked at only when they are shown."""

import math

import numpy as np
import pytest
import torch
from fairchem.core.modules.evaluator import Evaluator
from test_training import only_checkpoint, poison_gradient, read_log, train, weights
from torch_geometric.data import Data

from ocp_dc.errors import TrainingDivergedError
from ocp_dc.trainers.dc_forces import DerivativeConstrainedTrainer
from ocp_dc.trainers.unshown_steps import UnshownSteps, structure_names


def test_metrics_are_the_means_over_the_steps(train_arguments, tmp_path, monkeypatch):
    """Of steps shown together, in one or several portions, as of each alone."""
    monkeypatch.setattr("ocp_dc.trainers.prediction.HELD_AT_MOST", 3)
    each, some = tmp_path / "each", tmp_path / "some"
    train(train_arguments("schnet_dc", "--optim.max_epochs=2", run_dir=each))
    train(train_arguments("schnet_dc", "--optim.max_epochs=2", "--print-every=5", run_dir=some))
    of_each, of_some = read_log(each, "train"), read_log(some, "train")
    assert [record["step"] for record in of_some] == [5, 10]
    for first, record in zip((0, 5), of_some, strict=True):
        for name in ("loss", "energy_mae", "forces_mae"):
            mean = np.mean([step[name] for step in of_each[first : first + 5]])
            assert record[name] == pytest.approx(mean, rel=1e-12), name


def step(number, **values):
    """Of two structures of one atom."""
    values = {"energy": 1.0, "loss": 2.0, "gradient": 3.0, **values}
    batch = Data(
        natoms=torch.ones(2, dtype=torch.long),
        atomic_numbers=torch.ones(2, dtype=torch.long),
        fixed=torch.zeros(2),
        energy=torch.zeros(2, 1),
        sid=[f"ethanol-{number}", "water"],
        fid=torch.tensor([number, 7]),
    )
    out = {"energy": torch.full((2, 1), values["energy"])}
    return batch, out, torch.tensor(values["loss"]), [torch.tensor([0.0, values["gradient"]])]


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("prediction", {"energy": math.nan, "loss": math.nan, "gradient": math.nan}),
        ("loss", {"loss": math.inf, "gradient": math.nan}),
        ("gradient", {"gradient": math.inf}),
    ],
)
def test_the_first_step_that_was_not_finite(what, values):
    steps = UnshownSteps(["energy"], None)
    for number in range(1, 5):
        batch, out, loss, gradients = step(number, **(values if number >= 3 else {}))
        steps.add(number, batch, out, loss)
        steps.add_gradients(gradients)
    fault, number, batch = steps.first_not_finite()
    assert (fault, number, structure_names(batch)) == (what, 3, ["ethanol-3_3", "water_7"])
    assert steps.first_not_finite() is None


def test_metrics_of_steps_without_gradients():
    """A GradScaler leaves steps out."""
    evaluator = Evaluator(eval_metrics={"energy": ["mae"]})
    steps = UnshownSteps(["energy"], lambda out, batch, metrics: evaluator.eval(out, batch, metrics))
    for number in (1, 2):
        batch, out, loss, _ = step(number, energy=float(number))
        steps.add(number, batch, out, loss)
    assert steps.first_not_finite() is None
    assert steps.take_metrics() == {"energy_mae": 1.5, "loss": 2.0}


def test_unchecked_weights_are_not_saved(train_arguments, tmp_path, monkeypatch):
    """As on a GPU, where a step is checked when it is shown, or before it is saved or validated."""
    monkeypatch.setattr(DerivativeConstrainedTrainer, "_require_finite_on_cpu", lambda trainer: None)
    poison_gradient(monkeypatch, at_step=3)
    settings = ("--optim.max_epochs=2", "--optim.checkpoint_every=2", "--print-every=1000")
    with pytest.raises(TrainingDivergedError, match="gradient not finite at step 3") as raised:
        train(train_arguments("schnet_dc", *settings))
    assert raised.value.step == 3
    assert all(torch.isfinite(weight).all() for weight in weights(only_checkpoint(tmp_path)).values())


def test_they_are_to_be_checked_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("ocp_dc.trainers.unshown_steps.MOST_UNCHECKED", 3)
    steps = UnshownSteps(["energy"], None)
    for number in range(1, 4):
        assert not steps.must_be_checked
        batch, out, loss, _ = step(number)
        steps.add(number, batch, out, loss)
    assert steps.must_be_checked
    assert steps.first_not_finite() is None
    assert not steps.must_be_checked
