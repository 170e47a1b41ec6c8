"""Extended XYZ files: split into frames as a stream, and read where they are of one molecule."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ocp_dc.datasets.conformations import (
    Conformations,
    Trajectory,
    check_atomic_numbers,
    check_size,
    resolve_energy_unit,
)
from ocp_dc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

LABELS = ("energy", "forces")
# in any of the quotes that ASE takes
PROPERTIES = re.compile(rb"""Properties["']?\s*=\s*["'{\[]?\s*([^"'\s}\]]+)""")


def open_xyz(path: Path, energy_unit: str | None) -> Trajectory:
    """See :func:`ocp_dc.datasets.molecule_files.open_trajectory`."""
    with path.open("rb") as stream:
        count = sum(1 for _ in split_frames(path, stream, "conformation"))
    if not count:
        raise InputError(f"{path} is empty; give a file with at least one conformation")
    with path.open("rb") as stream:
        first = next(_conformations(path, stream))
    check_size(path, len(first))
    unit, units_from = resolve_energy_unit(path, "", energy_unit)
    return _XyzTrajectory(
        path=path,
        layout="extxyz",
        count=count,
        atomic_numbers=check_atomic_numbers(path, first.numbers),
        molecule=path.stem,
        energy_unit=unit,
        units_from=units_from,
    )


@dataclass(frozen=True)
class _XyzTrajectory(Trajectory):
    def blocks(self) -> Iterator[Conformations]:
        with self.path.open("rb") as stream:
            conformations = _conformations(self.path, stream)
            start = 0
            while block := list(islice(conformations, self.block_rows)):
                rows = np.arange(start, start + len(block))
                for row, atoms in zip(rows, block, strict=True):
                    self._check_same_molecule(row, atoms)
                energies, forces = (np.array([atoms.calc.results[name] for atoms in block]) for name in LABELS)
                yield Conformations(rows, energies, forces, np.array([atoms.positions for atoms in block]))
                start += len(block)

    def _check_same_molecule(self, row: int, atoms: Atoms) -> None:
        if not np.array_equal(atoms.numbers, self.atomic_numbers):
            raise InputError(
                f"{self.path}: conformation {row} has other atoms than conformation 0 ({self.formula}), "
                "or lists them in another order; put each molecule in a file of its own"
            )


def split_frames(path: Path, stream: BinaryIO, noun: str) -> Iterator[list[bytes]]:
    """The lines of each frame; ``stream.tell()`` is then where the frame ends.

    Raises:
        InputError: naming ``path`` and the frame (a ``noun``, counted from 0) that does not start with its number of
            atoms or is cut short.
    """
    index = 0
    for line in iter(stream.readline, b""):
        if not line.strip():
            continue
        try:
            natoms = int(line)
        except ValueError:
            start = line.strip()[:40].decode("utf-8", "replace")
            raise InputError(f"{path}: {noun} {index} starts with {start!r}, not with its number of atoms") from None
        if natoms < 1:
            raise InputError(f"{path}: {noun} {index} has no atoms ({natoms} are announced); remove it")
        lines = [line, *islice(stream, min(natoms + 1, sys.maxsize))]
        if len(lines) < natoms + 2 or _ends_within(lines[-2:]):
            raise InputError(
                f"{path}: {noun} {index} is cut short: {natoms:,} atoms are announced; get the file again, or remove it"
            )
        yield lines
        index += 1


def _ends_within(last_lines: list[bytes]) -> bool:
    """Whether the last line is the end of a file and has fewer columns than the one before it, another atom's."""
    before, last = last_lines
    return not last.endswith(b"\n") and b"=" not in before and len(last.split()) < len(before.split())


def _require_announced_columns(lines: bytes) -> None:
    """ASE makes room for as many columns as are announced, before it looks at those that are there."""
    _, headline, atom, *_ = lines.split(b"\n", 3)
    if properties := PROPERTIES.search(headline):
        announced = sum(max(0, int(count)) for count in properties[1].split(b":")[2::3])
        if announced > len(atom.split()):
            raise ValueError(f"{announced} columns are announced, and the first atom has {len(atom.split())}")


def read_frame(lines: bytes) -> Atoms:
    """A frame as ASE reads it; what else than a frame raises any error."""
    from ase.io import read  # brings half of ase and scipy, which other files do not need

    _require_announced_columns(lines)
    try:
        return read(StringIO(lines.decode("utf-8", "replace")), format="extxyz")
    except KeyError as error:
        raise ValueError(f"there is no element {error}") from None


def _conformations(path: Path, stream: BinaryIO) -> Iterator[Atoms]:
    for index, lines in enumerate(split_frames(path, stream, "conformation")):
        try:
            atoms = read_frame(b"".join(lines))
            _require_labelled_molecule(atoms)
        except Exception as error:  # readers of damaged files raise anything
            raise InputError(f"{path}: conformation {index} cannot be read: {error}") from error
        yield atoms


def _require_labelled_molecule(atoms: Atoms) -> None:
    labels = atoms.calc.results if atoms.calc else {}
    if missing := [name for name in LABELS if name not in labels]:
        raise ValueError(
            f"it needs energy=... and the columns species, pos and forces; {', '.join(missing)} is missing"
        )
    if labels["forces"].shape != (len(atoms), 3) or np.asarray(labels["energy"]).dtype.kind not in "if":
        raise ValueError("energy must be a number, and forces have three columns")
    if atoms.pbc.any():
        raise ValueError('it is periodic, and only molecules are converted; write pbc="F F F" if it is one')
