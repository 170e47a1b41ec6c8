"""The folder of a simulation: what was asked for, how far it is, and its trajectories.

``simulation.json`` has the settings, ``state.json`` all that the next step needs, and ``replica_0.extxyz`` and so on
the frames. A trajectory may have frames after those of the state, and none that are cut: it is shortened to them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.extxyz import write_xyz

from ocp_dc.errors import InputError
from ocp_dc.files import replace_text, told_where
from ocp_dc.locks import file_lock
from ocp_dc.simulate.dynamics import fixed_atoms

DESCRIPTION = "simulation.json"
STATE = "state.json"
LOCK = "lock"
UNITS = {
    "energy": "eV",
    "forces": "eV/Å",
    "positions": "Å",
    "momenta": "sqrt(u eV), ASE's",
    "time": "fs",
    "temperature": "K",
}


def trajectory_path(folder: Path, replica: int) -> Path:
    """Of a replica, counted from 0."""
    return folder / f"replica_{replica}.extxyz"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made if missing.

    Raises:
        InputError: one is in it.
    """
    with file_lock(folder / LOCK, wait=False) as lock:
        if lock is None:
            raise InputError(f"{folder} is being written by another process; wait, or choose another --out")
        yield


def read_json(path: Path) -> dict[str, Any] | None:
    """A file's content, None where there is none.

    Raises:
        InputError: it is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); remove {path.parent} and start again") from error


def claim(folder: Path, description: dict[str, Any]) -> dict[str, Any] | None:
    """Writes ``simulation.json`` of a simulation that is to be in a folder.

    Args:
        description: with ``identity``, which must be that of a simulation that is there already.

    Returns:
        The state to go on from; None at the start.

    Raises:
        InputError: another simulation is there.
    """
    earlier = read_json(folder / DESCRIPTION)
    if earlier is not None:
        for name, value in description["identity"].items():
            known = earlier["identity"].get(name)
            if known != value:
                raise InputError(f"{folder} has a simulation with {name} {known}, not {value}; choose another --out")
    state = read_json(folder / STATE)
    replace_text(folder / DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False) + "\n")
    return state


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """All of it or nothing."""
    replace_text(folder / STATE, json.dumps(state))


class TrajectoryWriter:
    """Appends frames to the file of a replica.

    Args:
        path: the file.
        size: of the part to keep, in bytes; 0 to begin.

    Raises:
        InputError: the file is shorter.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._file = path.open("r+" if size else "w", encoding="utf-8")
        if os.fstat(self._file.fileno()).st_size < size:
            raise InputError(f"{path} has been cut since it was written; remove {path.parent} and start again")
        self._file.truncate(size)
        self._file.seek(0, os.SEEK_END)

    def write(self, atoms: Atoms, energy: float, forces: np.ndarray, step: int, time_fs: float) -> None:
        """A frame: positions, momenta, energy (eV), forces (eV/Å), fixed atoms, step and time."""
        frame = atoms.copy()
        frame.info = {"step": step, "time_fs": time_fs}
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        with told_where(self._path):
            write_xyz(self._file, [frame])

    def size(self) -> int:
        """In bytes; they are then on the disk."""
        with told_where(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        with told_where(self._path):
            self._file.close()


def atoms_to_json(atoms: Atoms) -> dict[str, Any]:
    """All of them but calculator and other constraints than fixed atoms, to the last bit."""
    return {
        "numbers": atoms.numbers.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "tags": atoms.get_tags().tolist() if atoms.has("tags") else None,
        "fixed": fixed_atoms(atoms).tolist(),
        "positions": atoms.positions.tolist(),
        "momenta": atoms.get_momenta().tolist(),
    }


def atoms_from_json(record: dict[str, Any]) -> Atoms:
    """Undoes :func:`atoms_to_json`."""
    atoms = Atoms(record["numbers"], record["positions"], cell=record["cell"], pbc=record["pbc"], tags=record["tags"])
    atoms.set_momenta(np.array(record["momenta"]))
    if record["fixed"]:
        atoms.set_constraint(FixAtoms(record["fixed"]))
    return atoms
