"""A training step that is traced and replayed: the same gradients, losses and checkpoints as the eager one."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from fairchem.core.modules.normalization.element_references import LinearReferences
from molecules import MOLECULES, batch_of, molecule, moved
from small_models import CGCNN, FORCENET, SCHNET
from test_fixed_edges import FORMS
from test_properties import assert_close
from test_training import (
    assert_same_weights,
    load,
    only_checkpoint,
    read_log,
    train,
    weights,
    whole_and_resumed,
)
from torch import nn

from ocp_dc.errors import InputError, TraceMismatchError
from ocp_dc.models.batch_norm import BatchNorm1d
from ocp_dc.trainers import dc_forces, traced_step
from ocp_dc.trainers.dc_forces import DerivativeConstrainedTrainer
from ocp_dc.trainers.labels import float64_normalizer
from ocp_dc.trainers.losses import Loss
from ocp_dc.trainers.traced_step import ReplayedStep, Step, TracedStep

ATOMS = 9
TRACED = "--optim.step=traced"


def conformations(count, dtype=torch.float64, seed=0):
    """A labelled batch of one molecule's; in the last the most distant atoms are beyond the cutoff."""
    generator = torch.Generator().manual_seed(seed)
    first = molecule(0, ATOMS)
    batch = batch_of(*(moved(first, scale * first.pos) for scale in torch.linspace(0.9, 2.0, count)))
    batch.pos = (batch.pos + 0.1 * torch.randn(batch.pos.shape, generator=generator).double()).to(dtype)
    batch.fixed = torch.zeros(len(batch.pos))
    batch.energy = -300 + torch.randn(count, generator=generator, dtype=torch.float64)
    batch.forces = torch.randn(batch.pos.shape, generator=generator).to(dtype)
    return batch


def trainer_of(fn="mae", normalizers=None, elementrefs=None):
    """Enough of a trainer to compute a loss."""
    trainer = DerivativeConstrainedTrainer.__new__(DerivativeConstrainedTrainer)
    levels = {"energy": "system", "forces": "atom"}
    trainer.output_targets = {name: {"level": level, "train_on_free_atoms": False} for name, level in levels.items()}
    coefficients = {"energy": 1, "forces": 30}
    trainer.loss_functions = [
        (name, {"fn": Loss(fn, None), "coefficient": coefficient}) for name, coefficient in coefficients.items()
    ]
    trainer.normalizers, trainer.elementrefs = normalizers or {}, elementrefs or {}
    return trainer


def traced(model, trainer):
    """The traced step of a model, and the usual one."""

    def usual(batch):
        out = model(batch)
        return Step(out, trainer._compute_loss(out, batch))

    return TracedStep(model.train(), usual, trainer._compute_loss), usual


def results(model, step):
    """Loss, outputs and the gradients that a step leaves in the model's parameters."""
    model.zero_grad()
    step.backward()
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradients = {name: parameter.grad.clone() for name, parameter in learned.items()}
    assert all(parameter.grad.is_contiguous() for parameter in learned.values())
    return {"loss": step.loss.detach(), **{name: value.detach() for name, value in step.out.items()}, **gradients}


def assert_same_results(actual, expected, rtol):
    assert actual.keys() == expected.keys()
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        if value.abs().max() < 1e-12 * largest:
            # a bias before a batch normalization has no gradient
            assert actual[name].abs().max() < 1e-12 * largest, name
        else:
            assert_close(actual[name], value, rtol)


RESCALED = {"energy": float64_normalizer(-300.0, 10.0), "forces": float64_normalizer(0.0, 10.0)}
REFERENCES = {"energy": LinearReferences(torch.linspace(-50, 0, 119, dtype=torch.float64))}


