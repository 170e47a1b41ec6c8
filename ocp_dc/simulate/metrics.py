"""What molecular dynamics is judged by, as functions of arrays.

Definitions are those of Fu et al., "Forces are not Enough: Benchmark and Critical Evaluation for Machine Learning Force
Fields with Molecular Simulations" (TMLR 2023), but for the drift of the energy. T frames of A atoms; Å, ps, eV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import NeighborList, natural_cutoffs

# a bond that is so far from its mean length, in Å, is broken
BROKEN = 0.5
# of h(r)
FARTHEST = 10.0
BINS = 500
# of which distances are held at a time
DISTANCES_AT_ONCE = 10_000_000


def bonds_of(atoms: Atoms) -> np.ndarray:
    """Pairs (B, 2) of atoms that are bonded: closer than their covalent radii and 0.6 Å, ASE's default, together."""
    neighbors = NeighborList(natural_cutoffs(atoms), self_interaction=False, bothways=False)
    neighbors.update(atoms)
    pairs = [(first, int(second)) for first in range(len(atoms)) for second in neighbors.get_neighbors(first)[0]]
    return np.array(pairs, int).reshape(-1, 2)


def bond_lengths(positions: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """(T, B) of positions (T, A, 3)."""
    return np.linalg.norm(positions[:, bonds[:, 0]] - positions[:, bonds[:, 1]], axis=-1)


def first_broken(positions: np.ndarray, bonds: np.ndarray, mean_lengths: np.ndarray) -> int | None:
    """The first frame in which a bond is more than 0.5 Å from its mean length; None where there is none.

    Args:
        positions: (T, A, 3).
        bonds: (B, 2).
        mean_lengths: (B,), of a reference.
    """
    broken = (np.abs(bond_lengths(positions, bonds) - mean_lengths) > BROKEN).any(axis=1)
    return int(broken.argmax()) if broken.any() else None


def distance_distribution(positions: np.ndarray) -> np.ndarray:
    """h(r) in 1/Å, in 500 bins to 10 Å: the density of distances between atoms, of all pairs and frames (T, A, 3)."""
    edges = np.linspace(0, FARTHEST, BINS + 1)
    first, second = np.triu_indices(positions.shape[1], 1)
    counts = np.zeros(BINS)
    frames_at_once = max(1, DISTANCES_AT_ONCE // len(first))
    for start in range(0, len(positions), frames_at_once):
        some = positions[start : start + frames_at_once]
        counts += np.histogram(np.linalg.norm(some[:, first] - some[:, second], axis=-1), edges)[0]
    return counts / (len(positions) * len(first) * (FARTHEST / BINS))


def distribution_error(distribution: np.ndarray, reference: np.ndarray) -> float:
    """∫ |h − h_ref| dr to 10 Å, between 0 and 2."""
    return float(np.abs(distribution - reference).mean() * FARTHEST)


@dataclass(frozen=True)
class Drift:
    """A straight line through the total energy.

    Attributes:
        slope: meV/atom/ps.
        residual: root mean square of what the line leaves, meV/atom.
    """

    slope: float
    residual: float


def energy_drift(times: np.ndarray, energies: np.ndarray, atoms: int) -> Drift | None:
    """By least squares; None of fewer than three frames.

    Args:
        times: (T,) in ps.
        energies: (T,) total energies, in eV.
        atoms: their number.
    """
    if len(times) < 3:
        return None
    each = 1000 * (energies - energies.mean()) / atoms
    centred = times - times.mean()
    slope = float(centred @ each / (centred @ centred))
    return Drift(slope, float(np.sqrt(np.mean((each - slope * centred) ** 2))))


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """The mean, and the sample's standard deviation, None of one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
