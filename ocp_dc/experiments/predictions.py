"""The test errors of a run, with the predictions that plots are made of."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from ocp_dc.evaluation import concatenate, conformation_errors, data_energy_unit, predict, summarize

# of all test forces, those kept for parity plots
MAX_FORCE_COMPONENTS = 20_000


def evaluate_predictions(checkpoint: Path, data: Path, batch_size: int) -> tuple[dict, dict[str, np.ndarray]]:
    """Test errors of a checkpoint on an LMDB.

    Returns:
        The fields of :class:`~ocp_dc.evaluation.TestErrors`, and what ``errors.npz`` holds, in the units of the labels:
        ``energy_error``, ``force_error``, ``largest_force_error``, ``energy_true``, ``energy_predicted`` (N,), and
        ``forces_true``, ``forces_predicted``: components (at most ``MAX_FORCE_COMPONENTS``,
        drawn at random with seed 0).
    """
    errors, labels = [], []
    for batch in predict(checkpoint, data, batch_size):
        errors.append(conformation_errors(batch))
        arrays = (batch.energy, batch.true_energy, batch.forces, batch.true_forces)
        labels.append([tensor.numpy().ravel() for tensor in arrays])
    of_all = concatenate(errors)
    energy_predicted, energy_true, forces_predicted, forces_true = map(np.concatenate, zip(*labels, strict=True))
    kept = _sample(len(forces_true))
    return asdict(summarize(of_all, data_energy_unit(data))), {
        **{f"{name}_error": errors for name, errors in asdict(of_all).items()},
        "energy_true": energy_true,
        "energy_predicted": energy_predicted,
        "forces_true": forces_true[kept],
        "forces_predicted": forces_predicted[kept],
    }


def _sample(count: int) -> np.ndarray:
    chosen = np.random.default_rng(0).permutation(count)[:MAX_FORCE_COMPONENTS]
    return np.sort(chosen)