# float32 rounds in another order: to 1e-4 of the largest value
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["64", "32"])
@pytest.mark.parametrize("labels", [{}, {"normalizers": RESCALED}, {"elementrefs": REFERENCES}], ids=str)
@pytest.mark.parametrize("fn", ["mae", "mse"])
@pytest.mark.parametrize("activation", ["original", "irelu"])
def test_outputs_loss_and_gradients(activation, fn, labels, dtype, rtol):
    model = SCHNET.build(activation).to(dtype)
    step, usual = traced(model, trainer_of(fn, **labels))
    for seed in range(3):
        batch = conformations(4, dtype, seed)
        replayed = step(batch)
        assert isinstance(replayed, ReplayedStep)
        assert_same_results(results(model, replayed), results(model, usual(batch)), rtol)
        # the trace follows the optimizer
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * parameter.grad.sign())


@pytest.mark.parametrize(("small", "form"), FORMS)
def test_every_model_with_fixed_edges(small, form, caplog):
    model = small.build(form)
    step, usual = traced(model, trainer_of())
    with caplog.at_level(logging.DEBUG):
        for seed in range(2):
            batch = conformations(4, seed=seed)
            replayed = step(batch)
            assert isinstance(replayed, ReplayedStep)
            assert_same_results(results(model, replayed), results(model, usual(batch)), 1e-10)
    assert ("called from Python" in caplog.text) == (form == "integrated_silu")


WITH_BATCH_NORM = [
    pytest.param(small, form, id=f"{small.name.removesuffix('_irelu')}-{form}")
    for small in (CGCNN, FORCENET)
    for form in small.forms
    if any(isinstance(module, nn.BatchNorm1d) for module in small.build(form).modules())
]


def assert_same_statistics(model, other):
    for name, buffer in other.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer, rtol=1e-9, atol=1e-12)


def assert_batch_norm_trains_alike(model, step, other, usual):
    """Replayed steps of one model, and the usual ones of another."""
    for seed in range(3):
        batch = conformations(4, seed=seed)
        batch.pos = 0.3 * batch.pos
        replayed, expected = step(batch), results(other, usual(batch))
        assert isinstance(replayed, ReplayedStep)
        assert_same_results(results(model, replayed), expected, 1e-9)
        assert_same_statistics(model, other)


@pytest.mark.parametrize(("small", "form"), WITH_BATCH_NORM)
def test_batch_norm_keeps_the_same_statistics(small, form):
    model, other = small.build(form), small.build(form)
    (step, _), (_, usual) = traced(model, trainer_of()), traced(other.train(), trainer_of())
    assert_batch_norm_trains_alike(model, step, other, usual)


def test_batch_norm_over_edges_is_eager_where_some_are_too_long(caplog):
    model, other = CGCNN.build(), CGCNN.build()
    (step, _), (_, usual) = traced(model, trainer_of()), traced(other.train(), trainer_of())
    near, far = conformations(4), conformations(4)
    near.pos = 0.3 * near.pos
    replayed = []
    with caplog.at_level(logging.WARNING):
        for batch in (far, near, far, near):
            replayed.append(isinstance(step(batch), ReplayedStep))
            usual(batch)
    assert replayed == [False, True, False, True]
    (message,) = [record.message for record in caplog.records]
    assert "two atoms are farther apart than model.cutoff, 5.0 Å" in message
    assert_same_statistics(model, other)


def test_numbers_that_are_not_finite_are_left_to_the_trainer():
    model = FORCENET.build()
    step, _ = traced(model, trainer_of())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    for _ in range(2):
        assert not step(conformations(4)).loss.isfinite()


@pytest.mark.parametrize("changed", ["mean", "variance"])
def test_a_wrong_statistic_is_caught_and_not_kept(monkeypatch, changed):
    model, other = FORCENET.build(), FORCENET.build()
    (step, _), (_, usual) = traced(model, trainer_of()), traced(other.train(), trainer_of())
    trace = traced_step._trace

    def wrong(*arguments):
        replay, parameters, norms = trace(*arguments)
        assert norms

        def off(*inputs):
            *results, mean, variance = replay(*inputs)
            factors = {"mean": 1.0, "variance": 1.0, changed: 1.01}
            return [*results, factors["mean"] * mean, factors["variance"] * variance]

        return off, parameters, norms

    monkeypatch.setattr(traced_step, "_trace", wrong)
    batch = conformations(4)
    assert not isinstance(step(batch), ReplayedStep)
    usual(batch)
    assert_same_statistics(model, other)
    with pytest.raises(TraceMismatchError, match=rf"in the {changed} that .* sees"):
        step(batch)


