"""Trained models as ASE calculators: energies in eV and forces in eV/Å, whatever the units they were trained in."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from fairchem.core.datasets import data_list_collater
from torch import Tensor
from torch_geometric.data import Batch, Data

from ocp_dc.datasets.graphs import set_fields
from ocp_dc.datasets.structures import completed_cell
from ocp_dc.errors import InputError
from ocp_dc.evaluation import load_trainer
from ocp_dc.models.forces import forces_are_a_gradient
from ocp_dc.trainers import DerivativeConstrainedTrainer
from ocp_dc.trainers.labels import units_of_config
from ocp_dc.units import LENGTH_UNIT, energy_factor

# of a batch in :meth:`TrainedModel.evaluate`
ATOMS_AT_ONCE = 2_000


def load(
    checkpoint: str | Path,
    device: str | torch.device | None = None,
    energy_unit: str | None = None,
    any_element: bool = False,
) -> TrainedModel:
    """The calculator of a checkpoint (it is unpickled, which can execute code: trust it).

    Args:
        checkpoint: of this package's trainer, or of fairchem's.
        device: ``cpu`` or ``cuda``; None for a GPU where there is one.
        energy_unit: that the model was trained in, of :data:`ocp_dc.units.ENERGY_UNITS_IN_EV`, where the checkpoint
            does not state it.
        any_element: take elements that the model was not trained on, for which it has learned nothing.

    Raises:
        InputError: no readable checkpoint, its unit is stated nowhere or contradicted, or it is not in Å.
    """
    cpu = not torch.cuda.is_available() if device is None else torch.device(device).type == "cpu"
    trainer = load_trainer(checkpoint, cpu=cpu)
    labels = trainer.config.get("labels") or {}
    elements = None if any_element else labels.get("elements")
    if elements is None and not any_element:
        logging.warning(f"{checkpoint} does not state the elements it was trained on: structures are not checked")
    return TrainedModel(trainer, _energy_unit(checkpoint, trainer, energy_unit), elements)


def _energy_unit(checkpoint: str | Path, trainer: DerivativeConstrainedTrainer, given: str | None) -> str:
    stated = units_of_config(trainer.config)
    if stated is None and given is None:
        raise InputError(f"{checkpoint} does not state the energy unit it was trained in: give energy_unit")
    if stated and given not in (None, stated.energy):
        raise InputError(f"energy_unit is {given!r}, and {checkpoint} was trained in {stated.energy}: leave it out")
    if stated and stated.length != LENGTH_UNIT:
        raise InputError(f"{checkpoint} was trained on lengths in {stated.length}, and ASE's are in Å")
    return given or stated.energy


class TrainedModel(Calculator):
    """An ASE calculator with ``energy``, ``free_energy`` (the same) and ``forces``, and ``stress`` where it has one.

    Energies are float64 beyond the network's output: C, reference energies and the unit are applied in that precision.
    A stress is had of periodic structures, from models whose forces are the gradient of their energy. A molecule
    that is asked for again and again, as in dynamics, is computed by a trace of the network, equal to it to rounding.

    Args:
        trainer: with the model, its weights, C and reference energies.
        energy_unit: that it predicts in.
        elements: atomic numbers that it takes; None for any.
    """

    implemented_properties: ClassVar = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self, trainer: DerivativeConstrainedTrainer, energy_unit: str, elements: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self._trainer = trainer
        self._model = trainer._unwrapped_model
        self._model.eval().requires_grad_(False)
        # stored edges are of the data that it was trained on
        self._model.otf_graph = True
        self._factor = energy_factor(energy_unit, "eV")
        self._elements = None if elements is None else set(elements)
        self._gradient = forces_are_a_gradient(self._model)
        self._last: tuple[bytes, Batch] | None = None
        if not self._gradient:
            name = trainer.config["model"]["name"]
            logging.warning(f"the forces of this {name} are not the gradient of its energy: dynamics drifts in energy")

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes=all_changes
    ) -> None:
        """What ASE calls.

        Raises:
            InputError: a structure that the model cannot take.
            PropertyNotImplementedError: a stress is asked for that cannot be had.
        """
        super().calculate(atoms, properties, system_changes)
        (self.results,) = self._batch_results([self.atoms], "stress" in properties)

    def evaluate(self, structures: Sequence[Atoms], stress: bool = False) -> list[dict[str, Any]]:
        """The results for each of several structures, in batches: ``energy`` (eV), ``forces`` (A, 3) (eV/Å).

        Args:
            structures: of any sizes, molecules and periodic ones together.
            stress: also ``stress`` (6,), eV/Å³, in Voigt's order.

        Raises:
            InputError, PropertyNotImplementedError: see :meth:`calculate`.
        """
        return [result for some in _in_batches(structures) for result in self._batch_results(some, stress)]

    def _batch_results(self, structures: Sequence[Atoms], stress: bool) -> list[dict[str, Any]]:
        predicted = self._trainer.predict_batch(self._batch(structures))
        energies = (predicted["energy"].flatten() * self._factor).tolist()
        forces = (predicted["forces"] * self._factor).cpu().numpy()
        pieces = np.split(forces, np.cumsum([len(atoms) for atoms in structures])[:-1])
        results = [
            {"energy": energy, "free_energy": energy, "forces": own}
            for energy, own in zip(energies, pieces, strict=True)
        ]
        if stress:
            for result, own in zip(results, self._stresses(structures), strict=True):
                result["stress"] = own
        return results

    def _batch(self, structures: Sequence[Atoms]) -> Batch:
        """Of the same atoms as the last one, in dynamics, all but positions and cells are the last one's."""
        key = b"|".join(
            atoms.numbers.tobytes() + atoms.pbc.tobytes() + atoms.get_tags().tobytes() for atoms in structures
        )
        if self._last is None or self._last[0] != key:
            for atoms in structures:
                self._require_fitting(atoms)
            self._last = key, data_list_collater(list(map(_graph, structures)), otf_graph=True)
        batch = copy.copy(self._last[1])
        # in the precision of the model, which is not that of records
        dtype = next(self._model.parameters()).dtype
        batch.pos = torch.from_numpy(np.concatenate([atoms.positions for atoms in structures])).to(dtype)
        batch.cell = torch.from_numpy(np.stack(list(map(_cell, structures)))).to(dtype)
        return batch.to(self._trainer.device)

    def _require_fitting(self, atoms: Atoms) -> None:
        if self._elements is not None and (unknown := sorted(set(atoms.numbers.tolist()) - self._elements)):
            trained_on = ", ".join(chemical_symbols[number] for number in sorted(self._elements))
            raise InputError(
                f"{atoms.get_chemical_formula()} has {', '.join(chemical_symbols[number] for number in unknown)}; the "
                f"model was trained on {trained_on}. To go on all the same, load it with any_element=True"
            )
        if atoms.pbc.any() and not self._model.use_pbc:
            raise InputError(
                f"{atoms.get_chemical_formula()} is periodic, and the model was trained without periodic images "
                "(model.use_pbc is False): set atoms.pbc to False if it is a molecule in a box"
            )

    def _stresses(self, structures: Sequence[Atoms]) -> Iterator[np.ndarray]:
        """dE/dε / V for a symmetric strain ε of positions and cell, from one more pass."""
        if not self._gradient:
            raise PropertyNotImplementedError("the model's forces are not a gradient of its energy: it has no stress")
        for atoms in structures:
            if not atoms.pbc.all():
                raise PropertyNotImplementedError(f"{atoms.get_chemical_formula()} is not periodic: it has no stress")
        batch = self._batch(structures)
        strain = torch.zeros(len(structures), 3, 3, dtype=batch.pos.dtype, device=batch.pos.device, requires_grad=True)
        deformation = torch.eye(3, dtype=strain.dtype, device=strain.device) + 0.5 * (strain + strain.mT)
        batch.pos = torch.einsum("ni,nij->nj", batch.pos, deformation[batch.batch])
        batch.cell = batch.cell @ deformation
        (virial,) = torch.autograd.grad(self._rescaled_energy(batch), strain)
        scale = self._trainer.normalizers["energy"].rmsd.item() if "energy" in self._trainer.normalizers else 1.0
        for atoms, own in zip(structures, virial.double().cpu().numpy(), strict=True):
            yield full_3x3_to_voigt_6_stress(own * scale * self._factor / atoms.get_volume())

    def _rescaled_energy(self, batch: Batch) -> Tensor:
        """The sum of the network's energies, differentiable by positions and cells."""
        regress_forces, self._model.regress_forces = self._model.regress_forces, False
        try:
            with torch.enable_grad():
                return self._model(batch)["energy"].sum()
        finally:
            self._model.regress_forces = regress_forces


def _cell(atoms: Atoms) -> np.ndarray:
    return completed_cell(atoms.cell.array, atoms.pbc, atoms.positions)


def _graph(atoms: Atoms) -> Data:
    return set_fields(
        Data(),
        pos=atoms.positions,
        cell=_cell(atoms)[None],
        pbc=atoms.pbc[None],
        atomic_numbers=atoms.numbers,
        natoms=len(atoms),
        tags=atoms.get_tags(),
        fixed=np.zeros(len(atoms)),
    )


def _in_batches(structures: Sequence[Atoms]) -> Iterator[Sequence[Atoms]]:
    """Of as many structures as have some ``ATOMS_AT_ONCE`` together, in their order."""
    some: list[Atoms] = []
    for atoms in structures:
        if some and sum(map(len, some)) + len(atoms) > ATOMS_AT_ONCE:
            yield some
            some = []
        some.append(atoms)
    if some:
        yield some
