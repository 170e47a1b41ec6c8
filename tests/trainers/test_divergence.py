"""What was not finite first is found, said with what helps against it, and done about it as the config says."""

import math

import pytest
import torch
from fairchem.core.common.utils import new_trainer_context
from test_training import only_checkpoint, poison_gradient, read_log, train, weights

from ocp_dc.errors import TrainingDivergedError
from ocp_dc.launch import config_of
from ocp_dc.trainers.dc_forces import DerivativeConstrainedTrainer
from ocp_dc.trainers.divergence import find_cause

SETTINGS = ("--optim.max_epochs=1", "--optim.checkpoint_every=1")


@pytest.fixture
def step(train_arguments):
    """A trainer's model, a batch, and the loss."""
    config = config_of("train", train_arguments("schnet_dc"))

    with new_trainer_context(config={**config, "is_debug": True}) as context:
        trainer = context.trainer
        trainer._fit_labels()
        batch = next(iter(trainer.train_loader)).to("cpu")
        yield trainer._unwrapped_model, batch, lambda batch: trainer._eager_step(batch).loss


def changed(name, value):
    def change(model, batch):
        batch[name] = batch[name].clone()
        batch[name][3] = value

    return change


def atoms_on_one_another(model, batch):
    batch.pos[10] = batch.pos[9]


def weight(value):
    def change(model, batch):
        with torch.no_grad():
            next(iter(model.interactions[0].mlp.parameters())).fill_(value)

    return change


CAUSES = {
    "energy": (changed("energy", math.nan), "label energy", "convert the data again", [3]),
    "force": (changed("forces", math.inf), "label forces", "convert the data again", [0]),
    "position": (changed("pos", math.inf), "positions", "convert the data again", [0]),
    "atoms": (atoms_on_one_another, "an edge shorter than 0.001 Å", "convert the data again", [1]),
    "weight": (weight(math.nan), "weight interactions.0.mlp.0.weight", "go on from a checkpoint that is sound", None),
    "activation": (weight(1e30), r"output of interactions.0.mlp.1 (IReLU)", "bounded_irelu", None),
}


@pytest.mark.parametrize(("change", "what", "advice", "structures"), CAUSES.values(), ids=CAUSES.keys())
def test_the_first_thing_that_is_not_finite_is_named(step, change, what, advice, structures):
    model, batch, loss_of = step
    change(model, batch)
    cause = find_cause(model, batch, loss_of)
    assert cause.what.startswith(what)
    assert advice in cause.advice
    if structures is not None:
        assert [index for index, concerned in enumerate(cause.structures) if concerned] == structures


def test_nothing_is_found_where_all_is_finite(step):
    model, batch, loss_of = step
    assert find_cause(model, batch, loss_of) is None


def test_at_most_ten_structures_are_named():
    names = [f"s_{number}" for number in range(12)]
    error = TrainingDivergedError("loss", 3, names, None)
    assert "s_9 and 2 more" in str(error)
    assert "s_10" not in str(error)


def test_the_gradient_is_named(train_arguments, monkeypatch):
    poison_gradient(monkeypatch, at_step=3)
    with pytest.raises(TrainingDivergedError, match=r"gradient not finite at step 3; first was gradient of \w+"):
        train(train_arguments("schnet_dc", *SETTINGS))


@pytest.mark.parametrize("mode", ["skip", "restore"])
@pytest.mark.parametrize("step_mode", ["eager", "traced"])
def test_a_step_is_left_out(train_arguments, tmp_path, monkeypatch, caplog, mode, step_mode):
    note = DerivativeConstrainedTrainer._note_gradients

    def poisoned(trainer, optimizer, *arguments):
        if trainer.step == 3:
            optimizer.param_groups[0]["params"][0].grad.fill_(math.nan)
        note(trainer, optimizer, *arguments)

    monkeypatch.setattr(DerivativeConstrainedTrainer, "_note_gradients", poisoned)
    settings = (*SETTINGS, f"--optim.on_nonfinite={mode}", f"--optim.step={step_mode}")
    train(train_arguments("schnet_dc", *settings))
    assert f"The step is left out{', weights are those of' if mode == 'restore' else ' (optim'}" in caplog.text
    assert [record["step"] for record in read_log(tmp_path, "train")] == [1, 2, 4, 5]
    state = torch.load(only_checkpoint(tmp_path), weights_only=False)
    assert state["step"] == 5
    assert {entry["step"].item() for entry in state["optimizer"]["state"].values()} == {4}
    assert all(torch.isfinite(weight).all() for weight in weights(only_checkpoint(tmp_path)).values())


def test_a_run_is_given_up_in_the_end(train_arguments, monkeypatch):
    monkeypatch.setattr("ocp_dc.trainers.dc_forces.MOST_FAULTS", 2)
    settings = ("--optim.max_epochs=2", "--optim.on_nonfinite=skip", "--optim.lr_initial=1.0e+20")
    with pytest.raises(TrainingDivergedError):
        train(train_arguments("schnet_dc", *settings))
