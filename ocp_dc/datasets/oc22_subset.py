"""Subsets of OC22's own LMDBs, drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ocp_dc.datasets.conversion_settings import (
    DEFAULT_MAX_NEIGHBORS,
    DEFAULT_SHARD_SIZE,
    SPLITS_OF_SUBSET,
    check_settings,
)
from ocp_dc.datasets.manifest import StructuresManifest, read_manifest
from ocp_dc.datasets.shard_jobs import ShardJob, resumable_shards
from ocp_dc.datasets.shard_tree import ShardFolder
from ocp_dc.datasets.shard_writing import write_manifest
from ocp_dc.datasets.splits import Split, random_split, read_index_files
from ocp_dc.datasets.staging import output_folder
from ocp_dc.datasets.structures import ENERGY_UNIT, UNITS_FROM
from ocp_dc.errors import InputError
from ocp_dc.units import LENGTH_UNIT

TRAIN_FOLDER = "train"
TREE_LAYOUT = "fairchem's LMDBs"


def draw_subset(
    source: str | Path,
    out: str | Path,
    *,
    sizes: Mapping[str, int] | None = None,
    val_split: str = "val_ood",
    seed: int = 0,
    split_dir: str | Path | None = None,
    cutoff: float | None = None,
    max_neighbors: int = DEFAULT_MAX_NEIGHBORS,
    shard_size: int = DEFAULT_SHARD_SIZE,
    jobs: int = 1,
    show_progress: bool = False,
) -> dict[str, StructuresManifest]:
    """Draws ``out/train`` from ``source/train`` and ``out/val`` from ``source/<val_split>``, uniformly at random.

    The source is OC22's S2EF-total, or any folders of LMDBs in fairchem's format with total energies, in eV or in what
    their manifests say: records of old and new PyG, with ``y`` or ``energy`` and ``force`` or ``forces``; those without
    ``pbc`` are periodic in all directions, as for fairchem. Positions, labels and their units, ``sid`` and ``fid`` stay
    theirs; their edges are dropped.

    Records keep the source's order, its shards sorted by name. What has been written when the process ends, however it
    does, is in ``.<name of out>.partial`` beside ``out``; the same call then goes on there, and ends with the same
    files as without the interruption. ``out`` appears when it is complete; what is returned are its manifests by split.

    Args:
        source: the folder that holds the folders of LMDBs.
        out, sizes, seed, split_dir, cutoff, max_neighbors, shard_size, show_progress: see
            :func:`~ocp_dc.datasets.structure_conversion.convert_structures`; the splits are ``train`` and ``val``, and
            indices count over the sorted shards of a folder.
        val_split: the folder that ``val`` is drawn from.
        jobs: processes, each writing a shard at a time. More than one need an importable ``__main__``.

    Raises:
        InputError: anything is wrong with the source, the numbers or the place to write to. Finished shards are kept.
    """
    edges = check_settings(cutoff, max_neighbors, shard_size)
    out = output_folder(out, [source])
    if jobs < 1:
        raise InputError(f"--jobs {jobs}: at least one process is needed")
    if val_split == TRAIN_FOLDER:
        raise InputError(f"--split {val_split}: validation frames must be from another folder than training frames")
    sizes = {name: size for name, size in (sizes or {}).items() if size}
    names = SPLITS_OF_SUBSET if split_dir is not None or not sizes else tuple(sizes)
    if not set(names) <= set(SPLITS_OF_SUBSET):
        raise InputError(f"a subset has train and val only, not {', '.join(names)}")
    folder_of = {"train": TRAIN_FOLDER, "val": val_split}
    folders = {name: ShardFolder.open(Path(source) / folder_of[name]) for name in names}
    units = _common_units(folders)
    split = _draw(folders, sizes, seed, split_dir)

    jobs_of_split = {name: ShardJob(folders[name], rows, edges, shard_size) for name, rows in split.indices.items()}
    with resumable_shards(out, jobs_of_split, jobs, show_progress) as (folder, contents):
        manifests = {}
        for name, shards in contents.items():
            drawn_from = f"{Path(source).name}/{folder_of[name]}"
            source_fields = {
                "theory": "not stated",
                "collection": drawn_from,
                "source_file": drawn_from,
                "source_files": [file.name for file in folders[name].files],
                "source_sha256": folders[name].digest,
                "source_layout": TREE_LAYOUT,
                "source_count": folders[name].count,
            }
            manifests[name] = write_manifest(folder / name, shards, split, edges, source_fields, units)
    return manifests


def _common_units(folders: Mapping[str, ShardFolder]) -> tuple[str, str]:
    """The energy unit of all folders, and where it is from."""
    manifests = {folder.path: read_manifest(folder.path) for folder in folders.values()}
    for path, manifest in manifests.items():
        if manifest and manifest.length_unit != LENGTH_UNIT:
            raise InputError(f"{path} has lengths in {manifest.length_unit}; convert the data to {LENGTH_UNIT} first")
    units = {
        path: (manifest.energy_unit, manifest.units_from) if manifest else (ENERGY_UNIT, UNITS_FROM)
        for path, manifest in manifests.items()
    }
    if len({unit for unit, _ in units.values()}) > 1:
        listed = ", ".join(f"{path} in {unit}" for path, (unit, _) in units.items())
        raise InputError(f"the energies are in different units: {listed}; convert one of the two again")
    return next(iter(units.values()))


def _draw(
    folders: Mapping[str, ShardFolder], sizes: Mapping[str, int], seed: int, split_dir: str | Path | None
) -> Split:
    if split_dir is not None:
        return read_index_files(split_dir, {name: folder.count for name, folder in folders.items()})
    drawn = {}
    for name, folder in folders.items():
        try:
            drawn |= random_split(folder.count, {name: sizes.get(name, 0)}, seed).indices
        except InputError as error:
            raise InputError(f"{folder.path}: {error}") from error
    return Split(drawn, "random", seed=seed)
