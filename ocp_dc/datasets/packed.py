"""Conformations of one molecule held as arrays, of which whole batches are taken by indexing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairchem.core.common.registry import registry
from fairchem.core.datasets import LmdbDataset, data_list_collater
from fairchem.core.datasets.base_dataset import BaseDataset
from torch.utils.data import Dataset, Subset
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from ocp_dc.datasets.lmdb import RecordFile
from ocp_dc.datasets.manifest import MoleculeManifest, read_manifest
from ocp_dc.datasets.record_layout import RecordLayout
from ocp_dc.datasets.watched_lmdb import watch
from ocp_dc.errors import InputError

# what differs between conformations: tensors, whose first axis is joined in a batch, and the number of each
TENSORS = ("pos", "force", "y", "cell")
NUMBER = "fid"
# fairchem's trainer reads these transforms; a dataset that is told them does nothing
READ_BY_THE_TRAINER = {"normalizer", "element_references"}
NOT_PACKED = "set dataset.train.format to lmdb"


@registry.register_dataset("md17_packed")
class PackedDataset(BaseDataset):
    """fairchem's ``lmdb`` dataset for a molecule that this package has converted, read once and kept in memory.

    ``dataset[i]`` is the record that ``lmdb`` gives, and :meth:`batch` the batch that fairchem makes of several, equal
    in every field. Kept are positions, forces and cells (float32), energies (float64) and ``fid`` (int64): 24 A + 52
    bytes for each conformation of A atoms. The files are only read, and closed again.

    Args:
        config: fairchem's ``dataset.train``; ``src`` is a split folder of ``ocp-dc md17 convert``, or the LMDB in it.

    Raises:
        InputError: the data are not of one molecule, or damaged, or ``config`` has a key for ``lmdb`` alone.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        _check_settings(config)
        fields = _read_fields(_molecule_file(config["src"]))
        self.num_samples = len(fields[NUMBER])
        self._numbers = fields[NUMBER]
        self._arrays = {
            name: fields[field] for field in TENSORS for name in _names(field, config.get("key_mapping") or {})
        }
        self._record = LmdbDataset(config)[0]
        self._batches: dict[tuple[int, bool], Batch] = {}

    def __getitem__(self, index: int) -> Data:
        row = int(self.indices[index])
        fields = {name: torch.from_numpy(array[row].copy()) for name, array in self._arrays.items()}
        return _filled(self._record, {**fields, NUMBER: int(self._numbers[row]), "id": _id(row)})

    def __getitems__(self, indices: Sequence[int]) -> PackedRecords:
        """What PyTorch's loader asks for, and hands to :func:`collate`."""
        return PackedRecords(self, indices)

    def batch(self, indices: Sequence[int], otf_graph: bool = False) -> Batch:
        """What fairchem's ``data_list_collater`` makes of these records."""
        rows = self.indices[np.asarray(indices)]
        fields = {
            name: torch.from_numpy(array.take(rows, axis=0).reshape(-1, *array.shape[2:]))
            for name, array in self._arrays.items()
        }
        fields[NUMBER] = torch.from_numpy(self._numbers.take(rows))
        fields["id"] = [_id(row) for row in rows.tolist()]
        return _filled(self._batch_of_size(len(rows), otf_graph), fields)

    def _batch_of_size(self, count: int, otf_graph: bool) -> Batch:
        key = count, otf_graph
        if key not in self._batches:
            self._batches[key] = data_list_collater([self._record] * count, otf_graph=otf_graph)
        return self._batches[key]


class NotPackedError(InputError):
    """The data are not conformations of one molecule, or not as this package converts them."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}; {NOT_PACKED}")


class PackedRecords(Sequence):
    """Records of a :class:`PackedDataset`, made when they are looked at."""

    def __init__(self, dataset: PackedDataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Data:
        return self.dataset[self.indices[position]]


def collate(records: Sequence[Data], otf_graph: bool = False) -> Batch:
    """fairchem's ``data_list_collater``, to which :class:`PackedRecords` need not be made."""
    if isinstance(records, PackedRecords):
        return records.dataset.batch(records.indices, otf_graph)
    return data_list_collater(records, otf_graph=otf_graph)