def test_one_trace_for_each_size_of_batch():
    model = SCHNET.build()
    step, usual = traced(model, trainer_of())
    for count in (3, 2, 3, 1):
        batch = conformations(count)
        assert_same_results(results(model, step(batch)), results(model, usual(batch)), 1e-10)
    assert len(step._traces) == 3


def test_gradients_may_be_changed():
    """As clipping does: no two share memory, and a replay does not repeat the change."""
    model = SCHNET.build()
    step, _ = traced(model, trainer_of())
    first, batch = results(model, step(conformations(2))), conformations(2)
    step(batch).backward()
    pointers = {parameter.grad.data_ptr() for parameter in model.parameters()}
    assert len(pointers) == len(list(model.parameters()))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    assert_same_results(results(model, step(batch)), first, 1e-12)


def test_frozen_parameters_have_no_gradient():
    model = SCHNET.build()
    model.lin2.weight.requires_grad_(False)
    step, _ = traced(model, trainer_of())
    gradients = step(conformations(2)).gradients
    assert model.lin2.weight not in gradients
    assert len(gradients) == len(list(model.parameters())) - 1


def with_fault(monkeypatch, model, fault):
    """The traces of this model are wrong by ``fault``, of its outputs or gradients."""
    trace = traced_step._trace

    def wrong(*arguments):
        replay, parameters, norms = trace(*arguments)
        names = [
            "loss",
            "energy",
            "forces",
            *(name for p in parameters for name, q in model.named_parameters() if p is q),
        ]
        return lambda *inputs: fault(dict(zip(names, replay(*inputs), strict=True))), parameters, norms

    monkeypatch.setattr(traced_step, "_trace", wrong)


@pytest.mark.parametrize(
    "name", ["energy", "forces", "loss", "interactions.1.mlp.0.weight", "lin2.bias", "embedding.weight"]
)
def test_a_wrong_trace_is_caught_on_the_second_batch(monkeypatch, name):
    model = SCHNET.build()
    step, _ = traced(model, trainer_of())

    def off(outcome):
        outcome[name] = 1.05 * outcome[name]
        return list(outcome.values())

    with_fault(monkeypatch, model, off)
    # nothing is learned from it: the first batch has the usual step
    assert not isinstance(step(conformations(2)), ReplayedStep)
    with pytest.raises(TraceMismatchError, match=rf"in (the gradient of )?{name}; set optim.step to eager"):
        step(conformations(2, seed=1))


def test_a_gradient_that_is_missing_is_caught(monkeypatch):
    model = SCHNET.build()
    step, _ = traced(model, trainer_of())
    trace = traced_step._trace

    def without_last(*arguments):
        replay, parameters, norms = trace(*arguments)
        return lambda *inputs: replay(*inputs)[:-1], parameters[:-1], norms

    monkeypatch.setattr(traced_step, "_trace", without_last)
    step(conformations(2))
    with pytest.raises(TraceMismatchError, match=r"the gradient of lin2\.bias"):
        step(conformations(2))


def test_compared_again_on_request():
    model = SCHNET.build()
    step, usual = traced(model, trainer_of())
    batches = []
    step._usual = lambda batch: batches.append(batch) or usual(batch)
    for _ in range(3):
        step(conformations(2))
    assert len(batches) == 1
    step.compare_again()
    for _ in range(3):
        step(conformations(2))
    assert len(batches) == 2


class Wary(nn.Module):
    """Looks at numbers, which a trace cannot."""

    def forward(self, x):
        return x if bool(x.sum() > 0) else -x


