"""Folders of LMDB shards in fairchem's format, as one list of records, and their records as structures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from ocp_dc.datasets.lmdb import METADATA_NAME, RecordFile, announced_records
from ocp_dc.datasets.structures import Structure, check_stored_positions, check_structure, completed_cell
from ocp_dc.errors import InputError


@dataclass(frozen=True)
class ShardFolder:
    """The shards of a folder, sorted by name, with their records counted through.

    Attributes:
        path: the folder.
        files: its LMDBs.
        counts: number of records of each.
    """

    path: Path
    files: tuple[Path, ...]
    counts: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> ShardFolder:
        """Counts the records of a folder, or of one file, and makes sure that no shard is cut short.

        Raises:
            InputError: there are none, or a shard is damaged; ``metadata.npz`` announces another number of records.
        """
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder")
        files = (path,) if path.is_file() else tuple(sorted(path.glob("*.lmdb")))
        if not files:
            raise InputError(f"{path} has no .lmdb file in it; give another folder")
        counts = []
        for file in files:
            with RecordFile(file) as records:
                counts.append(len(records))
        folder = cls(path, files, tuple(counts))
        folder._require_announced()
        return folder

    @property
    def count(self) -> int:
        """Number of records in all."""
        return sum(self.counts)

    @property
    def digest(self) -> str:
        """A sha256 over the names, sizes and counts of the shards: their contents may be hundreds of gigabytes."""
        lines = [
            f"{file.name} {file.stat().st_size} {count}" for file, count in zip(self.files, self.counts, strict=True)
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def locate(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """For ascending rows of the folder, the index of each file that has some, and their rows in it."""
        start = 0
        for number, count in enumerate(self.counts):
            first, last = np.searchsorted(rows, (start, start + count))
            if first < last:
                yield number, rows[first:last] - start
            start += count

    def _require_announced(self) -> None:
        announced = announced_records(self.path)
        if announced not in (None, self.count):
            raise InputError(
                f"{self.path}: {METADATA_NAME} announces {announced:,} records, the {len(self.files)} shards have "
                f"{self.count:,}; get the missing shards"
            )


def labels_of(where: str, graph: Data) -> tuple[float, np.ndarray]:
    """The energy and the forces (A, 3), float64, of a record, under fairchem's older or newer names.

    Raises:
        InputError: it lacks one.
    """
    energy = graph.get("y", graph.get("energy"))
    forces = graph.get("force", graph.get("forces"))
    if energy is None or forces is None:
        raise InputError(
            f"{where} has no energy (y or energy) or no forces (force or forces); it has {', '.join(graph.keys())}"
        )
    return float(energy), np.asarray(forces, np.float64)


def pbc_of(graph: Data) -> np.ndarray:
    """Along which lattice vectors a record is periodic, (3,) bool: all, where it does not say, as for fairchem."""
    pbc = graph.get("pbc")
    return np.ones(3, bool) if pbc is None else np.asarray(pbc, bool).reshape(3)


def structure_of(file: Path, row: int, graph: Data) -> Structure:
    """A record of a shard as a structure, checked.

    Raises:
        InputError: it lacks labels, positions, atomic numbers or a cell, or see
            :func:`~ocp_dc.datasets.structures.check_structure`.
    """
    where = f"{file}: record {row}"
    missing = [name for name in ("pos", "atomic_numbers", "cell") if graph.get(name) is None]
    if missing:
        raise InputError(f"{where} has no {' and no '.join(missing)}; it has {', '.join(graph.keys())}")
    energy, forces = labels_of(where, graph)
    positions, pbc = np.asarray(graph.pos), pbc_of(graph)
    numbers = np.asarray(graph.atomic_numbers).astype(np.int64)
    if not numbers.size or positions.shape != (numbers.size, 3):
        raise InputError(f"{where} has {numbers.size} atomic numbers and positions of shape {positions.shape}")
    none = np.zeros(len(numbers), np.int32)
    structure = Structure(
        atomic_numbers=numbers,
        positions=positions,
        cell=completed_cell(np.asarray(graph.cell).reshape(3, 3), pbc, positions),
        pbc=pbc,
        tags=np.asarray(graph.get("tags", none)),
        fixed=np.asarray(graph.get("fixed", none)),
        energy=energy,
        forces=forces,
        sid=_plain(graph.get("sid", file.stem)),
        fid=int(_plain(graph.get("fid", row))),
    )
    check_structure(where, structure)
    check_stored_positions(where, structure.positions)
    return structure


def _plain(value: object) -> str | int:
    return value.item() if isinstance(value, torch.Tensor) else value
