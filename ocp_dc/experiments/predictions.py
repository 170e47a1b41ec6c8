"""The test errors of a run, with the predictions that plots are made of."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from fairchem.core.datasets import LmdbDataset, data_list_collater
from torch.utils.data import DataLoader
from tqdm import tqdm

from ocp_dc.evaluation import ConformationErrors, conformation_errors, data_energy_unit, load_trainer, summarize

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
    dataset = LmdbDataset({"src": str(data), "key_mapping": {"y": "energy", "force": "forces"}})
    trainer = load_trainer(checkpoint)
    errors, labels = [], []
    for batch in tqdm(DataLoader(dataset, batch_size, collate_fn=_collate), desc="testing", unit="batch"):
        predicted = trainer.predict(batch, per_image=False, disable_tqdm=True)
        energies = predicted["energy"].flatten(), batch.energy.flatten()
        forces = predicted["forces"], batch.forces
        errors.append(conformation_errors(energies[0], forces[0], energies[1], forces[1], batch.natoms))
        labels.append([tensor.detach().double().cpu().numpy().ravel() for tensor in (*energies, *forces)])

    names = [field.name for field in fields(ConformationErrors)]
    of_all = ConformationErrors(*(np.concatenate([getattr(batch, name) for batch in errors]) for name in names))
    energy_predicted, energy_true, forces_predicted, forces_true = map(np.concatenate, zip(*labels, strict=True))
    kept = _sample(len(forces_true))
    return asdict(summarize(of_all, data_energy_unit(data))), {
        **{f"{name}_error": getattr(of_all, name) for name in names},
        "energy_true": energy_true,
        "energy_predicted": energy_predicted,
        "forces_true": forces_true[kept],
        "forces_predicted": forces_predicted[kept],
    }


def _sample(count: int) -> np.ndarray:
    chosen = np.random.default_rng(0).permutation(count)[:MAX_FORCE_COMPONENTS]
    return np.sort(chosen)


def _collate(graphs: list):
    return data_list_collater(graphs, otf_graph=True)
