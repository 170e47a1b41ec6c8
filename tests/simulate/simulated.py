"""Settings to simulate with, and a model whose dynamics is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from ocp_dc.simulate.settings import Settings


def settings(**changes) -> Settings:
    usual = {
        "ensemble": "nve",
        "temperature_K": 300.0,
        "timestep_fs": 0.5,
        "length_ps": 0.02,
        "replicas": 3,
        "every_fs": 2.0,
        "thermostat": "nose-hoover",
        "relaxation_fs": 50.0,
        "seed": 0,
    }
    return Settings(**{**usual, **changes})


class Harmonic:
    """Each atom is on a spring of its own; ``batches`` are the numbers of structures it was asked for.

    Args:
        centres: (A, 3) in Å.
        stiffness: eV/Å².
    """

    def __init__(self, centres: np.ndarray, stiffness: float = 5.0) -> None:
        self.centres = centres
        self.stiffness = stiffness
        self.batches: list[int] = []

    def evaluate(self, structures: Sequence[Atoms]) -> list[dict]:
        self.batches.append(len(structures))
        displaced = [atoms.positions - self.centres for atoms in structures]
        return [{"energy": 0.5 * self.stiffness * (d**2).sum(), "forces": -self.stiffness * d} for d in displaced]
