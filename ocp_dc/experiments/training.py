"""The work of a run: training, the test errors, and the predictions that plots are made of."""

from __future__ import annotations

import logging
import math
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from ocp_dc.errors import DivergedError, InputError
from ocp_dc.evaluation import TestErrors, concatenate, conformation_errors, predict, read_labelled, summarize
from ocp_dc.experiments.plan import CHECKPOINT, LOG, PREDICTIONS_NAME
from ocp_dc.files import replacing, write_npz
from ocp_dc.launch import run_fairchem
from ocp_dc.runs.devices import device_name
from ocp_dc.runs.worker import Quantity, Work
from ocp_dc.trainers.checkpoints import previous_checkpoint, read_checkpoint

# of all test forces, those kept for parity plots
MAX_FORCE_COMPONENTS = 20_000


def train_and_test(folder: Path, description: dict) -> Work:
    """Trains a run from its last checkpoint on, and tests it; leaves ``errors.npz``.

    Raises:
        DivergedError: in training, or since predictions for the test set are not finite.
    """
    seconds = _train(folder, shlex.split(description["command"]), description["steps"])
    errors, predictions = evaluate_predictions(
        folder / CHECKPOINT, Path(description["test_data"]), description["test_batch_size"]
    )
    if not all(map(math.isfinite, (errors.energy_mae, errors.force_mae))):
        raise DivergedError("predictions for the test set are not finite", description["steps"])
    with replacing(folder / PREDICTIONS_NAME) as partial:
        write_npz(partial, **predictions)
    return Work(quantities_of(errors), seconds, device_name())


def quantities_of(errors: TestErrors) -> dict[str, Quantity]:
    """What a result has of them."""
    unit = errors.energy_unit
    quantities = {
        "energy MAE": Quantity(errors.energy_mae, unit),
        "force MAE": Quantity(errors.force_mae, f"{unit}/Å"),
        "EFwT": Quantity(100 * errors.efwt, "%"),
        "energy offset": Quantity(errors.energy_offset, unit),
    }
    if errors.energy_mae_centered is not None:
        quantities["centered energy MAE"] = Quantity(errors.energy_mae_centered, unit)
    return quantities


def evaluate_predictions(checkpoint: Path, data: Path, batch_size: int) -> tuple[TestErrors, dict[str, np.ndarray]]:
    """Test errors of a checkpoint on an LMDB.

    Returns:
        The errors, and what ``errors.npz`` holds, in the units of the labels: ``energy_error``, ``force_error``,
        ``largest_force_error``, ``energy_true``, ``energy_predicted`` (N,), and ``forces_true``, ``forces_predicted``:
        components (at most ``MAX_FORCE_COMPONENTS``, drawn at random with seed 0).
    """
    data = read_labelled(data)
    errors, labels = [], []
    # val_ood has elements that a subset of the training set may lack
    for batch in predict(checkpoint, data, batch_size, any_element=True):
        errors.append(conformation_errors(batch))
        arrays = (batch.energy, batch.true_energy, batch.forces, batch.true_forces)
        labels.append([tensor.numpy().ravel() for tensor in arrays])
    of_all = concatenate(errors)
    energy_predicted, energy_true, forces_predicted, forces_true = map(np.concatenate, zip(*labels, strict=True))
    kept = _sample(len(forces_true))
    return summarize(of_all, data.units.energy), {
        "energy_error": of_all.energy,
        "force_error": of_all.force,
        "largest_force_error": of_all.largest_force,
        "energy_true": energy_true,
        "energy_predicted": energy_predicted,
        "forces_true": forces_true[kept],
        "forces_predicted": forces_predicted[kept],
    }


def _train(folder: Path, command: list[str], steps: int) -> float | None:
    """Seconds for all steps, in proportion where some were taken before; None where all were."""
    first = _checkpoint_step(folder / CHECKPOINT)
    if first == 0:
        # what a killed worker has logged before its first checkpoint
        shutil.rmtree((folder / LOG).parent, ignore_errors=True)
    started = time.monotonic()
    mode, *arguments = command[1:]
    run_fairchem(mode, arguments)
    return (time.monotonic() - started) * steps / (steps - first) if first < steps else None


def _checkpoint_step(path: Path) -> int:
    """The step to go on from; a damaged checkpoint is put aside, and the one before it, or none, takes its place."""
    if not path.exists():
        return 0
    try:
        return read_checkpoint(path, torch.device("cpu"))["step"]
    except InputError as error:
        path.replace(path.with_name(f"damaged_{path.name}"))
        previous = previous_checkpoint(path)
        logging.warning(f"{error}; going on from {previous if previous.exists() else 'the start'}")
        if previous.exists():
            previous.replace(path)
        return _checkpoint_step(path)


def _sample(count: int) -> np.ndarray:
    chosen = np.random.default_rng(0).permutation(count)[:MAX_FORCE_COMPONENTS]
    return np.sort(chosen)
