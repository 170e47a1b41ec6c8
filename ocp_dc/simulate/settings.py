"""What a simulation is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ocp_dc.errors import InputError

ENSEMBLES = ("nve", "nvt")
THERMOSTATS = ("nose-hoover", "langevin")
FS_PER_PS = 1000


@dataclass(frozen=True)
class Settings:
    """Of a simulation; its numbers are checked when it is made.

    Attributes:
        ensemble: ``nve`` (velocity Verlet) or ``nvt`` (with a thermostat).
        temperature_K: of the momenta at the start, and of the thermostat.
        timestep_fs: of the integrator.
        length_ps: of each trajectory; a whole number of ``every_fs``.
        replicas: how many trajectories.
        every_fs: between frames of a trajectory; a whole number of time steps.
        thermostat: ``nose-hoover`` (a chain of three) or ``langevin``; of no meaning for ``nve``.
        relaxation_fs: the chain's characteristic time, or one over Langevin's friction.
        seed: of the frames that are started from, momenta and noise.

    Raises:
        InputError: a number that makes no simulation.
    """

    ensemble: str
    temperature_K: float
    timestep_fs: float
    length_ps: float
    replicas: int
    every_fs: float
    thermostat: str
    relaxation_fs: float
    seed: int

    def __post_init__(self) -> None:
        for name, unit in (
            ("temperature_K", "K"),
            ("timestep_fs", "fs"),
            ("length_ps", "ps"),
            ("every_fs", "fs"),
            ("relaxation_fs", "fs"),
        ):
            if not 0 < getattr(self, name) < math.inf:
                option = name.rpartition("_")[0].replace("relaxation", "relaxation-time")
                raise InputError(f"--{option} {getattr(self, name):g} {unit}: it must be positive")
        if self.replicas < 1:
            raise InputError(f"--replicas {self.replicas}: at least one is needed")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: it must not be negative")
        _require_multiple("every", self.every_fs, self.timestep_fs, f"the time step, {self.timestep_fs:g} fs", "fs")
        _require_multiple(
            "length", self.length_ps, self.every_fs / FS_PER_PS, f"--every, {self.every_fs / FS_PER_PS:g} ps", "ps"
        )

    @property
    def steps_per_frame(self) -> int:
        return round(self.every_fs / self.timestep_fs)

    @property
    def steps(self) -> int:
        return round(self.length_ps * FS_PER_PS / self.every_fs) * self.steps_per_frame

    def time_fs(self, step: int) -> float:
        return step * self.timestep_fs


def _require_multiple(option: str, value: float, part: float, name: str, unit: str) -> None:
    count = value / part
    if round(count) < 1 or abs(count - round(count)) > 1e-6 * count:
        nearest = max(1, round(count)) * part
        raise InputError(f"--{option} {value:g} {unit} is no whole number of {name}: give {nearest:g}")
