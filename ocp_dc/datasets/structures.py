"""Structures of any size, composition and periodicity, and the checks they must pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.geometry import complete_cell

from ocp_dc.datasets.conformations import (
    FARTHEST,
    LARGEST_STORED,
    SMALLEST_DISTANCE,
    check_atomic_numbers,
    free_cell_edge,
    refuse_far,
)
from ocp_dc.errors import InputError
from ocp_dc.statistics import LATTICE_VECTORS

# ASE's and OCP's, which files do not state
ENERGY_UNIT = "eV"
UNITS_FROM = "convention"
PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Structure:
    """One labelled structure of A atoms.

    Attributes:
        atomic_numbers: (A,) int.
        positions: (A, 3), Å.
        cell: (3, 3), lattice vectors in rows, Å; those along which it is not periodic are not zero either.
        pbc: (3,) bool, whether it is periodic along each lattice vector.
        tags: (A,) int; OCP's are 0 below the surface, 1 at the surface, 2 of the adsorbate.
        fixed: (A,) int, 1 for atoms that were held in place.
        energy: eV.
        forces: (A, 3), eV/Å, as if no atom were fixed.
        sid, fid: names of the system and of the frame, which fairchem's predictions carry.
    """

    atomic_numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    tags: np.ndarray
    fixed: np.ndarray
    energy: float
    forces: np.ndarray
    sid: str | int
    fid: int


def completed_cell(cell: np.ndarray, pbc: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The cell (3, 3) with vectors where a non-periodic direction has none, so long that images are out of reach."""
    missing = ~cell.any(axis=1) & ~pbc
    if not missing.any():
        return cell
    return np.where(missing[:, None], free_cell_edge(positions) * complete_cell(cell), cell)


def check_structure(where: str, structure: Structure) -> None:
    """Refuses what no model can learn from.

    Args:
        where: file and frame, for the message.

    Raises:
        InputError: labels, positions or cell are not finite or of wrong shapes, an atomic number is none, the cell has
            no volume, or atoms or periodic images are closer than 0.1 Å.
    """
    natoms = len(check_atomic_numbers(where, structure.atomic_numbers))
    shapes = {"energy": (), "forces": (natoms, 3), "positions": (natoms, 3), "cell": (3, 3)}
    for name, shape in shapes.items():
        values = np.asarray(getattr(structure, name))
        if values.shape != shape:
            raise InputError(f"{where}: {name} of shape {values.shape}, where {shape} is needed; correct or remove it")
        require_finite(where, name, values)
        if (np.abs(values) > LARGEST_STORED).any():
            raise InputError(
                f"{where}: {name} beyond {LARGEST_STORED:.2g}, the largest number of float32; remove it, or check units"
            )
    _check_cell(where, structure)
    _check_distances(where, structure)


def require_finite(where: str, name: str, values: np.ndarray) -> None:
    """Raises InputError if a number is NaN or infinite."""
    if not np.isfinite(values).all():
        raise InputError(f"{where}: NaN or infinite {name}; remove it")


def check_stored_positions(where: str, positions: np.ndarray) -> None:
    """Refuses positions (A, 3), Å, as they will be stored, so far from the origin that float32 rounds them away.

    Raises:
        InputError: naming ``where``.
    """
    if (largest := np.abs(positions).max()) > FARTHEST:
        refuse_far(where, largest)


def _check_cell(where: str, structure: Structure) -> None:
    missing = structure.pbc & ~structure.cell.any(axis=1)
    if missing.any():
        raise InputError(
            f"{where} is periodic along {LATTICE_VECTORS[missing.argmax()]}, but has no such lattice vector; give it a "
            "cell, or set its pbc to False there"
        )
    volume = abs(np.linalg.det(structure.cell))
    # the distance between lattice planes is the volume over the area of the face
    faces = np.linalg.norm(np.cross(np.roll(structure.cell, -1, axis=0), np.roll(structure.cell, -2, axis=0)), axis=1)
    if not (volume > SMALLEST_DISTANCE * faces).all():
        raise InputError(
            f"{where}: the cell {structure.cell.tolist()} is flat, or thinner than {SMALLEST_DISTANCE} Angstrom; "
            "correct or remove it"
        )


def _check_distances(where: str, structure: Structure) -> None:
    fractional = structure.positions @ np.linalg.inv(structure.cell)
    at_once = max(1, PAIRS_AT_ONCE // len(fractional))
    for start in range(0, len(fractional), at_once):
        differences = fractional[start : start + at_once, None] - fractional
        # exact for images this close
        differences -= np.round(differences) * structure.pbc
        distances = np.linalg.norm(differences @ structure.cell, axis=-1)
        first = np.arange(len(distances))
        distances[first, start + first] = np.inf
        if (distances < SMALLEST_DISTANCE).any():
            one, other = np.unravel_index(distances.argmin(), distances.shape)
            raise InputError(
                f"{where}: atoms {start + one} and {other} are {distances.min():.3g} Angstrom apart, less than "
                f"{SMALLEST_DISTANCE}; remove it, or check that positions are in Angstrom"
            )
