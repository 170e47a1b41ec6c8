"""fairchem's LMDB format: writing molecules, with the metadata that go with them, and reading any records."""

from __future__ import annotations

import pickle
from pathlib import Path

import lmdb
import numpy as np
from torch_geometric.data import Data

from ocp_dc.datasets.conformations import Conformations, free_cell_edge
from ocp_dc.datasets.graphs import pickled, set_fields
from ocp_dc.errors import InputError
from ocp_dc.statistics import LabelAccumulator, LabelStatistics

LMDB_NAME = "data.lmdb"
METADATA_NAME = "metadata.npz"
# address space only: the file grows with what is written
MAP_SIZE = 1 << 36


class MoleculeWriter:
    """Writes conformations of one molecule as ``data.lmdb`` and ``metadata.npz`` into a folder.

    The LMDB is for fairchem's ``lmdb`` dataset with ``key_mapping: {y: energy, force: forces}``: keys ``"0"``, ``"1"``
    and so on, each a pickled graph with the fields of :func:`~ocp_dc.datasets.graphs.set_fields`, and ``"length"``.
    The metadata are ``natoms`` (N,), for fairchem's balanced sampler, and ``source_index`` (N,), the row in the source
    file, which is also each record's ``fid``. ``sid`` is the molecule's name, ``pbc`` is False and ``cell`` a cube in
    which periodic images are out of reach.

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
        self._graph = set_fields(
            Data(),
            atomic_numbers=atomic_numbers,
            natoms=natoms,
            pbc=np.zeros((1, 3)),
            tags=np.zeros(natoms),
            fixed=np.zeros(natoms),
            sid=molecule,
        )
        self._environment = create_lmdb(folder / LMDB_NAME)

    def add(self, conformations: Conformations) -> None:
        """Appends conformations, in one transaction."""
        with self._environment.begin(write=True) as transaction:
            for offset, cell_edge in enumerate(free_cell_edge(conformations.positions)):
                graph = set_fields(
                    self._graph,
                    pos=conformations.positions[offset],
                    force=conformations.forces[offset],
                    y=conformations.energies[offset : offset + 1],
                    cell=cell_edge * np.eye(3)[None],
                    fid=int(conformations.rows[offset]),
                )
                transaction.put(str(self._labels.count + offset).encode("ascii"), pickled(graph))
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


def create_lmdb(file: Path) -> lmdb.Environment:
    """A new LMDB to write to; durable once :func:`put_length` has synced it, so put it in a temporary folder."""
    return lmdb.open(str(file), map_size=MAP_SIZE, subdir=False, lock=False, sync=False)


def put_length(environment: lmdb.Environment, count: int) -> None:
    """Puts the last entry, the number of records, and syncs."""
    with environment.begin(write=True) as transaction:
        transaction.put(b"length", pickle.dumps(count))
    environment.sync(True)


class RecordFile:
    """An LMDB in fairchem's format, open for reading; records are unpickled, so it must be trusted.

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
        from fairchem.core.common.utils import pyg2_data_transform  # imports all of fairchem, for old records

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
            f"{self.file} is not an LMDB in fairchem's format ({error}); give another, or convert the data again"
        )
