"""The trainer through the command line and fairchem's own seams, on the embedded sample."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fairchem.core.common.registry import registry

from ocp_dc.cli import main
from ocp_dc.errors import InputError, TrainingDivergedError
from ocp_dc.evaluation import load_trainer
from ocp_dc.launch import run_fairchem
from ocp_dc.trainers import DerivativeConstrainedTrainer
from ocp_dc.trainers.metrics_log import MetricsLog, read_metrics

STEPS_PER_EPOCH = 5  # 100 conformations in batches of 20


def train(arguments) -> None:
    assert run_fairchem("train", arguments) == 0


def only_checkpoint(run_dir: Path) -> Path:
    (checkpoint,) = run_dir.glob("checkpoints/*/checkpoint.pt")
    return checkpoint


def read_log(run_dir: Path, split: str) -> list[dict]:
    (path,) = run_dir.glob("logs/tensorboard/*/metrics.jsonl")
    return [record for record in read_metrics(path) if record["split"] == split]


def load(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=False)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load(checkpoint)["state_dict"]


def assert_same_weights(first: Path, second: Path) -> None:
    for (name, ours), theirs in zip(weights(first).items(), weights(second).values(), strict=True):
        assert torch.equal(ours, theirs), name


def launch(arguments: list[str]) -> subprocess.Popen:
    """`ocp-dc train` in a process of its own, on one thread."""
    command = [sys.executable, "-m", "ocp_dc.cli", "train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_registered_by_name_and_by_path():
    assert registry.get_trainer_class("dc_forces") is DerivativeConstrainedTrainer
    assert registry.get_trainer_class("ocp_dc.trainers.DerivativeConstrainedTrainer") is DerivativeConstrainedTrainer


@pytest.mark.parametrize("fused", [False, True])
def test_baseline_has_the_loss_of_fairchems_own_trainer(train_arguments, tmp_path, fused):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    optimizer = () if fused else ("--optim.optimizer_params.fused=False",)
    train(train_arguments("schnet", "--optim.max_epochs=4", *optimizer, run_dir=ours))
    # stock trainer: without the task keys it does not know
    train(train_arguments("schnet", "--optim.max_epochs=4", "--trainer=ocp", run_dir=theirs))
    (events,) = theirs.glob("logs/tensorboard/*/events*")
    stock_losses = read_tensorboard(events, "train/loss")
    losses = [record["loss"] for record in read_log(ours, "train")]
    assert len(losses) == 20
    np.testing.assert_allclose(losses, stock_losses, rtol=1e-6)
    assert load(only_checkpoint(ours))["optimizer"]["param_groups"][0]["fused"] is fused
    if not fused:
        assert_same_weights(only_checkpoint(ours), only_checkpoint(theirs))
    for name, weight in weights(only_checkpoint(theirs)).items():
        torch.testing.assert_close(weights(only_checkpoint(ours))[name], weight, rtol=1e-6, atol=1e-6)


def read_tensorboard(path: Path, tag: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path)).Reload()
    return [event.value for event in events.Scalars(tag)]


def test_rescaled_labels_and_source_unit_errors(train_arguments, tmp_path, sample_data):
    train(train_arguments("schnet_dc", "--optim.max_epochs=2"))
    checkpoint = load(only_checkpoint(tmp_path))
    for target in ("energy", "forces"):
        normalizer = checkpoint["normalizers"][target]
        assert normalizer["rmsd"].item() == 1e6
        assert normalizer["mean"].item() == 0.0
        assert normalizer["rmsd"].dtype == torch.float64
    first = read_log(tmp_path, "train")[0]
    # errors are in kcal/mol, the loss is of labels / C
    assert first["loss"] == pytest.approx((first["energy_mae"] + 30 * first["forces_mae"]) / 1e6, rel=1e-5)
    assert len(read_log(tmp_path, "train")) == 2 * STEPS_PER_EPOCH
    assert [record["step"] for record in read_log(tmp_path, "val")] == [5, 10]


def test_auto_rescaling_is_equation_4(train_arguments, tmp_path):
    train(train_arguments("schnet_dc", "--optim.max_epochs=1", "--task.label_rescaling=auto"))
    assert load(only_checkpoint(tmp_path))["normalizers"]["forces"]["rmsd"].item() == 1e5


def test_auto_rescaling_after_the_reference_energy(train_arguments, tmp_path):
    overrides = ("--optim.max_epochs=1", "--task.label_rescaling=auto", "--task.reference_energy=mean")
    train(train_arguments("schnet_dc", *overrides))
    assert load(only_checkpoint(tmp_path))["normalizers"]["forces"]["rmsd"].item() == 1e3


def test_rescaling_by_the_mean_force(train_arguments, tmp_path, sample_data):
    overrides = ("--optim.max_epochs=1", "--task.label_rescaling=mean_force", "--task.reference_energy=mean")
    train(train_arguments("schnet_dc", *overrides))
    labels = json.loads((sample_data / "train" / "manifest.json").read_text())["labels"]
    normalizers = load(only_checkpoint(tmp_path))["normalizers"]
    for target in ("energy", "forces"):
        assert normalizers[target]["rmsd"].item() == pytest.approx(labels["mean_abs_force"], rel=1e-12)
    assert normalizers["energy"]["mean"].item() == pytest.approx(labels["energy_mean"], rel=1e-12)


@pytest.mark.parametrize("reference", ["mean", "element"])
def test_reference_energy_in_checkpoint_and_predictions(train_arguments, tmp_path, sample_data, reference):
    train(train_arguments("schnet_irelu_recommended", "--optim.max_epochs=2", f"--task.reference_energy={reference}"))
    manifest = json.loads((sample_data / "train" / "manifest.json").read_text())
    mean = manifest["labels"]["energy_mean"]
    checkpoint = only_checkpoint(tmp_path)
    if reference == "mean":
        assert load(checkpoint)["normalizers"]["energy"]["mean"].item() == pytest.approx(mean, abs=1e-8)
    else:
        coefficients = load(checkpoint)["elementrefs"]["energy"]["element_references"]
        assert coefficients.dtype == torch.float64
        assert (2 * coefficients[6] + coefficients[8] + 6 * coefficients[1]).item() == pytest.approx(mean, abs=1e-8)
    trainer = load_trainer(checkpoint, cpu=True)
    batch = batch_of_test_set(sample_data)
    predicted = trainer.predict_batch(batch)
    assert predicted["energy"].dtype == torch.float64
    assert (predicted["energy"].flatten() - batch.energy).abs().mean() < 50  # not 97,073


def batch_of_test_set(sample_data):
    from fairchem.core.datasets import LmdbDataset, data_list_collater

    dataset = LmdbDataset({"src": str(sample_data / "test"), "key_mapping": {"y": "energy", "force": "forces"}})
    batch = data_list_collater([dataset[i] for i in range(len(dataset))], otf_graph=True)
    assert batch.energy.dtype == torch.float64
    return batch


def test_cosine_schedule_ends_at_zero(train_arguments, tmp_path):
    cosine = ("--optim.scheduler=CosineAnnealingLR", "--optim.lr_initial=1.0e-3")
    train(train_arguments("schnet_irelu", "--optim.max_epochs=2", *cosine))
    rates = [record["lr"] for record in read_log(tmp_path, "train")]
    expected = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    assert load(only_checkpoint(tmp_path))["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-12)


def test_one_cycle_warms_up_to_the_configs_rate_and_ends_with_the_run(train_arguments, tmp_path):
    train(train_arguments("schnet_recommended", "--optim.max_epochs=2", "--optim.pct_start=0.3"))
    rates = [record["lr"] for record in read_log(tmp_path, "train")]
    # torch's: from a 25th of it, to a 250,000th
    assert rates[0] == pytest.approx(3e-3 / 25)
    assert (max(rates), rates.index(max(rates))) == (pytest.approx(3e-3), 2)
    assert rates[-1] == pytest.approx(3e-3 / 25 / 1e4)


def test_a_warm_up_of_one_step_is_none(train_arguments, tmp_path):
    train(train_arguments("schnet_recommended", "--optim.max_epochs=4"))  # 0.05 of 20 steps
    rates = [record["lr"] for record in read_log(tmp_path, "train")]
    assert (len(rates), rates[0]) == (20, pytest.approx(3e-3))
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(3e-3 / 25 / 1e4)


def test_squared_loss_from_the_config(train_arguments, tmp_path):
    terms = [{"energy": {"fn": "mse", "coefficient": 2}}, {"forces": {"fn": "mse", "coefficient": 5}}]
    train(train_arguments("schnet_dc", "--optim.max_epochs=1", f"--loss_functions={terms}"))
    squared = read_log(tmp_path, "train")[0]
    # Jensen: a mean of squares is at least the square of the mean
    assert squared["loss"] >= 2 * (squared["energy_mae"] / 1e6) ** 2 + 5 * (squared["forces_mae"] / 1e6) ** 2
    assert squared["loss"] != pytest.approx((2 * squared["energy_mae"] + 5 * squared["forces_mae"]) / 1e6, rel=0.01)


def whole_and_resumed(train_arguments, folder, *settings, config="schnet_dc"):
    """The checkpoints of a run of three epochs, and of one that was interrupted and went on in another folder."""
    settings = ("--optim.max_epochs=3", "--optim.checkpoint_every=4", *settings)
    whole, part, rest = folder / "whole", folder / "part", folder / "rest"
    train(train_arguments(config, *settings, run_dir=whole))
    interrupt_after(9, lambda: train(train_arguments(config, *settings, run_dir=part)))
    checkpoint = only_checkpoint(part)
    assert load(checkpoint)["step"] == 8
    train(train_arguments(config, *settings, "--checkpoint", str(checkpoint), run_dir=rest))
    assert load(checkpoint)["step"] == 8  # the checkpoint resumed from is untouched
    return only_checkpoint(whole), only_checkpoint(rest)


def test_resumed_equals_uninterrupted_bit_for_bit(train_arguments, tmp_path):
    assert_same_weights(*whole_and_resumed(train_arguments, tmp_path, "--optim.scheduler=CosineAnnealingLR"))
    assert [record["step"] for record in read_log(tmp_path / "rest", "train")] == list(range(9, 16))


def interrupt_after(step: int, run) -> None:
    train_step = DerivativeConstrainedTrainer._train_step

    def interrupted(trainer, *arguments):
        train_step(trainer, *arguments)
        if trainer.step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DerivativeConstrainedTrainer, "_train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()
    gc.collect()  # the interrupted trainer's open LMDBs


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(train_arguments, tmp_path):
    settings = ("--optim.max_epochs=100", "--optim.checkpoint_every=7", "--optim.eval_every=1000", "--cpu")
    whole, part, rest = tmp_path / "whole", tmp_path / "part", tmp_path / "rest"
    process = launch(train_arguments("schnet_dc", *settings, run_dir=part))
    while not list(part.glob("checkpoints/*/checkpoint.pt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = load(only_checkpoint(part))["step"]
    assert 0 < step < 500
    train(train_arguments("schnet_dc", *settings, run_dir=whole))
    resumed = [*settings, "--checkpoint", str(only_checkpoint(part))]
    output, _ = launch(train_arguments("schnet_dc", *resumed, run_dir=rest)).communicate()
    assert load(only_checkpoint(rest))["step"] == 500, output
    assert_same_weights(only_checkpoint(whole), only_checkpoint(rest))


def test_two_ranks_have_the_loss_of_one_with_twice_the_batch(train_arguments, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ("--optim.max_epochs=2", "--cpu")
    train(train_arguments("schnet_dc", *settings, "--optim.batch_size=20", run_dir=one))
    ranks = ("--num-gpus", "2", "--optim.batch_size=10")
    output, _ = launch(train_arguments("schnet_dc", *settings, *ranks, run_dir=two)).communicate()
    losses = [[r["loss"] for r in read_log(run, "val")] for run in (one, two)]
    assert len(losses[1]) == 2, output
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    for name, weight in weights(only_checkpoint(one)).items():
        torch.testing.assert_close(weights(only_checkpoint(two))[name], weight, rtol=1e-4, atol=1e-6)


def test_started_again_by_name_continues(train_arguments, tmp_path):
    named = ("--timestamp-id", "my-run")
    train(train_arguments("schnet_dc", *named, "--optim.max_epochs=1"))
    train(train_arguments("schnet_dc", *named, "--optim.max_epochs=2"))
    assert [record["step"] for record in read_log(tmp_path, "train")] == list(range(1, 11))


def test_runs_started_together_have_folders_of_their_own(train_arguments, tmp_path):
    for _ in range(3):
        train(train_arguments("schnet_dc", "--optim.max_epochs=1"))
    checkpoints = list(tmp_path.glob("checkpoints/*/checkpoint.pt"))
    assert len(checkpoints) == 3
    assert [load(checkpoint)["step"] for checkpoint in checkpoints] == 3 * [STEPS_PER_EPOCH]


def test_another_runs_checkpoint_is_not_overwritten(train_arguments, tmp_path):
    train(train_arguments("schnet_dc", "--timestamp-id", "first", "--optim.max_epochs=1"))
    train(train_arguments("schnet_dc", "--timestamp-id", "second", "--optim.max_epochs=1"))
    first = tmp_path / "checkpoints" / "first" / "checkpoint.pt"
    with pytest.raises(InputError, match="exists and is another run's"):
        train(train_arguments("schnet_dc", "--timestamp-id", "second", "--checkpoint", str(first)))


def test_a_killed_save_leaves_the_previous_checkpoint(train_arguments, tmp_path, monkeypatch):
    train(train_arguments("schnet_dc", "--timestamp-id", "run", "--optim.max_epochs=1"))
    before = only_checkpoint(tmp_path).read_bytes()

    def half_written(state, checkpoint_dir, checkpoint_file):
        (Path(checkpoint_dir) / checkpoint_file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("fairchem.core.trainers.base_trainer.save_checkpoint", half_written)
    with pytest.raises(OSError, match="No space"):
        train(train_arguments("schnet_dc", "--timestamp-id", "run", "--optim.max_epochs=2"))
    assert only_checkpoint(tmp_path).read_bytes() == before


@pytest.mark.parametrize(
    ("what", "overrides"),
    [("prediction", ("--optim.lr_initial=1.0e+20",)), ("gradient", ())],
)
def test_diverged_training_stops_and_says_where(train_arguments, tmp_path, what, overrides, monkeypatch):
    if what == "gradient":
        poison_gradient(monkeypatch, at_step=3)
    settings = ("--optim.max_epochs=10", "--optim.checkpoint_every=2", *overrides)
    with pytest.raises(TrainingDivergedError) as raised:
        train(train_arguments("schnet_dc", *settings))
    message = str(raised.value)
    assert f"{what} not finite at step {raised.value.step}" in message
    assert "batch: " in message
    if what == "gradient":
        assert raised.value.step == 3
        assert str(only_checkpoint(tmp_path)) in message
        assert all(torch.isfinite(weight).all() for weight in weights(only_checkpoint(tmp_path)).values())


def poison_gradient(monkeypatch, at_step: int) -> None:
    forward = DerivativeConstrainedTrainer._forward

    def poisoned(trainer, batch):
        out = forward(trainer, batch)
        if trainer.step == at_step:
            out["energy"].register_hook(lambda gradient: gradient * math.nan)
        return out

    monkeypatch.setattr(DerivativeConstrainedTrainer, "_forward", poisoned)


def test_validate_and_predict_take_labels_from_the_checkpoint(train_arguments, tmp_path, sample_data, monkeypatch):
    monkeypatch.setattr("ocp_dc.references.read_training_labels", None, raising=True)
    train(train_arguments("schnet_dc", "--optim.max_epochs=1", "--timestamp-id", "run"))
    checkpoint = ("--checkpoint", str(only_checkpoint(tmp_path)))
    run_fairchem("validate", train_arguments("schnet_dc", *checkpoint, "--timestamp-id", "validated"))
    validated = read_metrics(tmp_path / "logs" / "tensorboard" / "validated" / "metrics.jsonl")[-1]
    assert validated["energy_mae"] == pytest.approx(read_log_of(tmp_path, "run")[-1]["energy_mae"], rel=1e-9)

    test_set = f"--dataset.test.src={sample_data / 'test'}"
    run_fairchem("predict", train_arguments("schnet_dc", *checkpoint, test_set, "--timestamp-id", "predicted"))
    with np.load(next((tmp_path / "results" / "predicted").glob("*.npz"))) as predictions:
        assert predictions["energy"].dtype == np.float64
        assert predictions["forces"].dtype == np.float64
        assert predictions["forces"].shape == (20 * 9, 3)
        assert len(set(predictions["ids"])) == 20
        batch = batch_of_test_set(sample_data)
        in_memory = load_trainer(only_checkpoint(tmp_path), cpu=True).predict_batch(batch)
        order = np.argsort([f"{sid}_{fid}" for sid, fid in zip(batch.sid, batch.fid.tolist(), strict=True)])
        np.testing.assert_allclose(predictions["energy"], in_memory["energy"].numpy()[order], rtol=1e-6)


def read_log_of(run_dir: Path, name: str) -> list[dict]:
    return read_metrics(run_dir / "logs" / "tensorboard" / name / "metrics.jsonl")


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("schnet", (), "is of model 'schnet_irelu'; the config says 'schnet'"),
        ("schnet_dc", ("--model.hidden_channels=48",), "model.hidden_channels 32 .config: 48."),
        ("schnet_dc", ("--model.activation=integrated_elu",), "model.activation 'irelu' .config: 'integrated_elu'."),
        ("schnet_dc", ("--task.label_rescaling=10",), "task.label_rescaling: 1000000.0, the config says 10"),
        ("schnet_dc", ("--task.label_rescaling=none",), "the config says none"),
    ],
)
def test_checkpoint_of_another_model_or_labels(train_arguments, tmp_path, capsys, config, overrides, message):
    train(train_arguments("schnet_dc", "--optim.max_epochs=1"))
    checkpoint = ("--checkpoint", str(only_checkpoint(tmp_path)))
    assert main(["validate", *train_arguments(config, *overrides, *checkpoint)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(f"ocp-dc: error: checkpoint .*{message}", error)


def test_not_a_checkpoint(train_arguments, tmp_path):
    bad = tmp_path / "checkpoint.pt"
    bad.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        run_fairchem("validate", train_arguments("schnet_dc", "--checkpoint", str(bad)))
    gc.collect()
    torch.save({"weights": 1}, bad)
    with pytest.raises(InputError, match="has no state_dict, config, normalizers"):
        run_fairchem("validate", train_arguments("schnet_dc", "--checkpoint", str(bad)))


def test_metrics_log_drops_what_a_resumed_run_repeats(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write("train", step, {"loss": math.nan if step == 1 else step})
    with log.path.open("a") as file:
        file.write('{"split": "train", "st')
    log.drop_after(2)
    assert read_metrics(log.path) == [
        {"split": "train", "step": 1, "loss": None},
        {"split": "train", "step": 2, "loss": 2},
    ]
