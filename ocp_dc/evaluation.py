"""Test errors as the paper takes them (Sec. 5.1), in float64, in the units of the labels and in eV."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.packed import collate, read_fast
from ocp_dc.errors import InputError
from ocp_dc.files import replace_text
from ocp_dc.references import KEY_MAPPING
from ocp_dc.trainers import DerivativeConstrainedTrainer
from ocp_dc.trainers.checkpoints import read_checkpoint
from ocp_dc.trainers.config_keys import require_lmdb
from ocp_dc.trainers.labels import Units, units_of_config, units_of_data
from ocp_dc.trainers.prediction import evaluation_batch_size
from ocp_dc.units import energy_factor

# EFwT of the Open Catalyst Project, as the paper uses it.
EFWT_ENERGY_EV = 0.02
EFWT_FORCE_EV_PER_ANGSTROM = 0.03


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


@dataclass(frozen=True)
class Predictions:
    """What a model says of a batch of B conformations, and the labels; on the CPU, float64, in the labels' units.

    Attributes:
        energy, true_energy: (B,).
        forces, true_forces: (n, 3), of the atoms that count.
        natoms: (B,) atoms that count in each conformation; ``natoms.sum() == n``.
    """

    energy: Tensor
    forces: Tensor
    true_energy: Tensor
    true_forces: Tensor
    natoms: Tensor


def conformation_errors(predictions: Predictions) -> ConformationErrors:
    """Errors of each conformation of a batch; the force errors of one without atoms that count are 0."""
    of_atoms = (predictions.forces - predictions.true_forces).abs()
    natoms = predictions.natoms
    conformation = torch.arange(len(natoms)).repeat_interleave(natoms)
    of_none = of_atoms.new_zeros(len(natoms))
    sums = of_none.index_add(0, conformation, of_atoms.sum(dim=1))
    return ConformationErrors(
        energy=(predictions.energy - predictions.true_energy).abs().numpy(),
        force=(sums / (3 * natoms).clamp(min=1)).numpy(),
        largest_force=of_none.scatter_reduce(0, conformation, of_atoms.amax(dim=1), "amax").numpy(),
    )


def concatenate(errors: Sequence[ConformationErrors]) -> ConformationErrors:
    """The errors of several batches as one."""
    columns = zip(*(vars(batch).values() for batch in errors), strict=True)
    return ConformationErrors(*map(np.concatenate, columns))


def summarize(errors: ConformationErrors, energy_unit: str) -> TestErrors:
    """The means, and EFwT, of per-conformation errors given in ``energy_unit``.

    Raises:
        InputError: the unit is unknown.
    """
    to_ev = energy_factor(energy_unit, "eV")
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
        **{key: config[key] for key in ("task", "model", "outputs", "loss_functions", "evaluation_metrics")},
        dataset={},
        optimizer=config["optim"],
        identifier="",
        local_rank=0,
        timestamp_id="evaluate",
        is_debug=True,
        logger="tensorboard",
        cpu=cpu,
        inference_only=True,
    )
    trainer.load_checkpoint(str(checkpoint_path), checkpoint, inference_only=True)
    return trainer


def data_energy_unit(data: str | Path) -> str:
    """The energy unit of an LMDB, from its manifest; ``eV``, said in the log, where it has none."""
    manifest = read_manifest(data)
    units = units_of_data(manifest)
    if manifest is None:
        logging.warning(f"{data} has no manifest: energies taken to be in {units.energy}, lengths in Å")
    return units.energy


def evaluate(
    checkpoint_path: str | Path, data: str | Path, batch_size: int | None = None, cpu: bool = False
) -> tuple[TestErrors, ConformationErrors]:
    """Test errors of a checkpoint on an LMDB (a folder or a file) written by this package or fairchem.

    Forces count for all atoms, or for those that are not fixed where the checkpoint's config says
    ``eval_on_free_atoms: true``.

    Errors are in the energy unit of the data. Predictions of a checkpoint in another are converted to it.

    Args:
        batch_size: conformations that are predicted at once; None for
            :func:`ocp_dc.trainers.prediction.evaluation_batch_size`. Errors do not depend on it, to rounding.

    Raises:
        InputError: the checkpoint or the data cannot be read, or have different length units.
    """
    errors = concatenate([conformation_errors(batch) for batch in predict(checkpoint_path, data, batch_size, cpu)])
    return summarize(errors, data_energy_unit(data)), errors


def predict(
    checkpoint_path: str | Path, data: str | Path, batch_size: int | None = None, cpu: bool = False
) -> Iterator[Predictions]:
    """Predictions for an LMDB, batch by batch, see :func:`evaluate`."""
    require_lmdb(f"{data}", Path(data))
    trainer = load_trainer(checkpoint_path, cpu)
    factor = _factor_to_units_of(data, checkpoint_path, units_of_config(trainer.config))
    yield from predict_by(trainer, data, batch_size, factor)


def predict_by(
    trainer: DerivativeConstrainedTrainer, data: str | Path, batch_size: int | None = None, factor: float = 1.0
) -> Iterator[Predictions]:
    """Predictions of a trainer that is ready to predict, times ``factor``; see :func:`predict`."""
    dataset = read_fast({"src": str(data), "key_mapping": KEY_MAPPING})
    size = batch_size or evaluation_batch_size(dataset[0], trainer.device)
    collater = partial(collate, otf_graph=trainer.config["model"].get("otf_graph", False))
    free_only = trainer.output_targets["forces"]["eval_on_free_atoms"]
    loader = DataLoader(dataset, batch_size=size, collate_fn=collater)
    for batch in tqdm(loader, desc="evaluating", unit="batch"):
        predicted = trainer.predict_batch(batch)
        counts = batch.fixed == 0 if free_only else torch.ones_like(batch.batch, dtype=torch.bool)
        tensors = (
            predicted["energy"].flatten() * factor,
            predicted["forces"][counts] * factor,
            batch.energy.flatten(),
            batch.forces[counts],
        )
        natoms = torch.bincount(batch.batch[counts], minlength=len(batch.natoms))
        yield Predictions(*(tensor.double().cpu() for tensor in tensors), natoms.cpu())


def _factor_to_units_of(data: str | Path, checkpoint_path: str | Path, predicted: Units | None) -> float:
    """What turns predicted energies, and forces, in the units of a checkpoint into those of the data."""
    units = units_of_data(read_manifest(data))
    if predicted is None:
        logging.warning(f"checkpoint {checkpoint_path} states no units: taken to be those of {data}, {units}")
        return 1.0
    if predicted.length != units.length:
        raise InputError(
            f"checkpoint {checkpoint_path} is of data in {predicted}, {data} is in {units}: "
            "give data in the length unit of the checkpoint's"
        )
    if predicted.energy != units.energy:
        logging.warning(f"predictions of {checkpoint_path}, in {predicted}, are converted to those of {data}, {units}")
    return energy_factor(predicted.energy, units.energy)


def write_result(path: Path, errors: TestErrors, checkpoint: str | Path, data: str | Path) -> None:
    """`result.json`: the test errors, with what was evaluated on what."""
    record = {"checkpoint": str(checkpoint), "data": str(data), **asdict(errors)}
    replace_text(path, json.dumps(record, indent=2) + "\n")
