"""Conformations of one molecule as they stand in a file: a stream of blocks, and the checks they must pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from ocp_dc.errors import InputError
from ocp_dc.statistics import LabelAccumulator
from ocp_dc.units import ENERGY_UNITS_IN_EV, MD17_ENERGY_UNIT

MAX_ATOMIC_NUMBER = 118
SMALLEST_DISTANCE = 0.1
# positions, forces and cells are stored, and all is computed, in float32
LARGEST_STORED = float(np.finfo(np.float32).max)
# farther from the origin, Angstrom, float32 keeps positions no better than to 0.001 Angstrom
FARTHEST = 0.001 / float(np.finfo(np.float32).eps)
# the distances of all pairs in a conformation are looked at at once
MAX_ATOMS = 5_000
MINIMUM_CELL_EDGE = 100.0
IMAGE_CLEARANCE = 50.0
BLOCK_ROWS = 1024
# bounds the pair distances of a block, whatever the size of the molecule
BLOCK_PAIRS = 1 << 18

_ENERGY_UNIT_SPELLINGS = {name.lower(): name for name in ENERGY_UNITS_IN_EV} | {
    "kcal mol-1": "kcal/mol",
    "kcal/mole": "kcal/mol",
    "ha": "Hartree",
}


@dataclass(frozen=True)
class Conformations:
    """Some conformations of one molecule of A atoms.

    Attributes:
        rows: (b,) their numbers in the file, from 0.
        energies: (b,) float64.
        forces: (b, A, 3) float64.
        positions: (b, A, 3) float64, Angstrom.
    """

    rows: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, selection: slice | np.ndarray) -> Conformations:
        return Conformations(*(values[selection] for values in vars(self).values()))


@dataclass(frozen=True)
class Trajectory:
    """A file of conformations of one molecule, read block by block.

    Attributes:
        path: the file.
        layout: ``MD17`` (sGDML's too), ``rMD17`` or ``extxyz``.
        count: number of conformations, N.
        atomic_numbers: (A,) int64.
        molecule: its name as the file states it, else the file's name.
        energy_unit: one of ``ENERGY_UNITS_IN_EV``.
        units_from: ``file``, ``option`` or ``assumed``.
        theory: as the file states it, else ``not stated``.
        interval_fs: from one conformation to the next; None where the file does not state it, as with the next.
        autocorrelation_fs: integrated autocorrelation time of the energies.
    """

    path: Path
    layout: str
    count: int
    atomic_numbers: np.ndarray
    molecule: str
    energy_unit: str
    units_from: str
    theory: str = "not stated"
    interval_fs: float | None = None
    autocorrelation_fs: float | None = None

    @property
    def formula(self) -> str:
        """The composition in Hill order, such as C2H6O."""
        return formula_of(self.atomic_numbers)

    @property
    def block_rows(self) -> int:
        """Conformations in a block, so that a block's memory is bounded."""
        return min(BLOCK_ROWS, max(1, BLOCK_PAIRS // len(self.atomic_numbers) ** 2))

    def blocks(self) -> Iterator[Conformations]:
        """All conformations in order, unchecked; memory does not grow with their number.

        Raises:
            InputError: the file is damaged.
        """
        raise NotImplementedError


def require_file(path: Path) -> None:
    """Raises InputError if there is no file, but a folder or nothing."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")


def formula_of(atomic_numbers: Iterable[int]) -> str:
    """The composition in Hill order, such as C2H6O."""
    counts = Counter(chemical_symbols[number] for number in atomic_numbers)
    return Formula.from_dict(counts).format("hill")


def check_conformations(path: Path, conformations: Conformations) -> None:
    """Refuses labels and positions that float32 cannot hold, and atoms closer than 0.1 Angstrom.

    Raises:
        InputError: naming the first such conformation, counted from 0.
    """
    for name in ("energies", "forces", "positions"):
        values = getattr(conformations, name)
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if not finite.all():
            row = conformations.rows[finite.argmin()]
            raise InputError(f"{path}: conformation {row} has NaN or infinite {name}; remove it from the file")
        storable = (np.abs(values) <= LARGEST_STORED).all(axis=tuple(range(1, values.ndim)))
        if not storable.all():
            row = conformations.rows[storable.argmin()]
            raise InputError(
                f"{path}: conformation {row} has {name} beyond {LARGEST_STORED:.2g}, the largest number of float32; "
                "remove it from the file, or check its units"
            )
    largest = np.abs(conformations.positions).max(axis=(1, 2))
    if (largest > FARTHEST).any():
        offset = (largest > FARTHEST).argmax()
        refuse_far(f"{path}: conformation {conformations.rows[offset]}", largest[offset])
    first, second = np.triu_indices(conformations.positions.shape[1], k=1)
    distances = np.linalg.norm(conformations.positions[:, first] - conformations.positions[:, second], axis=-1)
    too_close = np.argwhere(distances < SMALLEST_DISTANCE)
    if len(too_close):
        offset, pair = too_close[0]
        raise InputError(
            f"{path}: in conformation {conformations.rows[offset]}, atoms {first[pair]} and {second[pair]} are "
            f"{distances[offset, pair]:.3g} Angstrom apart, less than {SMALLEST_DISTANCE}; "
            "remove it from the file, or check that positions are in Angstrom"
        )


def refuse_far(where: str, distance: float) -> NoReturn:
    """Raises InputError: atoms are so far from the origin, in Å, that float32 does not keep them apart."""
    raise InputError(
        f"{where} has an atom {distance:.6g} Angstrom from the origin, where positions in float32 are "
        f"{np.spacing(np.float32(distance)):.2g} Angstrom apart; move the atoms to the origin, or remove it"
    )


def require_some_forces(path: Path | str, labels: Sequence[LabelAccumulator], natoms: int) -> None:
    """Raises InputError if all forces are exactly 0 in several conformations of several atoms: they are no labels."""
    if natoms > 1 and sum(each.count for each in labels) > 1 and not any(each.max_abs_force for each in labels):
        raise InputError(f"{path}: all forces are 0, so there is nothing to learn from; check that they are there")


def check_size(path: Path, natoms: int) -> None:
    """Raises InputError if a molecule has more atoms than can be looked at."""
    if natoms > MAX_ATOMS:
        raise InputError(f"{path} has {natoms:,} atoms in a conformation; molecules of up to {MAX_ATOMS:,} are taken")


def require_integers(path: Path, shape: tuple[int, ...], kind: np.dtype) -> None:
    """Raises InputError if an array of this shape and type cannot be atomic numbers."""
    if len(shape) != 1 or not shape[0] or kind.kind not in "iu":
        raise InputError(
            f"{path}: the atomic numbers are {kind} of shape {shape}; "
            "one row of integers for all conformations is needed"
        )


def check_atomic_numbers(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Atomic numbers (A,) as int64.

    Raises:
        InputError: they are not one row of integers from 1 to 118.
    """
    require_integers(path, numbers.shape, numbers.dtype)
    wrong = (numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)
    if wrong.any():
        atom = wrong.argmax()
        raise InputError(
            f"{path}: atom {atom} has the atomic number {numbers[atom]}, which is not from 1 to {MAX_ATOMIC_NUMBER}"
        )
    return numbers.astype(np.int64)


def resolve_energy_unit(path: Path, stated: str, option: str | None) -> tuple[str, str]:
    """The energy unit, and where it is from: ``file``, ``option`` or ``assumed`` (kcal/mol, MD17's).

    Args:
        path: the file, for messages.
        stated: what the file says; empty or ``unknown`` if it does not.
        option: what the user says.

    Raises:
        InputError: a unit is unknown, or the two contradict each other.
    """
    in_file = None if stated.strip().lower() in ("", "unknown") else _known_unit(f"{path}: e_unit is", stated)
    given = None if option is None else _known_unit("--units", option)
    if in_file is None:
        return (MD17_ENERGY_UNIT, "assumed") if given is None else (given, "option")
    if given not in (None, in_file):
        raise InputError(f"{path} states its energies in {in_file}, --units says {given}; leave --units out")
    return in_file, "file"


def _known_unit(where: str, unit: str) -> str:
    try:
        return _ENERGY_UNIT_SPELLINGS[unit.strip().lower()]
    except KeyError:
        known = ", ".join(ENERGY_UNITS_IN_EV)
        raise InputError(f"{where} {unit!r}, which is not one of {known}; convert the labels to one of them") from None


def free_cell_edge(positions: np.ndarray) -> np.ndarray:
    """Edges (...), Å, of cubes in which the periodic images of atoms at (..., A, 3) are at least 50 Å apart."""
    return np.maximum(MINIMUM_CELL_EDGE, np.ptp(positions, axis=-2).max(axis=-1) + IMAGE_CLEARANCE)
