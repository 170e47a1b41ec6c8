"""Test errors as the paper takes them (Sec. 5.1), in float64, in the units of the labels and in eV."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Batch
from tqdm import tqdm

from ocp_dc.datasets.conformations import formula_of
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.packed import collate, read_fast
from ocp_dc.datasets.source_checks import Expected, check_source
from ocp_dc.datasets.structure_files import is_lmdb, read_structures
from ocp_dc.datasets.structure_graphs import StructureGraphs
from ocp_dc.errors import InputError
from ocp_dc.files import replace_text
from ocp_dc.references import KEY_MAPPING
from ocp_dc.trainers import DerivativeConstrainedTrainer
from ocp_dc.trainers.checkpoints import read_checkpoint
from ocp_dc.trainers.labels import Units, units_of_config, units_of_data
from ocp_dc.trainers.prediction import evaluation_batch_size
from ocp_dc.trainers.unshown_steps import structure_names
from ocp_dc.units import LENGTH_UNIT, energy_factor

# EFwT of the Open Catalyst Project, as the paper uses it.
EFWT_ENERGY_EV = 0.02
EFWT_FORCE_EV_PER_ANGSTROM = 0.03


@dataclass(frozen=True)
class ConformationErrors:
    """Errors of one or more conformations, one entry each, in the units of the labels.

    Attributes:
        energy_difference: (N,) Ê − E, predicted − true.
        force: (N,) mean over components of |F − F̂|.
        largest_force: (N,) largest component of |F − F̂|.
        formula: (N,) compositions in Hill order, such as C2H6O.
        name: (N,) of the conformations, as fairchem names them: ``sid_fid``.
    """

    energy_difference: np.ndarray
    force: np.ndarray
    largest_force: np.ndarray
    formula: np.ndarray
    name: np.ndarray

    @property
    def energy(self) -> np.ndarray:
        """(N,) |E − Ê|."""
        return np.abs(self.energy_difference)

    @property
    def not_finite(self) -> list[str]:
        """The names of conformations with an error that is NaN or infinite."""
        finite = np.isfinite(self.energy_difference) & np.isfinite(self.force) & np.isfinite(self.largest_force)
        return self.name[~finite].tolist()


@dataclass(frozen=True)
class TestErrors:
    """What the paper's tables report, for one model on one data set.

    Attributes:
        energy_mae: mean over conformations of |E − Ê|, in ``energy_unit``.
        force_mae: mean over conformations of the mean over components of |F − F̂|, in ``energy_unit``/Å.
        efwt: fraction of conformations with energy error ≤ 0.02 eV and largest force-component error ≤ 0.03 eV/Å.
        energy_mae_centered: not the paper's: mean of |ΔE − mean ΔE|, ΔE = Ê − E, with a mean for each composition, in
            ``energy_unit``: what is left of the energy error when one constant, which changes no force and no relative
            energy, is taken off. Conformations that are the only ones of their composition do not count; None where
            there are no others.
        energy_offset: mean of ΔE over all conformations, in ``energy_unit``. With several compositions that is the mean
            of their offsets, each weighted with its number of conformations, and may be near 0 though they are not.
    """

    conformations: int
    energy_unit: str
    energy_mae: float
    force_mae: float
    energy_mae_eV: float
    force_mae_eV_per_angstrom: float
    efwt: float
    energy_mae_centered: float | None
    energy_offset: float


@dataclass(frozen=True)
class Predictions:
    """What a model says of a batch of B conformations, and the labels; on the CPU, float64, in the labels' units.

    Attributes:
        energy, true_energy: (B,).
        forces, true_forces: (n, 3), of the atoms that count.
        natoms: (B,) atoms that count in each conformation; ``natoms.sum() == n``.
        formulas, names: (B,) see :class:`ConformationErrors`.
    """

    energy: Tensor
    forces: Tensor
    true_energy: Tensor
    true_forces: Tensor
    natoms: Tensor
    formulas: Sequence[str]
    names: Sequence[str]


def conformation_errors(predictions: Predictions) -> ConformationErrors:
    """Errors of each conformation of a batch; the force errors of one without atoms that count are 0."""
    of_atoms = (predictions.forces - predictions.true_forces).abs()
    natoms = predictions.natoms
    conformation = torch.arange(len(natoms)).repeat_interleave(natoms)
    of_none = of_atoms.new_zeros(len(natoms))
    sums = of_none.index_add(0, conformation, of_atoms.sum(dim=1))
    return ConformationErrors(
        energy_difference=(predictions.energy - predictions.true_energy).numpy(),
        force=(sums / (3 * natoms).clamp(min=1)).numpy(),
        largest_force=of_none.scatter_reduce(0, conformation, of_atoms.amax(dim=1), "amax").numpy(),
        formula=np.array(predictions.formulas),
        name=np.array(predictions.names),
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
        energy_mae_centered=_centered_mae(errors),
        energy_offset=float(errors.energy_difference.mean()),
    )


def _centered_mae(errors: ConformationErrors) -> float | None:
    _, composition, counts = np.unique(errors.formula, return_inverse=True, return_counts=True)
    offsets = np.bincount(composition, errors.energy_difference) / counts
    centered = np.abs(errors.energy_difference - offsets[composition])
    among_others = counts[composition] > 1
    return float(centered[among_others].mean()) if among_others.any() else None


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


@dataclass(frozen=True)
class LabelledData:
    """What predictions are compared with.

    Attributes:
        name: for messages.
        graphs: with ``energy`` and ``forces``, in ``units``.
    """

    name: str
    graphs: Dataset
    units: Units

    @property
    def has_edges(self) -> bool:
        """Whether its graphs may have edges stored with them."""
        return not isinstance(self.graphs, StructureGraphs)


def read_labelled(data: str | Path, energy_unit: str | None = None) -> LabelledData:
    """Labelled structures: an LMDB, or any file that :func:`~ocp_dc.datasets.structure_files.read_structures` takes.

    Raises:
        InputError: they cannot be read or have no labels, or ``energy_unit`` contradicts the unit that is stated.
    """
    if not is_lmdb(data):
        structures = read_structures(data, energy_unit)
        units = Units(structures.energy_unit, LENGTH_UNIT, "file")
        return LabelledData(f"{data}", StructureGraphs(structures), units)
    check_source(f"{data}", Path(data), Expected(labelled=False))
    units = _units_of_lmdb(data, energy_unit)
    graphs = read_fast({"src": str(data), "key_mapping": KEY_MAPPING})
    if missing := [name for name in KEY_MAPPING.values() if graphs[0].get(name) is None]:
        raise InputError(f"{data} has no {' and no '.join(missing)}: errors need labels; `ocp-dc predict` needs none")
    return LabelledData(f"{data}", graphs, units)


def _units_of_lmdb(data: str | Path, given: str | None) -> Units:
    manifest = read_manifest(data)
    units = units_of_data(manifest)
    if manifest is None and given is None:
        logging.warning(f"{data} has no manifest: energies taken to be in {units.energy}, lengths in Å")
    if manifest and given not in (None, units.energy):
        raise InputError(
            f"{data} states its energies in {units.energy}, the given energy unit is {given}: leave it out"
        )
    return replace(units, energy=given or units.energy)


def evaluate(
    checkpoint_path: str | Path,
    data: str | Path,
    batch_size: int | None = None,
    cpu: bool = False,
    energy_unit: str | None = None,
    any_element: bool = False,
) -> tuple[TestErrors, ConformationErrors]:
    """Test errors of a checkpoint on an LMDB (a folder or a file) written by this package or fairchem, or on any file.

    Forces count for all atoms, or for those that are not fixed where the checkpoint's config says
    ``eval_on_free_atoms: true``.

    Errors are in the energy unit of the data. Predictions of a checkpoint in another are converted to it.

    Args:
        data: of one split, or a file with labels that ASE reads, see
            :func:`~ocp_dc.datasets.structure_files.read_structures`.
        batch_size: conformations that are predicted at once; None for
            :func:`ocp_dc.trainers.prediction.evaluation_batch_size`. Errors do not depend on it, to rounding.
        energy_unit: of the data, where nothing states it.
        any_element: take elements that the checkpoint was not trained on.

    Raises:
        InputError: the checkpoint or the data cannot be read, or have different length units; the data have other
            elements, or positions or labels that are not finite.
    """
    labelled = read_labelled(data, energy_unit)
    batches = predict(checkpoint_path, labelled, batch_size, cpu, any_element)
    errors = concatenate([conformation_errors(batch) for batch in batches])
    return summarize(errors, labelled.units.energy), errors


def predict(
    checkpoint_path: str | Path,
    data: str | Path | LabelledData,
    batch_size: int | None = None,
    cpu: bool = False,
    any_element: bool = False,
) -> Iterator[Predictions]:
    """Predictions for labelled data, batch by batch, see :func:`evaluate`."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}; give 1 or more, or leave it out")
    labelled = data if isinstance(data, LabelledData) else read_labelled(data)
    trainer = load_trainer(checkpoint_path, cpu)
    factor = _factor_to(labelled, checkpoint_path, units_of_config(trainer.config))
    elements = None if any_element else (trainer.config.get("labels") or {}).get("elements")
    yield from predict_by(trainer, labelled, batch_size, factor, elements)


