"""fairchem's LMDB format: keys ``"0"``, ``"1"`` and so on, each with a pickled graph, and ``"length"``."""

from __future__ import annotations

import os
import pickle
from numbers import Integral
from pathlib import Path

import lmdb
from torch_geometric.data import Data

from ocp_dc.datasets.graphs import pickled
from ocp_dc.datasets.npz import announced_rows
from ocp_dc.errors import InputError

METADATA_NAME = "metadata.npz"
# address space only: the file grows with what is written
MAP_SIZE = 1 << 36
AGAIN = "get or convert the data again"


def announced_records(folder: Path) -> int | None:
    """How many records ``metadata.npz`` says there are, by its header: nothing else of it is read.

    Returns:
        None where there is no such file, or it does not say.

    Raises:
        InputError: it is damaged.
    """
    metadata = folder / METADATA_NAME
    if not metadata.is_file():
        return None
    try:
        return announced_rows(metadata, "natoms")
    except Exception as error:  # damaged archives raise anything
        raise InputError(f"{metadata} cannot be read ({error}); get it again, or remove it") from error


class RecordWriter:
    """Writes records to a new LMDB.

    It is a context manager, at the end of which the file is complete and on disk; after an error it is neither.

    Attributes:
        count: number of records written.
    """

    def __init__(self, file: Path) -> None:
        self.count = 0
        self._environment = lmdb.open(os.fsencode(file), map_size=MAP_SIZE, subdir=False, lock=False, sync=False)
        self._transaction = self._environment.begin(write=True)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.commit()
                self._transaction.put(b"length", pickle.dumps(self.count))
                self._transaction.commit()
                self._environment.sync(True)
        finally:
            self._environment.close()

    def put(self, graph: Data) -> None:
        """Appends a record, which is kept in memory until :meth:`commit`."""
        self._transaction.put(str(self.count).encode("ascii"), pickled(graph))
        self.count += 1

    def commit(self) -> None:
        """Writes to the file what has been put since the last time."""
        self._transaction.commit()
        self._transaction = self._environment.begin(write=True)


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
            self._environment = lmdb.open(os.fsencode(file), subdir=False, readonly=True, lock=False)
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        try:
            self._require_whole()
            self._transaction = self._environment.begin()
            self._count = self._announced_count()
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

        record = self.stored(index)
        try:
            graph = pickle.loads(record)
        except Exception as error:  # unpickling damaged bytes may raise anything
            raise InputError(f"{self.file}: record {index} cannot be unpickled ({error}); {AGAIN}") from error
        if not isinstance(graph, Data):
            raise InputError(f"{self.file}: record {index} is a {type(graph).__name__}, not a graph")
        return pyg2_data_transform(graph)

    def stored(self, index: int) -> bytes:
        """The bytes that a record is pickled as."""
        record = self._get(str(index).encode("ascii"))
        if record is None:
            raise InputError(f"{self.file} has no record {index} of the {self._count} it announces; {AGAIN}")
        return record

    def _announced_count(self) -> int:
        entries = self._environment.stat()["entries"]
        stored = self._get(b"length")
        if stored is None:
            return entries
        try:
            length = pickle.loads(stored)
        except Exception as error:  # unpickling damaged bytes may raise anything
            raise InputError(f"{self.file}: its length cannot be unpickled ({error}); {AGAIN}") from error
        # of the entries, one is the length itself
        if not isinstance(length, Integral) or not 0 <= length < entries:
            raise InputError(f"{self.file} announces {length!r:.40} records, and has {entries - 1:,}; {AGAIN}")
        return int(length)

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