def changed(form):
    model = SCHNET.build()
    if form == "statistics":
        model.lin1 = nn.Sequential(model.lin1, nn.BatchNorm1d(model.lin1.out_features).double())
    elif form == "statistics_twice":
        norm = BatchNorm1d(model.lin1.out_features).double()
        model.lin1 = nn.Sequential(model.lin1, norm, norm)
    elif form == "random":
        model.lin1 = nn.Sequential(model.lin1, nn.Dropout(0.5))
    elif form == "shared":
        model.interactions[1].lin.weight = model.interactions[0].lin.weight
    elif form == "energies":
        model.regress_forces = False
    elif form == "unsupported":
        model.supports_fixed_edges = False
    elif form == "data_dependent":
        model.act = Wary()
    return model


MIXED = {"mixed": batch_of(*MOLECULES)}
for mixed in MIXED.values():
    mixed.fixed, mixed.energy = torch.zeros(len(mixed.pos)), torch.zeros(len(mixed.natoms)).double()
    mixed.forces = torch.zeros(mixed.pos.shape).double()


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("statistics", "lin1.1 keeps statistics of the batches"),
        ("statistics_twice", "a batch normalization is used twice in a step"),
        ("random", "it draws random numbers"),
        ("shared", "two modules of the model share a parameter"),
        ("energies", "model.regress_forces is False"),
        ("unsupported", "SchNetIReLU has no fixed edges"),
        ("mixed", "its structures differ in their numbers of atoms"),
        ("data_dependent", "while it was traced"),
    ],
)
def test_reasons_to_run_eagerly(form, reason, caplog):
    model = changed(form)
    step = TracedStep(model.train(), lambda batch: Step({}, torch.zeros(())), trainer_of()._compute_loss)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert not isinstance(step(MIXED.get(form) or conformations(2)), ReplayedStep)
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("the training step runs eagerly: ")
    assert reason in message


def test_a_model_of_fairchem_runs_eagerly(caplog):
    step = TracedStep(SCHNET.build_fairchem("original"), lambda batch: Step({}, torch.zeros(())), None)
    with caplog.at_level(logging.WARNING):
        step(conformations(2))
    assert "SchNetWrap has no fixed edges" in caplog.text


def test_too_many_compositions_run_eagerly(monkeypatch):
    monkeypatch.setattr(traced_step, "MOST_TRACES", 2)
    step, _ = traced(SCHNET.build(), trainer_of())
    assert [isinstance(step(conformations(count)), ReplayedStep) for count in (1, 2, 3, 1)] == [True, True, False, True]
    assert len(step._traces) == 2


# --- runs ------------------------------------------------------------------------------------------------------------


def replayed_steps(monkeypatch):
    """The numbers of the steps that a run replays from now on."""
    numbers = []
    backward = ReplayedStep.backward

    def counted(step):
        numbers.append(len(numbers))
        backward(step)

    monkeypatch.setattr(ReplayedStep, "backward", counted)
    return numbers


def test_a_run_learns_the_same(train_arguments, tmp_path, monkeypatch):
    """With an epoch's last batch smaller, averaged weights, clipped gradients and a schedule."""
    settings = ("--optim.max_epochs=3", "--optim.batch_size=30", "--optim.scheduler=CosineAnnealingLR")
    settings += ("--optim.ema_decay=0.9", "--optim.clip_grad_norm=0.1")
    eager, replayed = tmp_path / "eager", tmp_path / "replayed"
    train(train_arguments("schnet_dc", *settings, "--optim.step=eager", run_dir=eager))
    numbers = replayed_steps(monkeypatch)
    train(train_arguments("schnet_dc", *settings, TRACED, run_dir=replayed))
    assert len(numbers) == 12
    for split, rtol in (("train", 1e-4), ("val", 1e-4)):
        losses = [[record["loss"] for record in read_log(run, split)] for run in (eager, replayed)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=rtol)
    for name, weight in weights(only_checkpoint(eager)).items():
        torch.testing.assert_close(weights(only_checkpoint(replayed))[name], weight, rtol=1e-4, atol=1e-5)