def predict_by(
    trainer: DerivativeConstrainedTrainer,
    data: str | Path | LabelledData,
    batch_size: int | None = None,
    factor: float = 1.0,
    elements: Sequence[int] | None = None,
) -> Iterator[Predictions]:
    """Predictions of a trainer that is ready to predict, times ``factor``; see :func:`predict`.

    Args:
        elements: atomic numbers that it was trained on; data with others are refused. None to take any.
    """
    labelled = data if isinstance(data, LabelledData) else read_labelled(data)
    size = batch_size or evaluation_batch_size(labelled.graphs[0], trainer.device)
    if not labelled.has_edges:
        trainer._unwrapped_model.otf_graph = True
    otf_graph = not labelled.has_edges or trainer.config["model"].get("otf_graph", False)
    loader = DataLoader(labelled.graphs, batch_size=size, collate_fn=partial(collate, otf_graph=otf_graph))
    free_only = trainer.output_targets["forces"]["eval_on_free_atoms"]
    known = None if elements is None else torch.tensor(elements)
    for batch in tqdm(loader, desc="evaluating", unit="batch"):
        _check(labelled.name, batch, known)
        yield _compared(trainer.predict_batch(batch), batch, free_only, factor)


def _check(data: str, batch: Batch, elements: Tensor | None) -> None:
    """Refuses structures that no errors can be told of, or of elements that the model has not seen."""
    names = structure_names(batch) or [f"{row}" for row in range(len(batch.natoms))]
    for key in ("pos", "forces", "energy"):
        wrong = ~torch.isfinite(batch[key]).reshape(len(batch[key]), -1).all(dim=1)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            name = names[row if key == "energy" else batch.batch[row]]
            raise InputError(f"{data}: structure {name} has NaN or infinite {key}; remove it")
    if elements is None:
        return
    unknown = ~torch.isin(batch.atomic_numbers.long(), elements)
    if unknown.any():
        atom = int(unknown.nonzero()[0])
        symbol = chemical_symbols[int(batch.atomic_numbers[atom])]
        known = ", ".join(chemical_symbols[number] for number in elements)
        raise InputError(
            f"{data}: structure {names[batch.batch[atom]]} has {symbol}, and the model was trained on {known}: "
            "give structures of these, or --any-element to go on all the same"
        )


