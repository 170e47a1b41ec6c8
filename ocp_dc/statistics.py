"""What a set of labelled structures looks like in numbers: its energies, forces and atoms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ocp_dc.rescaling import rescaling_constant

LATTICE_VECTORS = "abc"


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of energies and forces, in float64 and the units of the source.

    Attributes:
        energy_min, energy_max, energy_mean, energy_std: over conformations; the standard deviation divides by their
            number.
        max_abs_force, mean_abs_force: over the x, y and z components of all forces.
        max_abs_label: the largest absolute label, over energies and force components together.
        rescaling_constant: C of Eq. 4 for ``max_abs_label``.
    """

    energy_min: float
    energy_max: float
    energy_mean: float
    energy_std: float
    max_abs_force: float
    mean_abs_force: float
    max_abs_label: float
    rescaling_constant: float


class LabelAccumulator:
    """Collects :class:`LabelStatistics` block by block, in memory that does not grow."""

    def __init__(self) -> None:
        self.count = 0
        self._origin = 0.0
        self._sum = self._sum_of_squares = 0.0
        self._energy_min, self._energy_max = np.inf, -np.inf
        self._components = 0
        self._force_sum = self._force_max = 0.0

    def add(self, energies: np.ndarray, forces: np.ndarray) -> None:
        """Takes energies (b,) and all forces of these b conformations, of any shape, float64."""
        if not len(energies):
            return
        if not self.count:
            # total energies are large beside their spread: squares of deviations keep the digits that squares lose
            self._origin = float(energies[0])
        deviations = energies - self._origin
        magnitudes = np.abs(forces)
        self.count += len(energies)
        self._sum += deviations.sum()
        self._sum_of_squares += (deviations**2).sum()
        self._energy_min = min(self._energy_min, energies.min())
        self._energy_max = max(self._energy_max, energies.max())
        self._components += magnitudes.size
        self._force_sum += magnitudes.sum()
        self._force_max = max(self._force_max, magnitudes.max())

    @property
    def max_abs_force(self) -> float:
        """The largest component so far; 0 before the first."""
        return float(self._force_max)

    def merge(self, other: LabelAccumulator) -> None:
        """Takes what another one has collected."""
        if not self.count:
            self._origin = other._origin
        shift = other._origin - self._origin
        self._sum_of_squares += other._sum_of_squares + 2 * shift * other._sum + other.count * shift**2
        self._sum += other._sum + other.count * shift
        self.count += other.count
        self._energy_min = min(self._energy_min, other._energy_min)
        self._energy_max = max(self._energy_max, other._energy_max)
        self._components += other._components
        self._force_sum += other._force_sum
        self._force_max = max(self._force_max, other._force_max)

    def statistics(self) -> LabelStatistics:
        """Of all that has been added, which must be something."""
        mean_deviation = self._sum / self.count
        variance = max(self._sum_of_squares / self.count - mean_deviation**2, 0.0)
        max_abs_label = float(max(abs(self._energy_min), abs(self._energy_max), self._force_max))
        return LabelStatistics(
            energy_min=float(self._energy_min),
            energy_max=float(self._energy_max),
            energy_mean=float(self._origin + mean_deviation),
            energy_std=float(variance**0.5),
            max_abs_force=float(self._force_max),
            mean_abs_force=float(self._force_sum / self._components),
            max_abs_label=max_abs_label,
            rescaling_constant=rescaling_constant(max_abs_label),
        )

    def to_dict(self) -> dict:
        """What has been collected, for JSON."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, state: dict) -> LabelAccumulator:
        """One that has collected what :meth:`to_dict` says."""
        accumulator = cls()
        vars(accumulator).update(state)
        return accumulator


@dataclass(frozen=True)
class AtomStatistics:
    """What structures consist of.

    Attributes:
        elements: atomic numbers that occur, ascending.
        natoms_min, natoms_max: atoms in the smallest and the largest structure.
        atoms, fixed_atoms: in all structures together.
        periodic_along: number of structures by the lattice vectors along which they are periodic: ``abc``, ``ab``,
            ``none`` and so on.
    """

    elements: list[int]
    natoms_min: int
    natoms_max: int
    atoms: int
    fixed_atoms: int
    periodic_along: dict[str, int]


class AtomAccumulator:
    """Collects :class:`AtomStatistics` structure by structure."""

    def __init__(self) -> None:
        self._elements: set[int] = set()
        self._sizes: Counter[int] = Counter()
        self._fixed_atoms = 0
        self._periodic_along: Counter[str] = Counter()

    def add(self, atomic_numbers: np.ndarray, fixed: np.ndarray, pbc: np.ndarray) -> None:
        """Takes a structure: atomic numbers (A,), 1 for fixed atoms (A,), periodic along each lattice vector (3,)."""
        self._elements.update(np.unique(atomic_numbers).tolist())
        self._sizes[len(atomic_numbers)] += 1
        self._fixed_atoms += int(np.count_nonzero(fixed))
        letters = "".join(letter for letter, periodic in zip(LATTICE_VECTORS, pbc, strict=True) if periodic)
        self._periodic_along[letters or "none"] += 1

    def merge(self, other: AtomAccumulator) -> None:
        """Takes what another one has collected."""
        self._elements |= other._elements
        self._sizes += other._sizes
        self._fixed_atoms += other._fixed_atoms
        self._periodic_along += other._periodic_along

    def statistics(self) -> AtomStatistics:
        """Of all that has been added, which must be something."""
        return AtomStatistics(
            elements=sorted(self._elements),
            natoms_min=min(self._sizes),
            natoms_max=max(self._sizes),
            atoms=sum(size * count for size, count in self._sizes.items()),
            fixed_atoms=self._fixed_atoms,
            periodic_along=dict(sorted(self._periodic_along.items())),
        )

    def to_dict(self) -> dict:
        """What has been collected, for JSON."""
        return {**vars(self), "_elements": sorted(self._elements), "_sizes": sorted(self._sizes.items())}

    @classmethod
    def from_dict(cls, state: dict) -> AtomAccumulator:
        """One that has collected what :meth:`to_dict` says."""
        accumulator = cls()
        accumulator._elements = set(state["_elements"])
        accumulator._sizes = Counter(dict(state["_sizes"]))
        accumulator._fixed_atoms = state["_fixed_atoms"]
        accumulator._periodic_along = Counter(state["_periodic_along"])
        return accumulator
