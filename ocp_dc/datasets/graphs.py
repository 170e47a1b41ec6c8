"""The records of fairchem's LMDBs: graphs of labelled atoms, and the bytes that they are stored as."""

from __future__ import annotations

import copyreg
import io
import pickle

import numpy as np
import torch
from torch_geometric.data import Data

TENSOR_TYPES = {
    "pos": np.float32,
    "force": np.float32,
    "y": np.float64,
    "cell": np.float32,
    "pbc": np.bool_,
    "atomic_numbers": np.uint8,
    "tags": np.int32,
    "fixed": np.int32,
}


def set_fields(graph: Data, **fields: np.ndarray | float | str) -> Data:
    """Puts fields into a record, in the order in which they are given, and returns it.

    Tensors, of ``TENSOR_TYPES``: ``pos`` and ``force`` (A, 3); ``y`` (1,), the total energy (float64: at -406,737
    kcal/mol, float32 cannot resolve 0.03); ``cell`` (1, 3, 3); ``pbc`` (1, 3); ``atomic_numbers``, ``tags`` and
    ``fixed`` (A,). The others are kept as they are: ``natoms``; ``sid`` and ``fid``, names of the system and of the
    conformation; and what a kind of data has besides.
    """
    for name, value in fields.items():
        kind = TENSOR_TYPES.get(name)
        graph[name] = value if kind is None else torch.from_numpy(np.array(value, kind))
    return graph


def pickled(graph: Data) -> bytes:
    """A record as bytes, to be read by any reader's ``pickle.loads``."""
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