def _compared(predicted: dict[str, Tensor], batch: Batch, free_only: bool, factor: float) -> Predictions:
    counts = batch.fixed == 0 if free_only else torch.ones_like(batch.batch, dtype=torch.bool)
    tensors = (
        predicted["energy"].flatten() * factor,
        predicted["forces"][counts] * factor,
        batch.energy.flatten(),
        batch.forces[counts],
    )
    natoms = torch.bincount(batch.batch[counts], minlength=len(batch.natoms))
    numbers = batch.atomic_numbers.long().cpu().split(batch.natoms.tolist())
    return Predictions(
        *(tensor.double().cpu() for tensor in tensors),
        natoms.cpu(),
        formulas=[_formula(tuple(of_one.tolist())) for of_one in numbers],
        names=structure_names(batch) or [""] * len(natoms),
    )


@lru_cache(maxsize=1000)
def _formula(numbers: tuple[int, ...]) -> str:
    return formula_of(numbers)


def _factor_to(data: LabelledData, checkpoint_path: str | Path, predicted: Units | None) -> float:
    """What turns predicted energies, and forces, in the units of a checkpoint into those of the data."""
    units = data.units
    if predicted is None:
        logging.warning(f"checkpoint {checkpoint_path} states no units: taken to be those of {data.name}, {units}")
        return 1.0
    if predicted.length != units.length:
        raise InputError(
            f"checkpoint {checkpoint_path} is of data in {predicted}, {data.name} is in {units}: "
            "give data in the length unit of the checkpoint's"
        )
    if predicted.energy != units.energy:
        logging.warning(
            f"predictions of {checkpoint_path}, in {predicted}, are converted to those of {data.name}, {units}"
        )
    return energy_factor(predicted.energy, units.energy)


def write_result(path: Path, errors: TestErrors, checkpoint: str | Path, data: str | Path) -> None:
    """`result.json`: the test errors, with what was evaluated on what; null for what is not finite."""
    record = {"checkpoint": str(checkpoint), "data": str(data), **asdict(errors)}
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
    replace_text(path, json.dumps(finite, indent=2, allow_nan=False) + "\n")