def test_the_baseline_has_stock_fairchems_losses(train_arguments, tmp_path, monkeypatch):
    stock, replayed = tmp_path / "stock", tmp_path / "replayed"
    train(train_arguments("schnet", "--optim.max_epochs=4", "--optim.step=eager", run_dir=stock))
    numbers = replayed_steps(monkeypatch)
    model = ("--model.name=schnet_irelu", "--model.activation=original", "--model.use_pbc=False")
    train(train_arguments("schnet", "--optim.max_epochs=4", *model, TRACED, run_dir=replayed))
    assert len(numbers) == 20
    losses = [[record["loss"] for record in read_log(run, "train")] for run in (stock, replayed)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


@pytest.mark.parametrize("data", ["lmdb", "md17_packed"])
def test_resumed_equals_uninterrupted_bit_for_bit(train_arguments, tmp_path, data):
    settings = (TRACED, f"--dataset.train.format={data}")
    assert_same_weights(*whole_and_resumed(train_arguments, tmp_path, *settings))


def test_running_statistics_are_resumed_bit_for_bit(train_arguments, tmp_path, monkeypatch):
    numbers = replayed_steps(monkeypatch)
    whole, resumed = whole_and_resumed(train_arguments, tmp_path, TRACED, config="cgcnn")
    assert len(numbers) == 15 + 9 + 7
    assert_same_weights(whole, resumed)
    assert any(name.endswith("running_var") for name in weights(whole))


@pytest.mark.parametrize("modes", [("eager", "traced"), ("traced", "eager")])
def test_a_run_continues_in_the_other_mode(train_arguments, tmp_path, modes):
    first, second = tmp_path / "first", tmp_path / "second"
    start = ("--optim.max_epochs=1", f"--optim.step={modes[0]}")
    train(train_arguments("schnet_dc", *start, run_dir=first))
    settings = ("--optim.max_epochs=2", "--checkpoint", str(only_checkpoint(first)))
    ends = []
    for mode in modes:
        run = second / mode
        train(train_arguments("schnet_dc", *settings, f"--optim.step={mode}", run_dir=run))
        ends.append(weights(only_checkpoint(run)))
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, rtol=1e-4, atol=1e-6)


def test_auto_traces_a_run_that_is_long_enough(train_arguments, monkeypatch, caplog):
    numbers = replayed_steps(monkeypatch)
    with caplog.at_level(logging.INFO):
        train(train_arguments("schnet_dc", "--optim.max_epochs=1"))
    assert numbers == []
    assert "the run trains eagerly (optim.step: auto): it has only 5 steps" in caplog.text
    monkeypatch.setattr(dc_forces, "WORTH_TRACING", 5)
    train(train_arguments("schnet_dc", "--optim.max_epochs=1"))
    assert len(numbers) == 5


def test_compared_again_after_the_first_validation(train_arguments, monkeypatch):
    eager = DerivativeConstrainedTrainer._eager_step
    compared = []

    def counted(trainer, batch):
        compared.append(trainer.step)
        return eager(trainer, batch)

    monkeypatch.setattr(DerivativeConstrainedTrainer, "_eager_step", counted)
    train(train_arguments("schnet_dc", "--optim.max_epochs=3", "--optim.eval_every=4", TRACED))
    assert compared == [1, 5]


def test_unknown_step(train_arguments):
    with pytest.raises(InputError, match=r"optim\.step is 'compiled'; it must be auto, eager, traced or cuda_graph"):
        train(train_arguments("schnet_dc", "--optim.step=compiled"))


def test_a_cpu_has_no_cuda_graphs(train_arguments):
    with pytest.raises(InputError, match=r"optim\.step is cuda_graph, and training is on the CPU"):
        train(train_arguments("schnet_dc", "--optim.step=cuda_graph", "--cpu"))


def test_models_without_fixed_edges_train_as_before(train_arguments, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(train_arguments("schnet", "--optim.max_epochs=1", TRACED))
    assert "the training step runs eagerly: SchNetWrap has no fixed edges" in caplog.text
    assert load(only_checkpoint(tmp_path))["step"] == 5
