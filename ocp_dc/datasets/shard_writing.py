"""Writing structures as shards, LMDBs of a stated number of records, with their metadata and manifests."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from ocp_dc.datasets.conversion_settings import EdgeSettings
from ocp_dc.datasets.graphs import set_fields
from ocp_dc.datasets.lmdb import METADATA_NAME, RecordWriter
from ocp_dc.datasets.manifest import StructuresManifest, shared_fields
from ocp_dc.datasets.splits import Split
from ocp_dc.datasets.structures import ENERGY_UNIT, UNITS_FROM, Structure
from ocp_dc.edges import periodic_edges
from ocp_dc.errors import InputError
from ocp_dc.files import write_npz
from ocp_dc.statistics import AtomAccumulator, LabelAccumulator

METADATA_ARRAYS = ("natoms", "neighbors", "source_file", "source_index")
MAX_SHARDS = 10_000
RECORDS_PER_COMMIT = 64
ADSORBATE_TAG = 2


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


class ShardWriter(RecordWriter):
    """Writes structures to one LMDB, for fairchem's ``oc22_lmdb`` and ``lmdb`` datasets.

    Beside the fields of :func:`~ocp_dc.datasets.graphs.set_fields`, records have ``nads``, 1 with adsorbate atoms (tag
    2), else 0; and ``oc22`` 1, by which fairchem knows total energies. With edges also ``edge_index`` (2, E) int64 and
    ``cell_offsets`` (E, 3) int64 of :func:`~ocp_dc.edges.periodic_edges`, which models with ``otf_graph: False`` take.

    Args:
        file: the LMDB to make.
        edges: to store; None for none.
    """

    def __init__(self, file: Path, edges: EdgeSettings | None) -> None:
        super().__init__(file)
        self.contents = ShardContents()
        self._edges = edges

    def add(self, structure: Structure, source_file: int, source_index: int) -> None:
        """Appends a structure."""
        graph = set_fields(
            Data(),
            y=[structure.energy],
            pos=structure.positions,
            cell=structure.cell[None],
            pbc=structure.pbc[None],
            atomic_numbers=structure.atomic_numbers,
            natoms=len(structure.atomic_numbers),
            tags=structure.tags,
            fixed=structure.fixed,
            force=structure.forces,
            sid=structure.sid,
            fid=structure.fid,
            nads=int((structure.tags == ADSORBATE_TAG).any()),
            oc22=1,
        )
        if self._edges is not None:
            self._add_edges(graph)
        if self.count and self.count % RECORDS_PER_COMMIT == 0:
            self.commit()
        self.put(graph)
        contents = self.contents
        contents.natoms.append(graph.natoms)
        contents.source_file.append(source_file)
        contents.source_index.append(source_index)
        contents.labels.add(np.array([structure.energy]), np.asarray(structure.forces, np.float64))
        contents.atoms.add(structure.atomic_numbers, structure.fixed, structure.pbc)

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


def shard_name(index: int) -> str:
    """``data.0000.lmdb`` and so on: sorted by name they are in order.

    Raises:
        InputError: there are more shards than four digits can count.
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
    write_npz(folder / METADATA_NAME, **arrays)


def write_manifest(
    folder: Path,
    shards: Sequence[ShardContents],
    split: Split,
    edges: EdgeSettings | None,
    source: dict,
    units: tuple[str, str] = (ENERGY_UNIT, UNITS_FROM),
) -> StructuresManifest:
    """Writes ``manifest.json`` to the folder of a split.

    Args:
        source: its fields about the source.
        units: of the energies, and where that is from.
    """
    labels, atoms = LabelAccumulator(), AtomAccumulator()
    for shard in shards:
        labels.merge(shard.labels)
        atoms.merge(shard.atoms)
    manifest = StructuresManifest(
        split=folder.name,
        count=labels.count,
        labels=labels.statistics(),
        shards=len(shards),
        atoms=atoms.statistics(),
        edges=edges,
        **shared_fields(split, *units),
        **source,
    )
    manifest.write(folder)
    return manifest
