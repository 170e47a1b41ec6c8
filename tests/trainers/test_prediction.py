"""Validation and evaluation: fairchem's numbers, in batches of any size."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from fairchem.core.common.utils import new_trainer_context
from fairchem.core.trainers.base_trainer import BaseTrainer
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from ocp_dc.datasets.packed import PackedDataset, collate
from ocp_dc.launch import clean_up, config_of
from ocp_dc.models.forces import GradientForces
from ocp_dc.trainers.prediction import HELD_AT_MOST, HeldPredictions, evaluation_batch_size

MODELS = ("schnet", "cgcnn", "dimenetplusplus", "forcenet", "gemnet_t")


@pytest.fixture
def trainer_of(train_arguments):
    """A trainer with models in float64, that has not trained."""
    contexts = []

    def of(config, *overrides):
        context = new_trainer_context(config=config_of("train", train_arguments(config, *overrides)))
        trainer = context.__enter__().trainer
        contexts.append(context)
        trainer.model.double()
        return trainer

    yield of
    for context in contexts:
        context.__exit__(None, None, None)
    clean_up()


def in_float64(loader):
    for batch in loader:
        batch.pos, batch.forces = batch.pos.double(), batch.forces.double()
        yield batch


class Loader:
    """The validation set of a trainer in float64, in batches of another size."""

    def __init__(self, trainer, size):
        collater = partial(collate, otf_graph=True)
        self.loader = DataLoader(trainer.val_dataset, batch_size=size, collate_fn=collater)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return in_float64(self.loader)


@pytest.mark.parametrize("activation", ["original", "irelu"])
@pytest.mark.parametrize("model", MODELS)
def test_validation_gives_fairchems_metrics_in_batches_of_any_size(trainer_of, model, activation):
    trainer = trainer_of(f"{model}_irelu", f"--model.activation={activation}", "--optim.ema_decay=0.9")
    learned = [parameter.requires_grad for parameter in trainer.model.parameters()]
    trainer.val_loader = Loader(trainer, 4)
    theirs = BaseTrainer.validate(trainer)
    for size in (1, 4, 20):
        trainer.val_loader = Loader(trainer, size)
        ours = trainer.validate()
        assert ours.keys() == theirs.keys() == {"energy_mae", "forces_mae", "loss"}
        for name, metric in theirs.items():
            assert ours[name]["metric"] == pytest.approx(metric["metric"], rel=1e-10), name
        assert ours["forces_mae"]["numel"] == theirs["forces_mae"]["numel"] == 20 * 9 * 3
    assert [parameter.requires_grad for parameter in trainer.model.parameters()] == learned


def test_what_is_held_does_not_grow_with_the_number_of_batches():
    held = HeldPredictions(["energy"], lambda out, batch, metrics: {"energy": len(out["energy"])})
    batch = Data(energy=torch.zeros(1), natoms=torch.ones(1, dtype=torch.long), atomic_numbers=torch.ones(1))
    batch.fixed = torch.zeros(1)
    losses = torch.rand(3 * HELD_AT_MOST + 5, generator=torch.Generator().manual_seed(0))
    for loss in losses:
        held.add(batch, {"energy": torch.zeros(1)}, loss)
    assert max(len(held._held), len(held._losses)) < HELD_AT_MOST
    loss = held.metrics()["loss"]
    assert loss["numel"] == len(losses)
    assert loss["metric"] == pytest.approx(losses.double().mean().item(), rel=1e-12)


def test_metrics_are_added_up_when_many_batches_are_held(trainer_of, monkeypatch):
    trainer = trainer_of("schnet_dc")
    trainer.val_loader = Loader(trainer, 1)
    at_once = trainer.validate()
    monkeypatch.setattr("ocp_dc.trainers.prediction.HELD_AT_MOST", 3)
    folds = []
    fold = HeldPredictions._fold
    monkeypatch.setattr(HeldPredictions, "_fold", lambda self: (folds.append(1), fold(self)))
    in_parts = trainer.validate()
    assert len(folds) == 7
    for name, metric in at_once.items():
        assert in_parts[name]["metric"] == pytest.approx(metric["metric"], rel=1e-12)


def test_other_metrics_of_fairchem_and_free_atoms_alone(trainer_of):
    trainer = trainer_of("schnet", "--outputs.forces.eval_on_free_atoms=True")
    trainer.evaluation_metrics["metrics"] = {
        "energy": ["mae", "mse"],
        "forces": ["mae", "cosine_similarity", "magnitude_error"],
        "misc": ["energy_forces_within_threshold"],
    }

    class HalfFixed(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                batch.fixed[::3] = 1
                yield batch

    trainer.val_loader = HalfFixed(trainer, 20)
    theirs = BaseTrainer.validate(trainer)
    trainer.val_loader = HalfFixed(trainer, 3)
    ours = trainer.validate()
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"loss"}:
        assert ours[name]["numel"] == theirs[name]["numel"] < 20 * 9 * 3
        assert ours[name]["metric"] == pytest.approx(theirs[name]["metric"], rel=1e-6), name


@pytest.mark.parametrize("model", MODELS)
def test_predictions_of_a_batch_are_those_of_its_conformations_alone(trainer_of, model):
    trainer = trainer_of(f"{model}_dc")

    def predicted(size):
        batches = [trainer.predict_batch(batch) for batch in Loader(trainer, size)]
        return [torch.cat([batch[target] for batch in batches]) for target in ("energy", "forces")]

    for alone, together in zip(predicted(1), predicted(20), strict=True):
        assert not together.requires_grad
        assert torch.allclose(alone, together, rtol=1e-10, atol=1e-10 * float(together.abs().max()))


def test_no_gradient_by_a_weight_is_prepared(trainer_of, monkeypatch):
    trainer = trainer_of("schnet_dc")
    seen = []
    forward = GradientForces.forward

    def watched(self, data):
        seen.extend(parameter.requires_grad for parameter in self.parameters())
        out = forward(self, data)
        assert not out["forces"].requires_grad
        return out

    monkeypatch.setattr(GradientForces, "forward", watched)
    trainer.validate()
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("chosen", [None, 7])
def test_without_a_size_validation_takes_the_fast_one(trainer_of, chosen):
    given = [] if chosen is None else [f"--optim.eval_batch_size={chosen}"]
    trainer = trainer_of("schnet_dc", *given)
    assert trainer.val_sampler.batch_size == chosen or chosen is None
    if chosen is None:
        assert (
            trainer.val_sampler.batch_size == evaluation_batch_size(trainer.val_dataset[0], torch.device("cpu")) == 56
        )
    assert trainer.train_sampler.batch_size == 20


@pytest.mark.parametrize(
    ("atoms", "periodic", "device", "size"),
    [
        (9, False, "cpu", 56),
        (9, False, "cuda", 455),
        (21, False, "cpu", 9),
        (1, False, "cpu", 4096),
        (80, True, "cpu", 1),
        (80, True, "cuda", 8),
        (500, True, "cuda", 1),
        (4, True, "cpu", 20),
    ],
)
def test_batch_sizes(sample_data, atoms, periodic, device, size):
    structure = PackedDataset({"src": str(sample_data / "val")})[0]
    structure.natoms = atoms
    structure.pbc = torch.tensor(np.full((1, 3), periodic))
    assert evaluation_batch_size(structure, torch.device(device)) == size
