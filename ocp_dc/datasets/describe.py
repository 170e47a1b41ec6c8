"""What is in converted or convertible data, as the columns of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols
from tqdm import tqdm

from ocp_dc.datasets.conformations import Trajectory, check_conformations
from ocp_dc.datasets.conversion_settings import SPLIT_NAMES
from ocp_dc.datasets.generation.autocorrelation import independent_count
from ocp_dc.datasets.manifest import MoleculeManifest, StructuresManifest, read_manifest
from ocp_dc.datasets.structures import ENERGY_UNIT, UNITS_FROM
from ocp_dc.errors import InputError
from ocp_dc.statistics import AtomAccumulator, AtomStatistics, LabelAccumulator, LabelStatistics
from ocp_dc.terminal import printable
from ocp_dc.units import LENGTH_UNIT

if TYPE_CHECKING:
    from ocp_dc.datasets.ase_files import FrameFile

Column = dict[str, str]


def lmdb_columns(path: Path, energy_unit: str, units_from: str) -> list[Column]:
    """A column for each split of a folder, or for one split folder, or for one LMDB.

    Args:
        path: has the LMDBs in it, or in folders in it, or is one.
        energy_unit, units_from: of LMDBs without a manifest.

    Raises:
        InputError: there are none, or they are damaged.
    """
    splits = _split_folders(path)
    manifests = [read_manifest(split) for split in splits]
    if all(manifests):
        return [describe_manifest(manifest) for manifest in manifests]
    return [_describe_records(split, energy_unit, units_from) for split in splits]


def describe_manifest(manifest: MoleculeManifest | StructuresManifest) -> Column:
    """The column of a converted split."""
    if manifest.split_method == "random":
        drawn = f"random, seed {manifest.seed}"
        if manifest.split_by:
            drawn += f", no {manifest.split_by} in two splits"
    else:
        drawn = f"given by {', '.join(manifest.split_files)}"
    what = _describe_structures if isinstance(manifest, StructuresManifest) else _describe_molecule
    return {
        "split": manifest.split,
        "conformations": f"{manifest.count:,} of {manifest.source_count:,}",
        "drawn": drawn,
        **what(manifest),
        "theory": manifest.theory,
        **_describe_labels(manifest.labels, manifest.energy_unit, manifest.units_from),
        "source": manifest.source_file,
        "source sha256": manifest.source_sha256[:16] + "…",
    }


def describe_trajectory(trajectory: Trajectory) -> Column:
    """The column of a file of conformations of one molecule, all of which are read and checked."""
    labels = LabelAccumulator()
    for block in tqdm(trajectory.blocks(), desc=printable(trajectory.molecule), unit="block"):
        check_conformations(trajectory.path, block)
        labels.add(block.energies, block.forces)
    what = {**_describe_molecule(trajectory), **_describe_dynamics(trajectory)}
    return _describe_file(trajectory, what, labels, trajectory.energy_unit, trajectory.units_from)


def describe_frames(frames: FrameFile) -> Column:
    """The column of a file of structures, all of which are read and checked."""
    labels, atoms = LabelAccumulator(), AtomAccumulator()
    for row in tqdm(range(frames.count), desc=printable(frames.path.name), unit="frame"):
        structure = frames.structure(row, fid=row)
        labels.add(np.array([structure.energy]), structure.forces)
        atoms.add(structure.atomic_numbers, structure.fixed, structure.pbc)
    return _describe_file(frames, _describe_atoms(atoms.statistics()), labels, ENERGY_UNIT, UNITS_FROM)


def _describe_file(
    file: Trajectory | FrameFile, what: Column, labels: LabelAccumulator, energy_unit: str, units_from: str
) -> Column:
    return {
        "file": file.path.name,
        "layout": file.layout,
        "conformations": f"{file.count:,}",
        **what,
        "theory": file.theory,
        **_describe_labels(labels.statistics(), energy_unit, units_from),
    }


def _describe_molecule(source: Trajectory | MoleculeManifest) -> Column:
    return {"molecule": source.molecule, "composition": source.formula, "atoms": f"{len(source.atomic_numbers)}"}


def _describe_dynamics(trajectory: Trajectory) -> Column:
    """How far apart conformations are, where the file says so."""
    if trajectory.interval_fs is None or trajectory.autocorrelation_fs is None:
        return {}
    independent = independent_count(trajectory.count, trajectory.autocorrelation_fs / trajectory.interval_fs)
    return {
        "interval (fs)": f"{trajectory.interval_fs:g}",
        "energy autocorrelation (fs)": f"{trajectory.autocorrelation_fs:,.0f}",
        "worth": f"about {independent:,} independent conformations",
    }


def _describe_atoms(atoms: AtomStatistics) -> Column:
    sizes = dict.fromkeys((atoms.natoms_min, atoms.natoms_max))
    return {
        "elements": ", ".join(chemical_symbols[number] for number in atoms.elements),
        "atoms": " to ".join(str(size) for size in sizes),
        "fixed atoms": f"{atoms.fixed_atoms:,} of {atoms.atoms:,}",
        "periodic along": ", ".join(f"{name}: {count:,}" for name, count in atoms.periodic_along.items()),
    }


def _describe_labels(labels: LabelStatistics, energy_unit: str, units_from: str) -> Column:
    force_unit = f"{energy_unit}/{LENGTH_UNIT}"
    return {
        "units": f"{energy_unit}, {LENGTH_UNIT}, {force_unit}",
        "units from": units_from,
        f"energy mean ({energy_unit})": f"{labels.energy_mean:,.4f}",
        f"energy std ({energy_unit})": f"{labels.energy_std:,.4f}",
        f"energy min ({energy_unit})": f"{labels.energy_min:,.4f}",
        f"energy max ({energy_unit})": f"{labels.energy_max:,.4f}",
        f"mean |force| ({force_unit})": f"{labels.mean_abs_force:,.4f}",
        f"max |force| ({force_unit})": f"{labels.max_abs_force:,.4f}",
        "max |label|": f"{labels.max_abs_label:,.4f}",
        "C (Eq. 4)": f"{labels.rescaling_constant:g}",
    }


def _split_folders(path: Path) -> list[Path]:
    if not path.is_dir() or any(path.glob("*.lmdb")):
        return [path]
    folders = {file.parent for file in path.glob("*/*.lmdb")}
    known = {name: order for order, name in enumerate(SPLIT_NAMES)}
    return sorted(folders, key=lambda folder: (known.get(folder.name, len(known)), folder.name)) or [path]


def _describe_structures(manifest: StructuresManifest) -> Column:
    edges, stored = manifest.edges, "none"
    if edges:
        stored = f"within {edges.cutoff:g} {LENGTH_UNIT}, at most {edges.max_neighbors} to an atom"
    return {
        "collection": manifest.collection,
        "shards": f"{manifest.shards:,}",
        **_describe_atoms(manifest.atoms),
        "stored edges": stored,
    }


def _describe_records(path: Path, energy_unit: str, units_from: str) -> Column:
    """Of LMDBs in fairchem's format that have no manifest: every record is opened, for which torch is imported."""
    from ocp_dc.datasets.lmdb import RecordFile
    from ocp_dc.datasets.shard_tree import ShardFolder, labels_of, pbc_of

    folder = ShardFolder.open(path)
    if not folder.count:
        raise InputError(f"{folder.path} holds no records; give another, or convert the data again")
    labels, atoms, with_edges = LabelAccumulator(), AtomAccumulator(), 0
    with tqdm(total=folder.count, desc=printable(folder.path.name), unit="record") as progress:
        for file in folder.files:
            with RecordFile(file) as records:
                for row in range(len(records)):
                    graph = records[row]
                    energy, forces = labels_of(f"{file}: record {row}", graph)
                    labels.add(np.array([energy]), forces)
                    numbers = np.asarray(graph.atomic_numbers).astype(np.int64)
                    atoms.add(numbers, np.asarray(graph.get("fixed", np.zeros(0))), pbc_of(graph))
                    with_edges += graph.get("edge_index") is not None
                    progress.update()
    return {
        "file": str(folder.path),
        "conformations": f"{folder.count:,}",
        "shards": f"{len(folder.files):,}",
        **_describe_atoms(atoms.statistics()),
        "stored edges": f"in {with_edges:,}",
        **_describe_labels(labels.statistics(), energy_unit, units_from),
    }
