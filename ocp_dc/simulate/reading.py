"""Finished or growing simulations, and the structures that they are compared with, as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from ocp_dc.errors import InputError
from ocp_dc.simulate.dynamics import degrees_of_freedom, temperature
from ocp_dc.simulate.folder import DESCRIPTION, STATE, read_json, trajectory_path
from ocp_dc.simulate.settings import FS_PER_PS, Settings


@dataclass(frozen=True)
class Trajectory:
    """The frames of a replica.

    Attributes:
        first: the first frame.
        times: (T,) in ps.
        positions: (T, A, 3) in Å.
        energies: (T,) total energies in eV, potential and kinetic.
        temperatures: (T,) in K.
        ended_ps: when it broke; None where it did not.
        reason: for that.
    """

    first: Atoms
    times: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    temperatures: np.ndarray
    ended_ps: float | None
    reason: str | None


@dataclass(frozen=True)
class Simulation:
    """What a folder holds, up to its state.

    Attributes:
        name: of the folder, or as it is to be called.
        settings: that it was asked for.
        description: ``simulation.json``.
        done_ps: how far it is.
        steps_per_second: of all replicas together, one step of each counting as one; None where it has made none.
    """

    name: str
    folder: Path
    settings: Settings
    description: dict[str, Any]
    done_ps: float
    steps_per_second: float | None
    trajectories: tuple[Trajectory, ...]

    @property
    def conditions(self) -> str:
        """For people."""
        settings = self.settings
        return f"{settings.ensemble.upper()}, {settings.temperature_K:g} K, {settings.timestep_fs:g} fs"


def read_simulation(folder: Path, name: str | None = None) -> Simulation:
    """A simulation, however far it is.

    Raises:
        InputError: there is none, or it is damaged.
    """
    description, state = read_json(folder / DESCRIPTION), read_json(folder / STATE)
    if description is None or state is None:
        raise InputError(f"{folder} has no simulation; give the --out of `ocp-dc simulate`")
    try:
        known = {**description["identity"], **description}
        settings = Settings(**{field: known[field] for field in Settings.__dataclass_fields__})
        step, seconds, replicas = state["step"], state["seconds"], state["replicas"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder} is of another version: {error} is missing; simulate again") from error
    trajectories = tuple(
        _read_trajectory(trajectory_path(folder, number), settings, step, replica["ended"])
        for number, replica in enumerate(replicas)
    )
    rate = step / seconds if step else None
    done = settings.time_fs(step) / FS_PER_PS
    return Simulation(name or folder.name, folder, settings, description, done, rate, trajectories)


def _read_trajectory(path: Path, settings: Settings, step: int, ended: dict[str, Any] | None) -> Trajectory:
    try:
        frames = [frame for frame in ase.io.iread(path, index=":", format="extxyz") if frame.info["step"] <= step]
    except Exception as error:  # ASE's readers raise anything
        raise InputError(f"{path} cannot be read: {error!r}; simulate again") from error
    freedom = degrees_of_freedom(frames[0], settings)
    return Trajectory(
        first=frames[0],
        times=np.array([frame.info["time_fs"] for frame in frames]) / FS_PER_PS,
        positions=np.array([frame.positions for frame in frames]),
        energies=np.array([frame.get_total_energy() for frame in frames]),
        temperatures=np.array([temperature(frame, freedom) for frame in frames]),
        ended_ps=ended["time_fs"] / FS_PER_PS if ended else None,
        reason=ended["reason"] if ended else None,
    )


class Reference:
    """Structures of the data, by what atoms they have.

    Args:
        name: of the data.
        structures: with labels or without.
    """

    def __init__(self, name: str, structures: Iterable[Atoms]) -> None:
        self.name = name
        self._of_atoms: dict[tuple[int, ...], list[np.ndarray]] = {}
        for atoms in structures:
            self._of_atoms.setdefault(tuple(atoms.numbers.tolist()), []).append(atoms.positions)

    def positions(self, atoms: Atoms) -> np.ndarray:
        """(T, A, 3), of the same atoms in the same order.

        Raises:
            InputError: there are none.
        """
        found = self._of_atoms.get(tuple(atoms.numbers.tolist()))
        if not found:
            formula = atoms.get_chemical_formula()
            raise InputError(f"{self.name} has no {formula} with its atoms in the order of the simulation's")
        return np.array(found)
