"""Stand-ins for GFN2-xTB and DFT: a water molecule of springs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes

from ocp_dc.errors import InputError

LENGTHS = molecule("H2O").get_all_distances()


def spring_energy_and_forces(positions: np.ndarray, stiffness: float) -> tuple[float, np.ndarray]:
    """E = stiffness / 2 Σ_{i<j} (|r_i - r_j| - d_ij)², d the distances in ASE's water."""
    vectors = positions[:, None] - positions[None]
    distances = np.linalg.norm(vectors, axis=-1)
    stretch = distances - LENGTHS
    directions = vectors / np.where(distances == 0, 1, distances)[..., None]
    return stiffness / 4 * (stretch**2).sum(), -stiffness * (stretch[..., None] * directions).sum(1)


class SpringCalculator(Calculator):
    """Of the dynamics."""

    implemented_properties = ("energy", "forces")
    stiffness = 40.0  # eV/Å²

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = spring_energy_and_forces(atoms.positions, self.stiffness)
        self.results = {"energy": energy, "forces": forces}


@dataclass(frozen=True)
class SpringLabels:
    """Labels in kcal/mol; ``stiffness`` stands for a functional."""

    charge: int = 0
    spin: int = 0
    stiffness: float = 500.0
    kind: ClassVar = "springs"
    method: ClassVar = "springs"
    block_frames: ClassVar = 2

    def __call__(self, numbers, positions):
        return spring_energy_and_forces(positions, self.stiffness)

    def atom_energy(self, number):
        return -100.0 * number


@dataclass(frozen=True)
class UnconvergedLabels(SpringLabels):
    """Of the starting structure only."""

    def __call__(self, numbers, positions):
        if not np.array_equal(positions, molecule("H2O").positions):
            raise InputError("the SCF did not converge")
        return super().__call__(numbers, positions)


class CountedLabels(SpringLabels):
    """Killed, as by Ctrl-C, after so many labels; the first is that of the starting structure."""

    calls = 0
    last = 10**9

    def __call__(self, numbers, positions):
        type(self).calls += 1
        if self.calls > self.last:
            raise KeyboardInterrupt
        return super().__call__(numbers, positions)
