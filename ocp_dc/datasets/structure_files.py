"""Structures of any file or data set as ASE's atoms, with their labels in eV and eV/Å."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from torch_geometric.data import Data

from ocp_dc.datasets.ase_files import open_frames
from ocp_dc.datasets.conformations import check_conformations
from ocp_dc.datasets.lmdb import RecordFile
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.molecule_files import open_trajectory
from ocp_dc.datasets.samples import path_or_sample, sample_path
from ocp_dc.datasets.structures import ENERGY_UNIT, Structure, check_stored_positions, check_structure, completed_cell
from ocp_dc.errors import InputError
from ocp_dc.units import LENGTH_UNIT, energy_factor

# read frame by frame; other files that ASE reads are read as a whole
FRAME_BY_FRAME = (".traj", ".xyz", ".extxyz", ".db")


class Structures(Sequence[Atoms]):
    """Structures that are read, checked and labelled in eV and eV/Å when they are asked for.

    Args:
        source: that they are of, for messages.
        count: how many there are.
        read: gives one by its number, from 0, with labels in ``energy_unit`` where it has some.
        energy_unit: of :data:`ocp_dc.units.ENERGY_UNITS_IN_EV`.
    """

    def __init__(self, source: Path, count: int, read: Callable[[int], Atoms], energy_unit: str) -> None:
        self.source = source
        self.energy_unit = energy_unit
        self._count = count
        self._read = read
        self._factor = energy_factor(energy_unit, ENERGY_UNIT)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice) -> Atoms | list[Atoms]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._count))]
        # raises IndexError beyond the end
        row = range(self._count)[index]
        where = f"{self.source}: structure {row}"
        try:
            atoms = self._read(row)
            labels = _labels(atoms)
        except InputError:
            raise
        except Exception as error:  # readers of damaged files raise anything
            raise InputError(f"{where} cannot be read: {error}") from error
        _check(where, atoms, labels)
        return _labelled(atoms, {name: value * self._factor for name, value in labels.items()})


def read_structures(path: str | Path, energy_unit: str | None = None) -> Structures:
    """Structures with the labels that they have, in eV and eV/Å, on a ``SinglePointCalculator``.

    Tags and fixed atoms are kept, other constraints too where ASE reads them. Molecules have ``pbc`` False. Of the
    records of an LMDB, ``sid`` and ``fid`` are in ``info``. Structures are read when they are asked for, but for
    formats that ASE reads as a whole; conformations in an npz file are kept as arrays.

    Args:
        path: a folder of LMDBs of this package or fairchem's, or one of them (unpickled: it must be trusted); an npz
            file of MD17, rMD17 or sGDML; the word ``sample``, the embedded conformations of ethanol; or any file that
            ASE reads, with labels or without.
        energy_unit: of the labels, where nothing states it: kcal/mol is taken for npz files then, eV for all others.

    Raises:
        InputError: there is nothing there, it cannot be read or has no structures, a unit is unknown or contradicts
            what is stated; on reading a structure, one that no model can take.
    """
    path = path_or_sample(str(path), sample_path())
    if is_lmdb(path):
        return _records(path, energy_unit)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file or folder")
    if path.suffix == ".npz":
        return _conformations(path, energy_unit)
    unit = energy_unit or ENERGY_UNIT
    if path.suffix.lower() in FRAME_BY_FRAME:
        frames = open_frames(path)
        return Structures(path, frames.count, frames.read, unit)
    frames = _read_whole(path)
    return Structures(path, len(frames), frames.__getitem__, unit)


def is_lmdb(path: str | Path) -> bool:
    """Whether :func:`read_structures` takes a path for a folder of LMDBs, or for one of them."""
    return Path(path).is_dir() or Path(path).suffix == ".lmdb"


def _read_whole(path: Path) -> list[Atoms]:
    try:
        frames = ase.io.read(path, index=":", do_not_split_by_at_sign=True)
    except Exception as error:  # ASE's readers raise anything
        raise InputError(f"{path} cannot be read by ASE: {error or type(error).__name__}; convert it") from error
    if not frames:
        raise InputError(f"{path} is empty; give a file with at least one structure")
    return frames


def _unit(path: Path, stated: str | None, given: str | None, default: str) -> str:
    if stated and given not in (None, stated):
        raise InputError(f"{path} states its energies in {stated}, the given energy unit is {given}: leave it out")
    return stated or given or default


# --- LMDBs ----------------------------------------------------------------------------------------------------------


def _records(path: Path, energy_unit: str | None) -> Structures:
    files = sorted(path.glob("*.lmdb")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no LMDB there; give the folder of one split, such as {path / 'test'}")
    counts = []
    for file in files:
        with RecordFile(file) as records:
            counts.append(len(records))
    ends = list(accumulate(counts))
    if not ends[-1]:
        raise InputError(f"{path} has no records; give data with at least one structure")

    manifest = read_manifest(path)
    if manifest and manifest.length_unit != LENGTH_UNIT:
        raise InputError(f"{path} has lengths in {manifest.length_unit}, and ASE's are in Å: convert the data again")
    if manifest is None and energy_unit is None:
        logging.warning(f"{path} has no manifest: energies taken to be in {ENERGY_UNIT}, lengths in Å")

    def read(row: int) -> Atoms:
        number = bisect_right(ends, row)
        # opened each time, since a process can open a file only once
        with RecordFile(files[number]) as records:
            return _atoms_of_record(records[row - ends[number] + counts[number]])

    unit = _unit(path, manifest and manifest.energy_unit, energy_unit, ENERGY_UNIT)
    return Structures(path, ends[-1], read, unit)


def _atoms_of_record(record: Data) -> Atoms:
    pbc = np.ravel(record.pbc) if "pbc" in record else np.full(3, True)
    atoms = Atoms(
        record.atomic_numbers.long().numpy(),
        record.pos.double().numpy(),
        # the box around a molecule is none of its own
        cell=record.cell.double().numpy().reshape(3, 3) if pbc.any() else None,
        pbc=pbc,
        tags=record.tags.numpy() if "tags" in record else None,
        info={name: record[name] for name in ("sid", "fid") if name in record},
    )
    if "fixed" in record and (record.fixed != 0).any():
        atoms.set_constraint(FixAtoms(mask=record.fixed.numpy() != 0))
    energy, forces = (_first_of(record, names) for names in (("y", "energy"), ("force", "forces")))
    labels = {}
    if energy is not None:
        labels["energy"] = float(energy)
    if forces is not None:
        labels["forces"] = forces.double().numpy()
    return _labelled(atoms, labels)


def _first_of(record: Data, names: Sequence[str]) -> object:
    return next((record[name] for name in names if record.get(name) is not None), None)


# --- npz files ------------------------------------------------------------------------------------------------------


def _conformations(path: Path, energy_unit: str | None) -> Structures:
    trajectory = open_trajectory(path)
    stated = trajectory.energy_unit if trajectory.units_from == "file" else None
    blocks = []
    for block in trajectory.blocks():
        # before the next one takes memory
        check_conformations(path, block)
        blocks.append(block)

    def read(row: int) -> Atoms:
        block, offset = blocks[row // trajectory.block_rows], row % trajectory.block_rows
        atoms = Atoms(trajectory.atomic_numbers, block.positions[offset])
        return _labelled(atoms, {"energy": float(block.energies[offset]), "forces": block.forces[offset]})

    return Structures(path, trajectory.count, read, _unit(path, stated, energy_unit, trajectory.energy_unit))


# --- labels ---------------------------------------------------------------------------------------------------------


def _labels(atoms: Atoms) -> dict[str, float | np.ndarray]:
    """``energy`` and ``forces`` as they are kept with a structure, whichever there are."""
    results = atoms.calc.results if atoms.calc else {}
    return {name: np.asarray(results[name], float) for name in ("energy", "forces") if results.get(name) is not None}


def _labelled(atoms: Atoms, labels: dict[str, float | np.ndarray]) -> Atoms:
    atoms = atoms.copy()
    if labels:
        atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def _check(where: str, atoms: Atoms, labels: dict[str, np.ndarray]) -> None:
    if not len(atoms):
        raise InputError(f"{where} has no atoms; remove it")
    check_structure(
        where,
        Structure(
            atomic_numbers=atoms.numbers,
            positions=atoms.positions,
            cell=completed_cell(atoms.cell.array, atoms.pbc, atoms.positions),
            pbc=atoms.pbc,
            tags=atoms.get_tags(),
            fixed=np.zeros(len(atoms)),
            sid="",
            fid=0,
            **{"energy": np.zeros(()), "forces": np.zeros((len(atoms), 3)), **labels},
        ),
    )
    check_stored_positions(where, atoms.positions)
