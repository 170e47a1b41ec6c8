"""Steps captured in a CUDA graph against eager ones, and predictions against those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import SCHNET
from test_fixed_edges import FORMS
from test_properties import assert_close
from test_traced_step import (
    WITH_BATCH_NORM,
    assert_batch_norm_trains_alike,
    assert_same_results,
    conformations,
    results,
    trainer_of,
)
from test_training import only_checkpoint, read_log, train, weights, whole_and_resumed

from ocp_dc.evaluation import evaluate, load_trainer
from ocp_dc.trainers.traced_step import ReplayedStep, Step, TracedStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CAPTURED, EAGER = "--optim.step=cuda_graph", "--optim.step=eager"


def steps_on_gpu(model):
    """The captured step of a model, and the usual one."""
    trainer = trainer_of()

    def usual(batch):
        out = model(batch.to("cuda"))
        return Step(out, trainer._compute_loss(out, batch))

    return TracedStep(model.train(), usual, trainer._compute_loss, captured=True), usual


# float32 rounds in another order: to 1e-4 of the largest value
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["64", "32"])
@pytest.mark.parametrize("activation", ["original", "irelu"])
def test_fifty_steps_as_the_eager_ones(activation, dtype, rtol):
    captured, eager = (SCHNET.build(activation).to("cuda", dtype) for _ in range(2))
    step, _ = steps_on_gpu(captured)
    _, usual = steps_on_gpu(eager)
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-3, fused=True) for model in (captured, eager)]
    for number in range(50):
        replayed, expected = (
            step(conformations(4 - number % 2, dtype, number)),
            usual(conformations(4 - number % 2, dtype, number)),
        )
        assert isinstance(replayed, ReplayedStep)
        for optimizer, each in zip(optimizers, (replayed, expected), strict=True):
            optimizer.zero_grad()
            each.backward()
            optimizer.step()
        # what is held of a step is not overwritten by the next
        assert replayed.out["energy"].data_ptr() not in {value.data_ptr() for value in replayed.gradients.values()}
        assert_close(replayed.loss, expected.loss.detach(), 10 * rtol)
    for name, parameter in captured.named_parameters():
        assert_close(parameter.detach(), eager.get_parameter(name).detach(), 10 * rtol)


@pytest.mark.parametrize(("small", "form"), FORMS)
def test_every_model_with_fixed_edges(small, form):
    model = small.build(form).to("cuda")
    step, usual = steps_on_gpu(model)
    for seed in range(2):
        batch = conformations(4, seed=seed)
        replayed = step(batch)
        assert isinstance(replayed, ReplayedStep)
        assert_same_results(results(model, replayed), results(model, usual(batch)), 1e-10)


@pytest.mark.parametrize(("small", "form"), WITH_BATCH_NORM)
def test_batch_norm_keeps_the_same_statistics(small, form):
    model, other = (small.build(form).to("cuda") for _ in range(2))
    (step, _), (_, usual) = steps_on_gpu(model), steps_on_gpu(other.train())
    assert_batch_norm_trains_alike(model, step, other, usual)


def test_outputs_outlive_the_next_replay():
    step, _ = steps_on_gpu(SCHNET.build().to("cuda"))
    first = step(conformations(3))
    kept = first.out["forces"].clone()
    step(conformations(3, seed=1))
    assert torch.equal(first.out["forces"], kept)


def test_a_run_learns_the_same(train_arguments, tmp_path):
    eager, captured = tmp_path / "eager", tmp_path / "captured"
    settings = ("--optim.max_epochs=3", "--optim.batch_size=30", "--optim.clip_grad_norm=0.1")
    train(train_arguments("schnet_dc", *settings, EAGER, run_dir=eager))
    train(train_arguments("schnet_dc", *settings, CAPTURED, run_dir=captured))
    losses = [[record["loss"] for record in read_log(run, "train")] for run in (eager, captured)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_a_run_continues(train_arguments, tmp_path):
    """To rounding: sums over edges are in any order on a GPU."""
    whole, resumed = whole_and_resumed(train_arguments, tmp_path, CAPTURED)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", ["schnet_dc", "cgcnn_dc", "dimenetplusplus_dc", "forcenet_dc", "gemnet_t_dc"])
def test_trained_models_predict_as_on_the_cpu(train_arguments, sample_data, tmp_path, config):
    train(train_arguments(config, "--optim.max_epochs=1", run_dir=tmp_path))
    checkpoint = only_checkpoint(tmp_path)
    assert load_trainer(checkpoint).scaler is None
    (on_gpu, _), (on_cpu, _) = (evaluate(checkpoint, sample_data / "test", cpu=cpu) for cpu in (False, True))
    assert on_gpu.energy_mae == pytest.approx(on_cpu.energy_mae, rel=1e-4)
    assert on_gpu.force_mae == pytest.approx(on_cpu.force_mae, rel=1e-4)
