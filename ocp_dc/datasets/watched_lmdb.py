"""fairchem's ``lmdb`` dataset, with a look at the file before each read: beyond a file's end, reading kills."""

from __future__ import annotations

from bisect import bisect
from pathlib import Path

from fairchem.core.datasets import LmdbDataset
from torch.utils.data import Dataset, Subset
from torch_geometric.data import Data

from ocp_dc.datasets.source_checks import SourceWatch


class WatchedLmdbDataset(LmdbDataset):
    """See :func:`watch`."""

    watches: list[SourceWatch]

    def __getitem__(self, index: int) -> Data:
        file = bisect(self._keylen_cumulative, self.indices[index]) if len(self.watches) > 1 else 0
        self.watches[file].check()
        return super().__getitem__(index)


def watch(dataset: Dataset) -> Dataset:
    """Makes fairchem's ``lmdb`` dataset, or that of a subset, a watched one; leaves others as they are."""
    whole = dataset.dataset if isinstance(dataset, Subset) else dataset
    if type(whole) is LmdbDataset:
        environments = [whole.env] if whole.path.is_file() else whole.envs
        whole.watches = [SourceWatch([Path(environment.path())]) for environment in environments]
        whole.__class__ = WatchedLmdbDataset
    return dataset
