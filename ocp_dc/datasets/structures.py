"""Structures of any size, composition and periodicity: the checks they must pass, and writing them as LMDB shards."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase.geometry import complete_cell
from torch_geometric.data import Data

from ocp_dc.datasets.conformations import SMALLEST_DISTANCE, check_atomic_numbers
from ocp_dc.datasets.lmdb import (
    IMAGE_CLEARANCE,
    METADATA_NAME,
    MINIMUM_CELL_EDGE,
    create_lmdb,
    pickled,
    put_length,
)
from ocp_dc.datasets.manifest import EdgeSettings
from ocp_dc.edges import periodic_edges
from ocp_dc.errors import InputError
from ocp_dc.statistics import LATTICE_VECTORS, AtomAccumulator, LabelAccumulator

METADATA_ARRAYS = ("natoms", "neighbors", "source_file", "source_index")
DEFAULT_SHARD_SIZE = 50_000
DEFAULT_MAX_NEIGHBORS = 50
MAX_SHARDS = 10_000
# what is not committed yet is kept in memory
RECORDS_PER_COMMIT = 64
PAIRS_AT_ONCE = 1 << 18
ADSORBATE_TAG = 2


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
        sid, fid: names of the system and of the frame, which the host's predictions carry.
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
    edge = max(MINIMUM_CELL_EDGE, np.ptp(positions, axis=0).max() + IMAGE_CLEARANCE)
    return np.where(missing[:, None], edge * complete_cell(cell), cell)


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
        if not np.isfinite(values).all():
            raise InputError(f"{where}: NaN or infinite {name}; remove it")
    _check_cell(where, structure)
    _check_distances(where, structure)


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


@dataclass
class ShardContents:
    """What the metadata and the manifest need to know of the records of a shard, in order.

    Attributes:
        natoms: of each record.
        neighbors: number of stored edges of each record; empty where none are stored.
        source_file, source_index: where each record is from, see :class:`~ocp_dc.datasets.manifest.StructuresManifest`.
        labels, atoms: of all.
    """

    natoms: array = field(default_factory=partial(array, "q"))
    neighbors: array = field(default_factory=partial(array, "q"))
    source_file: array = field(default_factory=partial(array, "q"))
    source_index: array = field(default_factory=partial(array, "q"))
    labels: LabelAccumulator = field(default_factory=LabelAccumulator)
    atoms: AtomAccumulator = field(default_factory=AtomAccumulator)

    def to_dict(self) -> dict:
        """For JSON."""
        arrays = {name: getattr(self, name).tolist() for name in METADATA_ARRAYS}
        return {**arrays, "labels": self.labels.to_dict(), "atoms": self.atoms.to_dict()}

    @classmethod
    def from_dict(cls, contents: dict) -> ShardContents:
        """What :meth:`to_dict` has been made of."""
        return cls(
            **{name: array("q", contents[name]) for name in METADATA_ARRAYS},
            labels=LabelAccumulator.from_dict(contents["labels"]),
            atoms=AtomAccumulator.from_dict(contents["atoms"]),
        )


class ShardWriter:
    """Writes structures to one LMDB, for the host's ``oc22_lmdb`` and ``lmdb`` datasets.

    Keys are ``"0"``, ``"1"`` and so on, each a pickled :class:`torch_geometric.data.Data`, and ``"length"``. Fields of
    a record: ``pos`` (A, 3) float32; ``cell`` (1, 3, 3) float32; ``pbc`` (1, 3) bool; ``atomic_numbers`` (A,) uint8;
    ``natoms`` int; ``tags`` and ``fixed`` (A,) int32; ``y`` (1,) float64, the total energy; ``force`` (A, 3) float32;
    ``sid``; ``fid``; ``nads``, 1 with adsorbate atoms (tag 2), else 0; ``oc22`` 1, by which the host knows total
    energies. With edges also ``edge_index`` (2, E) int64 and ``cell_offsets`` (E, 3) int64 of
    :func:`~ocp_dc.edges.periodic_edges`, which models with ``otf_graph: False`` take.

    Args:
        file: the LMDB to make.
        edges: to store; None for none.
    """

    def __init__(self, file: Path, edges: EdgeSettings | None) -> None:
        self.contents = ShardContents()
        self._edges = edges
        self._environment = create_lmdb(file)
        self._transaction = self._environment.begin(write=True)

    def add(self, structure: Structure, source_file: int, source_index: int) -> None:
        """Appends a structure."""
        graph = _graph(structure)
        if self._edges is not None:
            self._add_edges(graph)
        contents = self.contents
        index = len(contents.natoms)
        if index and index % RECORDS_PER_COMMIT == 0:
            self._transaction.commit()
            self._transaction = self._environment.begin(write=True)
        self._transaction.put(str(index).encode("ascii"), pickled(graph))
        contents.natoms.append(graph.natoms)
        contents.source_file.append(source_file)
        contents.source_index.append(source_index)
        contents.labels.add(np.array([structure.energy]), np.asarray(structure.forces, np.float64))
        contents.atoms.add(structure.atomic_numbers, structure.fixed, structure.pbc)

    def finish(self) -> ShardContents:
        """Writes what is left; then it is on disk."""
        self._transaction.commit()
        put_length(self._environment, len(self.contents.natoms))
        return self.contents

    def close(self) -> None:
        self._environment.close()

    def _add_edges(self, graph: Data) -> None:
        graph.edge_index, offsets, neighbors = periodic_edges(
            graph.pos,
            graph.cell,
            graph.pbc,
            torch.tensor([graph.natoms]),
            self._edges.cutoff,
            self._edges.max_neighbors,
        )
        graph.cell_offsets = offsets.long()
        self.contents.neighbors.append(int(neighbors))


def _graph(structure: Structure) -> Data:
    def tensor(values: np.ndarray, kind: type) -> torch.Tensor:
        return torch.from_numpy(np.array(values, kind))

    return Data(
        pos=tensor(structure.positions, np.float32),
        cell=tensor(structure.cell[None], np.float32),
        pbc=tensor(structure.pbc[None], np.bool_),
        atomic_numbers=tensor(structure.atomic_numbers, np.uint8),
        natoms=len(structure.atomic_numbers),
        tags=tensor(structure.tags, np.int32),
        fixed=tensor(structure.fixed, np.int32),
        y=tensor([structure.energy], np.float64),
        force=tensor(structure.forces, np.float32),
        sid=structure.sid,
        fid=structure.fid,
        nads=int((structure.tags == ADSORBATE_TAG).any()),
        oc22=1,
    )


class ShardedWriter:
    """Writes the structures of a split to shards of a stated size, one after the other.

    Args:
        folder: made here.
        edges: see :class:`ShardWriter`.
        shard_size: records of each shard but the last.
    """

    def __init__(self, folder: Path, edges: EdgeSettings | None, shard_size: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._edges = edges
        self._shard_size = shard_size
        self._shards: list[ShardContents] = []
        self._writer: ShardWriter | None = None

    def add(self, structure: Structure, source_file: int, source_index: int) -> None:
        """Appends a structure."""
        if self._writer is None:
            self._writer = ShardWriter(self._folder / shard_name(len(self._shards)), self._edges)
        self._writer.add(structure, source_file, source_index)
        if len(self._writer.contents.natoms) == self._shard_size:
            self._finish_shard()

    def finish(self) -> list[ShardContents]:
        """Ends the last shard and writes ``metadata.npz``."""
        if self._writer is not None:
            self._finish_shard()
        write_metadata(self._folder, self._shards)
        return self._shards

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _finish_shard(self) -> None:
        self._shards.append(self._writer.finish())
        self.close()
        self._writer = None


def shard_name(index: int) -> str:
    """``data.0000.lmdb`` and so on: sorted by name they are in order.

    Raises:
        InputError: there are more than four digits count.
    """
    if index >= MAX_SHARDS:
        raise InputError(f"more than {MAX_SHARDS:,} shards; choose a larger --shard-size")
    return f"data.{index:04}.lmdb"


def write_metadata(folder: Path, shards: Sequence[ShardContents]) -> None:
    """Writes ``metadata.npz``: ``natoms`` and, with stored edges, ``neighbors`` (N,), and where records are from."""
    arrays = {}
    for name in METADATA_ARRAYS:
        values = np.concatenate([np.array(getattr(shard, name), np.int64) for shard in shards])
        if len(values):
            arrays[name] = values
    np.savez_compressed(folder / METADATA_NAME, **arrays)


def check_settings(cutoff: float | None, max_neighbors: int, shard_size: int) -> EdgeSettings | None:
    """The edges to store, None for none.

    Raises:
        InputError: a value is out of its range.
    """
    if shard_size < 1:
        raise InputError(f"--shard-size {shard_size}: a shard holds at least one structure")
    if cutoff is None:
        return None
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"--cutoff {cutoff}: it must be a positive number, in Angstrom")
    if max_neighbors < 1:
        raise InputError(f"--max-neighbors {max_neighbors}: it must be at least 1")
    return EdgeSettings(float(cutoff), max_neighbors)
