"""Test errors as the paper takes them (Sec. 5.1), in float64, in the units of the labels and in eV."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from fairchem.core.datasets import LmdbDataset, data_list_collater
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ocp_dc.datasets.manifest import ENERGY_UNITS_IN_EV, read_manifest
from ocp_dc.errors import InputError
from ocp_dc.trainers import DerivativeConstrainedTrainer
from ocp_dc.trainers.checkpoints import read_checkpoint

# EFwT of the Open Catalyst Project, as the paper uses it.
EFWT_ENERGY_EV = 0.02
EFWT_FORCE_EV_PER_ANGSTROM = 0.03
# What an LMDB without a manifest is taken to be in: the Open Catalyst Project's own are.
ASSUMED_ENERGY_UNIT = "eV"


@dataclass(frozen=True)
class ConformationErrors:
    """Errors of one or more conformations, one entry each, in the units of the labels.

    Attributes:
        energy: (N,) |E − Ê|.
        force: (N,) mean over components of |F − F̂|.
        largest_force: (N,) largest component of |F − F̂|.
    """

    energy: np.ndarray
    force: np.ndarray
    largest_force: np.ndarray


@dataclass(frozen=True)
class TestErrors:
    """What the paper's tables report, for one model on one data set.

    Attributes:
        energy_mae: mean over conformations of |E − Ê|, in ``energy_unit``.
        force_mae: mean over conformations of the mean over components of |F − F̂|, in ``energy_unit``/Å.
        efwt: fraction of conformations with energy error ≤ 0.02 eV and largest force-component error ≤ 0.03 eV/Å.
    """

    conformations: int
    energy_unit: str
    energy_mae: float
    force_mae: float
    energy_mae_eV: float
    force_mae_eV_per_angstrom: float
    efwt: float


def conformation_errors(
    energy: Tensor, forces: Tensor, true_energy: Tensor, true_forces: Tensor, natoms: Tensor
) -> ConformationErrors:
    """Errors of each conformation of a batch.

    Args:
        energy, true_energy: (B,). forces, true_forces: (N, 3). natoms: (B,), ``natoms.sum() == N``.
    """
    difference = (forces.double() - true_forces.double()).abs()
    per_conformation = difference.cpu().split(natoms.tolist())
    return ConformationErrors(
        energy=(energy.double() - true_energy.double()).abs().cpu().numpy(),
        force=np.array([float(d.mean()) for d in per_conformation]),
        largest_force=np.array([float(d.max()) for d in per_conformation]),
    )


def summarize(errors: ConformationErrors, energy_unit: str) -> TestErrors:
    """The means, and EFwT, of per-conformation errors given in ``energy_unit``.

    Raises:
        InputError: the unit is unknown.
    """
    if energy_unit not in ENERGY_UNITS_IN_EV:
        raise InputError(f"energy unit {energy_unit!r} is unknown; known: {', '.join(ENERGY_UNITS_IN_EV)}")
    to_ev = ENERGY_UNITS_IN_EV[energy_unit]
    within = (errors.energy * to_ev <= EFWT_ENERGY_EV) & (errors.largest_force * to_ev <= EFWT_FORCE_EV_PER_ANGSTROM)
    energy_mae, force_mae = float(errors.energy.mean()), float(errors.force.mean())
    return TestErrors(
        conformations=len(errors.energy),
        energy_unit=energy_unit,
        energy_mae=energy_mae,
        force_mae=force_mae,
        energy_mae_eV=energy_mae * to_ev,
        force_mae_eV_per_angstrom=force_mae * to_ev,
        efwt=float(within.mean()),
    )


def load_trainer(checkpoint_path: str | Path, cpu: bool = False) -> DerivativeConstrainedTrainer:
    """The trainer of a checkpoint, ready to predict: its model, weights, C and reference energy.

    Raises:
        InputError: not a readable checkpoint.
    """
    checkpoint = read_checkpoint(checkpoint_path, torch.device("cpu"))
    config = checkpoint["config"]
    trainer = DerivativeConstrainedTrainer(
        task=config["task"],
        model=config["model"],
        outputs=config["outputs"],
        dataset={},
        optimizer=config["optim"],
        loss_functions=config["loss_functions"],
        evaluation_metrics=config["evaluation_metrics"],
        identifier="",
        local_rank=0,
        timestamp_id="evaluate",
        is_debug=True,
        seed=None,
        logger="tensorboard",
        cpu=cpu,
        inference_only=True,
    )
    trainer.load_checkpoint(str(checkpoint_path), checkpoint, inference_only=True)
    return trainer


def data_energy_unit(data: str | Path) -> str:
    """The energy unit of an LMDB, from its manifest; ``eV``, said in the log, where it has none."""
    manifest = read_manifest(data)
    if manifest:
        return manifest.energy_unit
    logging.warning(f"{data} has no manifest: energies taken to be in {ASSUMED_ENERGY_UNIT}, lengths in Å")
    return ASSUMED_ENERGY_UNIT


def evaluate(
    checkpoint_path: str | Path, data: str | Path, batch_size: int = 1, cpu: bool = False
) -> tuple[TestErrors, ConformationErrors]:
    """Test errors of a checkpoint on an LMDB (a folder or a file) written by this package or the host.

    Raises:
        InputError: the checkpoint or the data cannot be read.
    """
    loader = _loader(Path(data), batch_size)
    energy_unit = data_energy_unit(data)
    trainer = load_trainer(checkpoint_path, cpu)
    batches = []
    for batch in tqdm(loader, desc="evaluating", unit="batch"):
        predicted = trainer.predict(batch, per_image=False, disable_tqdm=True)
        batches.append(
            conformation_errors(
                predicted["energy"].flatten(), predicted["forces"], batch.energy.flatten(), batch.forces, batch.natoms
            )
        )
    errors = ConformationErrors(
        *(np.concatenate([getattr(batch, field.name) for batch in batches]) for field in fields(ConformationErrors))
    )
    return summarize(errors, energy_unit), errors


def _loader(data: Path, batch_size: int) -> DataLoader:
    if not data.exists() or (data.is_dir() and not any(data.glob("*.lmdb"))):
        raise InputError(f"{data}: no LMDB there")
    dataset = LmdbDataset({"src": str(data), "key_mapping": {"y": "energy", "force": "forces"}})
    return DataLoader(dataset, batch_size=batch_size, collate_fn=_collate)


def _collate(graphs: list):
    return data_list_collater(graphs, otf_graph=True)


def write_result(path: Path, errors: TestErrors, checkpoint: str | Path, data: str | Path) -> None:
    """`result.json`: the test errors, with what was evaluated on what."""
    record = {"checkpoint": str(checkpoint), "data": str(data), **asdict(errors)}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    partial.replace(path)
