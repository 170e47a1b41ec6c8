"""The host's LMDB format: writing molecules, with the metadata that go with them, and reading any records."""

from __future__ import annotations

import copyreg
import io
import pickle
from pathlib import Path

import lmdb
import numpy as np
import torch
from fairchem.core.common.utils import pyg2_data_transform
from torch_geometric.data import Data

from ocp_dc.datasets.conformations import Conformations
from ocp_dc.errors import InputError
from ocp_dc.statistics import LabelAccumulator, LabelStatistics

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
        self._environment = create_lmdb(folder / LMDB_NAME)

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
        put_length(self._environment, self._labels.count)
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
        return pickled(self._graph)


def create_lmdb(file: Path) -> lmdb.Environment:
    """A new LMDB to write to; durable once :func:`put_length` has synced it, so put it in a temporary folder."""
    return lmdb.open(str(file), map_size=MAP_SIZE, subdir=False, lock=False, sync=False)


def put_length(environment: lmdb.Environment, count: int) -> None:
    """Puts the last entry, the number of records, and syncs."""
    with environment.begin(write=True) as transaction:
        transaction.put(b"length", pickle.dumps(count))
    environment.sync(True)


def pickled(graph: Data) -> bytes:
    """A record, to be read by any reader's ``pickle.loads``."""
    buffer = io.BytesIO()
    _GraphPickler(buffer, protocol=4).dump(graph)
    return buffer.getvalue()


def _reduce_tensor(tensor: torch.Tensor) -> tuple:
    array = tensor.numpy()
    return torch.from_numpy, (_Narrowed(array) if array.dtype == np.int64 and array.size else array,)


class _Narrowed:
    """Pickles an int64 array as the smallest integers that hold it, to be read as int64 again."""

    def __init__(self, array: np.ndarray) -> None:
        kinds = map(np.iinfo, (np.int8, np.int16, np.int32, np.int64))
        kind = next(kind for kind in kinds if kind.min <= array.min() and array.max() <= kind.max)
        self._array = array.astype(kind.dtype)

    def __reduce__(self) -> tuple:
        return np.ndarray.astype, (self._array, np.dtype(np.int64))


class _GraphPickler(pickle.Pickler):
    """Pickles tensors as numpy arrays.

    torch's own way nests an archive in the pickle for each tensor: twice the size, and fifteen times slower to read.
    Any reader's ``pickle.loads`` gives tensors again.
    """

    dispatch_table = copyreg.dispatch_table | {torch.Tensor: _reduce_tensor}


class RecordFile:
    """An LMDB in the host's format, open for reading; records are unpickled, so it must be trusted.

    ``len()`` is the number of records; indexing gives them as :class:`torch_geometric.data.Data`, those pickled by PyG
    1.x too. It is a context manager, and a process can open a file once at a time.

    Raises:
        InputError: the file is not such an LMDB, or is cut short; on indexing, a record is missing or damaged.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        if not self.file.is_file():
            raise InputError(f"{file}: there is no such file")
        try:
            self._environment = lmdb.open(str(file), subdir=False, readonly=True, lock=False)
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        try:
            self._require_whole()
            self._transaction = self._environment.begin()
            length = self._get(b"length")
            self._count = self._environment.stat()["entries"] if length is None else pickle.loads(length)
        except BaseException:
            self._environment.close()
            raise

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._transaction.abort()
        self._environment.close()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Data:
        record = self._get(str(index).encode("ascii"))
        if record is None:
            raise InputError(
                f"{self.file} has no record {index} of the {self._count} it announces; get or convert the data again"
            )
        try:
            graph = pickle.loads(record)
        except Exception as error:  # unpickling damaged bytes may raise anything
            raise InputError(
                f"{self.file}: record {index} cannot be unpickled ({error}); get or convert the data again"
            ) from error
        if not isinstance(graph, Data):
            raise InputError(f"{self.file}: record {index} is a {type(graph).__name__}, not a graph")
        return pyg2_data_transform(graph)

    def _require_whole(self) -> None:
        # reading beyond the end of a memory-mapped file kills the process
        needed = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        size = self.file.stat().st_size
        if size < needed:
            raise InputError(f"{self.file} is cut short: {size:,} of {needed:,} bytes are there; get the file again")

    def _get(self, key: bytes) -> bytes | None:
        try:
            return self._transaction.get(key)
        except lmdb.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: lmdb.Error) -> InputError:
        return InputError(
            f"{self.file} is not an LMDB in the host's format ({error}); give another, or convert the data again"
        )
