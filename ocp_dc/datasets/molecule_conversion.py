"""MD17 and its kin (rMD17, sGDML, extended XYZ), converted to LMDBs that fairchem reads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from torch_geometric.data import Data
from tqdm import tqdm

from ocp_dc.datasets.conformations import (
    Conformations,
    Trajectory,
    check_conformations,
    free_cell_edge,
    require_some_forces,
)
from ocp_dc.datasets.graphs import set_fields
from ocp_dc.datasets.lmdb import METADATA_NAME, RecordWriter
from ocp_dc.datasets.manifest import MoleculeManifest, sha256_of, shared_fields
from ocp_dc.datasets.molecule_files import open_trajectory
from ocp_dc.datasets.splits import Split, random_split, read_split_dir
from ocp_dc.datasets.staging import staged_folder
from ocp_dc.files import write_npz
from ocp_dc.statistics import LabelAccumulator
from ocp_dc.terminal import printable

LMDB_NAME = "data.lmdb"


def convert(
    source: str | Path,
    out: str | Path,
    *,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    split_dir: str | Path | None = None,
    energy_unit: str | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> dict[str, MoleculeManifest]:
    """Converts a file to ``out/{train,val,test}``, each with ``data.lmdb``, ``metadata.npz`` and ``manifest.json``.

    The conformations of a split keep the source's order, and all of them are checked. ``out`` appears when it is
    complete, not before; what is returned are its manifests by split.

    Args:
        source, energy_unit: see :func:`~ocp_dc.datasets.molecule_files.open_trajectory`.
        out: the folder to make.
        sizes: number of conformations of each split, drawn by :func:`~ocp_dc.datasets.splits.random_split`.
        seed: of that draw.
        split_dir: read the splits from here instead, see :func:`~ocp_dc.datasets.splits.read_split_dir`.
        overwrite: replace an earlier conversion at ``out``, with nothing else in it, once the new one is complete.
        show_progress: show a progress bar.

    Raises:
        InputError: anything is wrong with the source, the splits or the place to write to; nothing is left at ``out``.
    """
    trajectory = open_trajectory(source, energy_unit)
    if split_dir is None:
        split = random_split(trajectory.count, sizes or {}, seed)
    else:
        split = read_split_dir(split_dir, trajectory.count)
    with staged_folder(out, overwrite, [source]) as folder:
        return _write_splits(trajectory, split, folder, show_progress)


class MoleculeWriter(RecordWriter):
    """Writes conformations of one molecule as ``data.lmdb`` and ``metadata.npz`` into a folder.

    They are for fairchem's ``lmdb`` dataset with ``key_mapping: {y: energy, force: forces}``. Of the fields of a record
    (:func:`~ocp_dc.datasets.graphs.set_fields`), ``sid`` is the molecule's name, ``fid`` the row in the source file,
    ``pbc`` False and ``cell`` a cube in which periodic images are out of reach. The metadata are ``natoms`` (N,), for
    fairchem's balanced sampler, and ``source_index`` (N,), the ``fid`` of each.

    Args:
        folder: made here.
        atomic_numbers: (A,) of the molecule.
        molecule: its name.
    """

    def __init__(self, folder: Path, atomic_numbers: np.ndarray, molecule: str) -> None:
        folder.mkdir()
        super().__init__(folder / LMDB_NAME)
        self.labels = LabelAccumulator()
        self._folder = folder
        self._rows: list[np.ndarray] = []
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

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        super().__exit__(error)
        if error is None:
            rows = np.concatenate(self._rows)
            natoms = np.full(len(rows), self._graph.natoms)
            write_npz(self._folder / METADATA_NAME, natoms=natoms, source_index=rows)

    def add(self, conformations: Conformations) -> None:
        """Appends conformations, in one transaction."""
        for offset, cell_edge in enumerate(free_cell_edge(conformations.positions)):
            graph = set_fields(
                self._graph,
                pos=conformations.positions[offset],
                force=conformations.forces[offset],
                y=conformations.energies[offset : offset + 1],
                cell=cell_edge * np.eye(3)[None],
                fid=int(conformations.rows[offset]),
            )
            self.put(graph)
        self.commit()
        self._rows.append(conformations.rows)
        self.labels.add(conformations.energies, conformations.forces)


def _write_splits(
    trajectory: Trajectory, split: Split, folder: Path, show_progress: bool
) -> dict[str, MoleculeManifest]:
    with ExitStack() as stack:
        writers = {}
        for name in split.indices:
            writer = MoleculeWriter(folder / name, trajectory.atomic_numbers, trajectory.molecule)
            writers[name] = stack.enter_context(writer)
        progress = tqdm(
            total=trajectory.count, unit="conf", desc=printable(trajectory.molecule), disable=not show_progress
        )
        stack.enter_context(progress)
        for block in trajectory.blocks():
            for name, rows in split.indices.items():
                start, stop = np.searchsorted(rows, (block.rows[0], block.rows[-1] + 1))
                chosen = block[rows[start:stop] - block.rows[0]]
                check_conformations(trajectory.path, chosen)
                writers[name].add(chosen)
            progress.update(len(block))
    require_some_forces(trajectory.path, [writer.labels for writer in writers.values()], len(trajectory.atomic_numbers))
    source = {
        "molecule": trajectory.molecule,
        "formula": trajectory.formula,
        "atomic_numbers": trajectory.atomic_numbers.tolist(),
        "theory": trajectory.theory,
        "source_file": trajectory.path.name,
        "source_sha256": sha256_of(trajectory.path),
        "source_layout": trajectory.layout,
        "source_count": trajectory.count,
        **shared_fields(split, trajectory.energy_unit, trajectory.units_from),
    }
    manifests = {}
    for name, writer in writers.items():
        labels = writer.labels.statistics()
        manifests[name] = MoleculeManifest(split=name, count=writer.count, labels=labels, **source)
        manifests[name].write(folder / name)
    return manifests