def read_fast(config: dict[str, Any]) -> BaseDataset:
    """A :class:`PackedDataset` of what can be one, fairchem's ``lmdb`` dataset of any other LMDB."""
    try:
        return PackedDataset(config)
    except NotPackedError:
        return watch(LmdbDataset(config))


def is_packed(dataset: Dataset) -> bool:
    """Whether it is a :class:`PackedDataset`, or a subset of one."""
    return isinstance(dataset.dataset if isinstance(dataset, Subset) else dataset, PackedDataset)


def _filled(graph: Data, fields: dict[str, Any]) -> Data:
    """A record or batch like this one, with these values where it has such fields, and copies of the others."""
    filled = copy.copy(graph)
    # set one by one, they would take PyG half of the time that a batch takes
    filled._store._mapping = {name: fields[name] if name in fields else _own(value) for name, value in graph.items()}
    return filled


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else copy.copy(value)


def _id(row: int) -> str:
    """fairchem's, of a record in the first LMDB of a folder."""
    return f"0_{row}"


def _names(field: str, key_mapping: dict[str, str | list[str]]) -> list[str]:
    names = key_mapping.get(field, field)
    return [names] if isinstance(names, str) else names


def _check_settings(config: dict[str, Any]) -> None:
    if not isinstance(config["src"], str):
        raise InputError(f"src is {config['src']!r}; a dataset of format md17_packed reads one folder")
    unread = {f"transforms.{key}" for key in (config.get("transforms") or {}).keys() - READ_BY_THE_TRAINER}
    if unread := sorted(unread | (config.keys() & {"shard", "total_shards"})):
        raise InputError(f"{unread[0]} is not for a dataset of format md17_packed: remove it, or {NOT_PACKED}")


def _molecule_file(source: str) -> Path:
    if not isinstance(read_manifest(source), MoleculeManifest):
        raise NotPackedError(f"{source} has no manifest of one molecule, as ocp-dc md17 convert writes it")
    files = sorted(Path(source).glob("*.lmdb")) if Path(source).is_dir() else [Path(source)]
    if len(files) != 1:
        raise NotPackedError(f"{source} has {len(files)} LMDBs, not one")
    return files[0]


def _read_fields(file: Path) -> dict[str, np.ndarray]:
    """The fields that differ, all conformations of a file in one array, (N, …)."""
    with RecordFile(file) as records:
        first = records[0]
        if missing := [name for name in (*TENSORS, NUMBER) if name not in first]:
            raise NotPackedError(f"{file}: record 0 has no {', '.join(missing)}")
        fields = {name: np.empty((len(records), *first[name].shape), first[name].numpy().dtype) for name in TENSORS}
        fields[NUMBER] = np.empty(len(records), np.int64)
        kinds = {name: array.dtype for name, array in fields.items() if name != NUMBER}
        rows = {name: array.reshape(len(records), -1) for name, array in fields.items()}
        layouts: dict[int, RecordLayout | None] = {}
        # told only where it takes longer than seconds
        for row in tqdm(range(len(records)), desc=f"reading {file}", unit="conf", delay=2):
            stored = records.stored(row)
            layout = layouts.get(len(stored))
            if layout is not None and layout.fits(stored):
                values = layout.values(stored)
            else:
                record = records[row]
                if differing := _not_shared(first, record):
                    raise NotPackedError(f"{file}: record {row} differs from the first in {differing}")
                layouts.setdefault(len(stored), RecordLayout.of(record, stored, kinds, NUMBER))
                values = {name: np.ravel(record[name]) for name in fields}
            for name, array in rows.items():
                array[row] = values[name]
    return fields


def _not_shared(first: Data, record: Data) -> str | None:
    """In what a record differs from the first though all conformations of a molecule have it in common."""
    if record.keys() != first.keys():
        return "its fields"
    for name, value in first.items():
        other = record[name]
        if name in TENSORS:
            same = other.shape == value.shape and other.dtype == value.dtype
        elif isinstance(value, torch.Tensor):
            same = torch.equal(other, value)
        else:
            same = name == NUMBER or other == value
        if not same:
            return name
    return None
