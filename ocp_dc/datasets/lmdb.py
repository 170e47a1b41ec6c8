"""Molecules in the host's LMDB format, with the metadata and the manifest that go with them."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import torch
from torch_geometric.data import Data

from ocp_dc.datasets.manifest import LabelAccumulator, LabelStatistics
from ocp_dc.datasets.trajectory import Conformations
from ocp_dc.errors import InputError

LMDB_NAME = "data.lmdb"
METADATA_NAME = "metadata.npz"
# address space only: the file grows with what is written
MAP_SIZE = 1 << 36
MINIMUM_CELL_EDGE = 100.0
IMAGE_CLEARANCE = 50.0
UNIT_CELL = torch.eye(3)[None]


class MoleculeWriter:
    """Writes conformations of one molecule as ``data.lmdb`` and ``metadata.npz`` into a folder.

    The LMDB is for the host's ``lmdb`` dataset with ``key_mapping: {y: energy, force: forces}``: keys ``"0"``, ``"1"``,
    and so on, each a pickled :class:`torch_geometric.data.Data`, and ``"length"``. The metadata are ``natoms`` (N,),
    for the host's balanced sampler, and ``source_index`` (N,), the row in the source file.

    Fields of a record: ``pos`` (A, 3) float32; ``atomic_numbers`` (A,) uint8; ``natoms`` int; ``y`` (1,) float64 (at
    -406,737 kcal/mol, float32 cannot resolve 0.03); ``force`` (A, 3) float32; ``cell`` (1, 3, 3) float32, a cube in
    which periodic images would be at least 50 Angstrom apart; ``pbc`` (1, 3) bool, False; ``tags`` and ``fixed`` (A,)
    int32, zero; ``sid`` the molecule's name; ``fid`` the row in the source file.

    Args:
        folder: made here.
        atomic_numbers: (A,) of the molecule.
        molecule: its name.
    """

    def __init__(self, folder: Path, atomic_numbers: np.ndarray, molecule: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._rows: list[np.ndarray] = []
        self._labels = LabelAccumulator()
        natoms = len(atomic_numbers)
        self._graph = Data(
            atomic_numbers=torch.from_numpy(atomic_numbers.astype(np.uint8)),
            natoms=natoms,
            pbc=torch.zeros(1, 3, dtype=torch.bool),
            tags=torch.zeros(natoms, dtype=torch.int32),
            fixed=torch.zeros(natoms, dtype=torch.int32),
            sid=molecule,
        )
        # durable once finish() has synced; until then the folder is a temporary one
        self._environment = lmdb.open(
            str(folder / LMDB_NAME), map_size=MAP_SIZE, subdir=False, lock=False, sync=False, meminit=False
        )

    def add(self, conformations: Conformations) -> None:
        """Appends conformations, in one transaction."""
        extents = np.ptp(conformations.positions, axis=1).max(axis=1)
        cell_edges = np.maximum(MINIMUM_CELL_EDGE, extents + IMAGE_CLEARANCE)
        with self._environment.begin(write=True) as transaction:
            for offset, cell_edge in enumerate(cell_edges):
                key = str(self._labels.count + offset).encode("ascii")
                transaction.put(key, self._record(conformations, offset, float(cell_edge)))
        self._rows.append(conformations.rows)
        self._labels.add(conformations.energies, conformations.forces)

    def finish(self) -> LabelStatistics:
        """Writes the length and the metadata, and returns the statistics of the labels written."""
        with self._environment.begin(write=True) as transaction:
            transaction.put(b"length", pickle.dumps(self._labels.count))
        self._environment.sync(True)
        rows = np.concatenate(self._rows)
        natoms = np.full(len(rows), self._graph.natoms)
        np.savez_compressed(self._folder / METADATA_NAME, natoms=natoms, source_index=rows)
        return self._labels.statistics()

    def close(self) -> None:
        self._environment.close()

    def _record(self, conformations: Conformations, offset: int, cell_edge: float) -> bytes:
        self._graph.pos = torch.from_numpy(conformations.positions[offset].astype(np.float32))
        self._graph.force = torch.from_numpy(conformations.forces[offset].astype(np.float32))
        self._graph.y = torch.from_numpy(conformations.energies[offset : offset + 1])
        self._graph.cell = cell_edge * UNIT_CELL
        self._graph.fid = int(conformations.rows[offset])
        buffer = io.BytesIO()
        _GraphPickler(buffer, protocol=4).dump(self._graph)
        return buffer.getvalue()


class _GraphPickler(pickle.Pickler):
    """Pickles tensors as numpy arrays.

    torch's own way nests an archive in the pickle for each tensor: twice the size, and fifteen times slower to read.
    Any reader's ``pickle.loads`` gives tensors again.
    """

    dispatch_table = copyreg.dispatch_table | {torch.Tensor: lambda tensor: (torch.from_numpy, (tensor.numpy(),))}


def read_graphs(file: str | Path) -> Iterator[Data]:
    """The records of an LMDB in the host's format, in order.

    Raises:
        InputError: the file is not such an LMDB.
    """
    try:
        with (
            lmdb.open(str(file), subdir=False, readonly=True, lock=False) as environment,
            environment.begin() as transaction,
        ):
            length = transaction.get(b"length")
            count = environment.stat()["entries"] if length is None else pickle.loads(length)
            for index in range(count):
                record = transaction.get(str(index).encode("ascii"))
                if record is None:
                    raise InputError(
                        f"{file} has no record {index} of the {count} it announces; convert the data again"
                    )
                yield pickle.loads(record)
    except lmdb.Error as error:
        raise InputError(
            f"{file} is not an LMDB of molecules ({error}); give another, or convert the data again"
        ) from error
