"""Labelled structures of any file as the graphs that trainers take, in place of an LMDB of them."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from torch.utils.data import Dataset
from torch_geometric.data import Data

from ocp_dc.datasets.graphs import set_fields
from ocp_dc.datasets.structure_files import Structures
from ocp_dc.datasets.structures import ENERGY_UNIT, completed_cell
from ocp_dc.errors import InputError
from ocp_dc.units import energy_factor


class StructureGraphs(Dataset):
    """What fairchem's dataset gives of an LMDB of these structures, with ``energy`` and ``forces`` in float64.

    Labels are in the unit of the file. ``sid`` and ``fid`` are those in ``info``, else the name of the file without its
    ending and the number of the structure.
    """

    def __init__(self, structures: Structures) -> None:
        self._structures = structures
        self._factor = energy_factor(ENERGY_UNIT, structures.energy_unit)

    def __len__(self) -> int:
        return len(self._structures)

    def __getitem__(self, index: int) -> Data:
        atoms = self._structures[index]
        labels = atoms.calc.results if atoms.calc else {}
        if missing := [name for name in ("energy", "forces") if labels.get(name) is None]:
            raise InputError(
                f"{self._structures.source}: structure {index} has no {' and no '.join(missing)}, and errors are taken "
                "against both; `ocp-dc predict` needs none"
            )
        graph = _unlabelled(atoms)
        graph.energy = torch.tensor([labels["energy"] * self._factor], dtype=torch.float64)
        graph.forces = torch.from_numpy(labels["forces"] * self._factor)
        graph.sid = atoms.info.get("sid", self._structures.source.stem)
        graph.fid = atoms.info.get("fid", index)
        return graph


def _unlabelled(atoms: Atoms) -> Data:
    fixed = np.zeros(len(atoms))
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.get_indices()] = 1
    return set_fields(
        Data(),
        pos=atoms.positions,
        cell=completed_cell(atoms.cell.array, atoms.pbc, atoms.positions)[None],
        pbc=atoms.pbc[None],
        atomic_numbers=atoms.numbers,
        natoms=len(atoms),
        tags=atoms.get_tags(),
        fixed=fixed,
    )
