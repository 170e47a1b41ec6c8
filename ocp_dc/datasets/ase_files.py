"""Labelled frames of ASE trajectories, extended XYZ files and ASE databases, in eV and Å, which are ASE's units."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms
from ase.db.sqlite import SQLite3Database
from ase.geometry import wrap_positions
from ase.io.trajectory import TrajectoryReader

from ocp_dc.datasets.conformations import require_file
from ocp_dc.datasets.extxyz import read_frame, split_frames
from ocp_dc.datasets.structures import (
    Structure,
    check_stored_positions,
    check_structure,
    completed_cell,
    require_finite,
)
from ocp_dc.errors import InputError

# where an SQLite file says whether changes are kept in a log beside it
WAL_BYTE = 18
SECONDS_TO_WAIT = 20


@dataclass(frozen=True)
class FrameFile:
    """A file of frames, read one by one.

    Attributes:
        path: the file.
        layout: ``ASE trajectory``, ``extxyz`` or ``ASE database``.
        count: number of frames.
        read: gives a frame by its number, from 0.
        theory: the ``method`` in the description of an ASE trajectory, else ``not stated``.
        read_values: gives what is kept beside a frame; None where that is its ``info``.
    """

    path: Path
    layout: str
    count: int
    read: Callable[[int], Atoms]
    theory: str = "not stated"
    read_values: Callable[[int], Mapping] | None = None
    _other_constraints: set[str] = field(default_factory=set)

    def structure(self, row: int, fid: int) -> Structure:
        """A frame, checked, its atoms wrapped into the cell as fairchem's own converters do.

        Its ``sid`` is the name of the file without its ending.

        Args:
            row: its number in the file.
            fid: its number in the collection.

        Raises:
            InputError: naming file and frame; see :func:`~ocp_dc.datasets.structures.check_structure`.
        """
        where = f"{self.path}: frame {row}"
        atoms = _read(where, self.read, row)
        if not len(atoms):
            raise InputError(f"{where} has no atoms; remove it")
        # ASE finds no labels where a number is not equal to itself
        require_finite(where, "positions", atoms.positions)
        require_finite(where, "cell", atoms.cell.array)
        energy, forces = _labels(where, atoms)
        structure = Structure(
            atomic_numbers=atoms.numbers,
            positions=atoms.positions,
            cell=completed_cell(atoms.cell.array, atoms.pbc, atoms.positions),
            pbc=atoms.pbc,
            tags=atoms.get_tags(),
            fixed=self._fixed(where, atoms),
            energy=energy,
            forces=forces,
            sid=self.path.stem,
            fid=fid,
        )
        check_structure(where, structure)
        positions = wrap_positions(atoms.positions, structure.cell, pbc=atoms.pbc, eps=0)
        check_stored_positions(where, positions)
        return replace(structure, positions=positions)

    def value(self, row: int, key: str) -> str:
        """What a frame's ``info``, or its row of an ASE database, has under a key.

        Raises:
            InputError: nothing, or more than a word or number.
        """
        where = f"{self.path}: frame {row}"
        values = _read(where, self.read_values, row) if self.read_values else _read(where, self.read, row).info
        if not np.isscalar(values.get(key)):
            words = [name for name, value in values.items() if np.isscalar(value)]
            raise InputError(f"{where} has no {key!r}; it has {', '.join(sorted(words)) or 'none'}")
        return str(values[key])

    def _fixed(self, where: str, atoms: Atoms) -> np.ndarray:
        fixed = np.zeros(len(atoms), np.int32)
        for constraint in atoms.constraints:
            kind = type(constraint).__name__
            if isinstance(constraint, FixAtoms):
                fixed[constraint.get_indices()] = 1
            elif kind not in self._other_constraints:
                self._other_constraints.add(kind)
                logging.warning(f"{where} has a constraint {kind}; only FixAtoms is kept, its atoms count as free")
        return fixed


def open_frames(path: str | Path) -> FrameFile:
    """Opens an ASE trajectory (``.traj``), an extended XYZ file (``.xyz``, ``.extxyz``) or an ASE database (``.db``).

    Raises:
        InputError: the file is missing, empty, damaged or of another kind.
    """
    path = Path(path)
    require_file(path)
    if path.suffix.lower() not in _OPENERS:
        raise InputError(f"{path}: only {', '.join(_OPENERS)} files of structures are read; convert it with ASE")
    try:
        frames = _OPENERS[path.suffix.lower()](path)
    except InputError:
        raise
    except Exception as error:  # readers of damaged files raise anything
        raise InputError(f"{path} cannot be read: {error}") from error
    if not frames.count:
        raise InputError(f"{path} is empty; give a file with at least one frame")
    return frames


def _open_trajectory(path: Path) -> FrameFile:
    reader = TrajectoryReader(path)
    theory = (reader.description or {}).get("method", FrameFile.theory)
    return FrameFile(path, "ASE trajectory", len(reader), reader.__getitem__, str(theory))


def _open_database(path: Path) -> FrameFile:
    _require_database(path)
    database = _ReadOnlyDatabase(str(path))
    ids = [row.id for row in database.select(columns=["id"], include_data=False)]
    return FrameFile(
        path,
        "ASE database",
        len(ids),
        lambda row: database.get_atoms(id=ids[row]),
        read_values=lambda row: database.get(id=ids[row]).key_value_pairs,
    )


class _ReadOnlyDatabase(SQLite3Database):
    """ASE's own puts its tables into any SQLite file that has none."""

    def _connect(self) -> sqlite3.Connection:
        return _connect_to_read(Path(self.filename))


def _connect_to_read(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
    with path.open("rb") as file:
        has_own_log = file.read(WAL_BYTE + 1)[WAL_BYTE:] == b"\x02"
    if has_own_log and not path.with_name(f"{path.name}-wal").exists():
        # SQLite would make a log beside the file, to read nothing from it
        uri += "&immutable=1"
    return sqlite3.connect(uri, uri=True, timeout=SECONDS_TO_WAIT)


def _require_database(path: Path) -> None:
    if not path.stat().st_size:
        raise InputError(f"{path} is empty; give a file with at least one frame")
    try:
        with closing(_connect_to_read(path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    except sqlite3.Error as error:
        raise InputError(f"{path} cannot be read as an SQLite database: {error}") from error
    if "systems" not in tables:
        raise InputError(
            f"{path} is an SQLite database, but not one of ASE: it has no table systems, but "
            f"{', '.join(sorted(tables)) or 'none'}; it was not changed"
        )


def _open_xyz(path: Path) -> FrameFile:
    offsets = [0]
    with path.open("rb") as stream:
        for _ in split_frames(path, stream, "frame"):
            offsets.append(stream.tell())

    def read(row: int) -> Atoms:
        with path.open("rb") as stream:
            stream.seek(offsets[row])
            return read_frame(stream.read(offsets[row + 1] - offsets[row]))

    return FrameFile(path, "extxyz", len(offsets) - 1, read)


def _read(where: str, read: Callable[[int], Any], row: int) -> Any:
    try:
        return read(row)
    except Exception as error:  # readers of damaged files raise anything
        raise InputError(f"{where} cannot be read: {error}") from error


def _labels(where: str, atoms: Atoms) -> tuple[float, np.ndarray]:
    try:
        return float(atoms.get_potential_energy(apply_constraint=False)), atoms.get_forces(apply_constraint=False)
    except (PropertyNotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{where} has no energy or no forces ({error}); they must be there under these names, as ASE keeps them"
        ) from error


_OPENERS = {".traj": _open_trajectory, ".xyz": _open_xyz, ".extxyz": _open_xyz, ".db": _open_database}
