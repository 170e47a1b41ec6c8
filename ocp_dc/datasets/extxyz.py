"""Extended XYZ files: split into frames as a stream, and read where they are of one molecule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from ase.data import atomic_numbers

from ocp_dc.datasets.conformations import Conformations, Trajectory, check_atomic_numbers, resolve_energy_unit
from ocp_dc.errors import InputError

NUMBER_OF_SYMBOL = {symbol.encode("ascii"): number for symbol, number in atomic_numbers.items()}


def open_xyz(path: Path, energy_unit: str | None) -> Trajectory:
    """See :func:`ocp_dc.datasets.molecule_files.open_trajectory`."""
    with path.open("rb") as stream:
        count = sum(1 for _ in split_frames(path, stream, "conformation"))
    if not count:
        raise InputError(f"{path} is empty; give a file with at least one conformation")
    with path.open("rb") as stream:
        first = next(_frames(path, stream))
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
            frames = _frames(self.path, stream)
            start = 0
            while block := list(islice(frames, self.block_rows)):
                rows = np.arange(start, start + len(block))
                for row, frame in zip(rows, block, strict=True):
                    self._check_same_molecule(row, frame)
                _, energies, forces, positions = map(np.array, zip(*block, strict=True))
                yield Conformations(rows, energies, forces, positions)
                start += len(block)

    def _check_same_molecule(self, row: int, frame: _Frame) -> None:
        if not np.array_equal(frame.numbers, self.atomic_numbers):
            raise InputError(
                f"{self.path}: conformation {row} has other atoms than conformation 0 ({self.formula}), "
                "or lists them in another order; put each molecule in a file of its own"
            )


class _Frame(NamedTuple):
    numbers: np.ndarray
    energy: float
    forces: np.ndarray
    positions: np.ndarray


def split_frames(path: Path, stream: BinaryIO, noun: str) -> Iterator[list[bytes]]:
    """The lines of each frame, its comment first; ``stream.tell()`` is then where the frame ends.

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
        lines = list(islice(stream, natoms + 1)) if natoms > 0 else []
        if len(lines) < natoms + 1:
            raise InputError(f"{path}: {noun} {index} is cut short or has no atoms; {natoms} were announced")
        yield lines
        index += 1


def _frames(path: Path, stream: BinaryIO) -> Iterator[_Frame]:
    for index, (comment, *atoms) in enumerate(split_frames(path, stream, "conformation")):
        try:
            yield _parse_frame(comment.decode("utf-8", "replace"), atoms)
        except (ValueError, TypeError, IndexError) as error:
            raise InputError(f"{path}: conformation {index} cannot be read: {error}") from error


def _parse_frame(comment: str, atoms: Sequence[bytes]) -> _Frame:
    from ase.io.extxyz import key_val_str_to_dict  # brings half of ase and scipy, which other files do not need

    info = key_val_str_to_dict(comment)
    columns = _columns(str(info.get("Properties", "species:S:1:pos:R:3")))
    missing = [name for name in ("species", "pos", "forces") if name not in columns]
    if "energy" not in info or missing:
        raise ValueError("it needs energy=... and the columns species, pos and forces, under these names")
    if np.any(info.get("pbc", "Lattice" in info)):
        raise ValueError('it is periodic, and only molecules are converted; write pbc="F F F" if it is one')
    words = [atom.split() for atom in atoms]
    symbols = [row[columns["species"].start] for row in words]
    unknown = sorted(set(symbols) - NUMBER_OF_SYMBOL.keys())
    if unknown:
        raise ValueError(f"there is no element {unknown[0].decode('utf-8', 'replace')!r}")
    return _Frame(
        numbers=np.array([NUMBER_OF_SYMBOL[symbol] for symbol in symbols]),
        energy=float(info["energy"]),
        forces=_vectors(words, columns["forces"]),
        positions=_vectors(words, columns["pos"]),
    )


def _columns(properties: str) -> dict[str, slice]:
    fields = properties.split(":")
    columns, start = {}, 0
    for name, width in zip(fields[::3], fields[2::3], strict=True):
        columns[name] = slice(start, start + int(width))
        start += int(width)
    return columns


def _vectors(words: list[list[bytes]], columns: slice) -> np.ndarray:
    vectors = np.array([[float(word) for word in row[columns]] for row in words])
    if vectors.shape != (len(words), 3):
        raise ValueError("positions and forces need three columns for every atom")
    return vectors
