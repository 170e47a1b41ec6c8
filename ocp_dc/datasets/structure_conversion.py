"""Periodic structures as LMDBs that the host reads: converted from the user's files, or drawn from OC22's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

import numpy as np
from tqdm import tqdm

import ocp_dc
from ocp_dc.datasets.ase_files import FrameFile, open_frames
from ocp_dc.datasets.manifest import EdgeSettings, StructuresManifest, sha256_of
from ocp_dc.datasets.shard_jobs import ShardJob, resumable_shards
from ocp_dc.datasets.shard_tree import ShardFolder
from ocp_dc.datasets.splits import Split, grouped_split, random_split, read_index_files, read_split_dir
from ocp_dc.datasets.staging import is_conversion, staged_folder
from ocp_dc.datasets.structures import (
    DEFAULT_MAX_NEIGHBORS,
    DEFAULT_SHARD_SIZE,
    ShardContents,
    ShardedWriter,
    check_settings,
)
from ocp_dc.errors import InputError
from ocp_dc.statistics import AtomAccumulator, LabelAccumulator
from ocp_dc.units import LENGTH_UNIT

ENERGY_UNIT = "eV"
UNITS_FROM = "convention"
TRAIN_FOLDER = "train"
TREE_LAYOUT = "host's LMDBs"
BY_FILE = "file"
SPLITS_OF_SUBSET = ("train", "val")


def oxide_sample_path() -> Path:
    """The embedded sample: oxide slabs with adsorbates, labelled with GFN1-xTB (see its README)."""
    return Path(__file__).parent / "sample" / "oxide_slabs_gfn1.traj"


def convert_structures(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    split_by: str | None = None,
    split_dir: str | Path | None = None,
    cutoff: float | None = None,
    max_neighbors: int = DEFAULT_MAX_NEIGHBORS,
    shard_size: int = DEFAULT_SHARD_SIZE,
    overwrite: bool = False,
    show_progress: bool = False,
) -> dict[str, StructuresManifest]:
    """Converts files of labelled structures to ``out/{train,val,test}``.

    Each has shards ``data.0000.lmdb``, …, ``metadata.npz`` and ``manifest.json``. Records keep the order of the files
    and frames, and their ``fid`` is the number of the frame in that order. ``out`` appears when it is complete.

    Args:
        files: see :func:`~ocp_dc.datasets.ase_files.open_frames`. Their frames are split as one collection.
        out: the folder to make.
        sizes: number of structures of each split, drawn by :func:`~ocp_dc.datasets.splits.random_split`.
        seed: of that draw.
        split_by: ``file`` or a key of the frames' ``info``: no file, or no value of that key, is then in two splits,
            see :func:`~ocp_dc.datasets.splits.grouped_split`.
        split_dir: read the splits from here instead, see :func:`~ocp_dc.datasets.splits.read_split_dir`.
        cutoff: store the edges within this distance, Å; None stores none.
        max_neighbors: of stored edges, to an atom.
        shard_size: structures in a shard.
        overwrite: replace an earlier conversion at ``out`` once the new one is complete.
        show_progress: show a progress bar.

    Returns:
        The manifests, by split name.

    Raises:
        InputError: anything is wrong with the files, the splits or the place to write to; nothing is left at ``out``.
    """
    edges = check_settings(cutoff, max_neighbors, shard_size)
    if split_by is not None and split_dir is not None:
        raise InputError("--split-dir gives the splits; leave out --split-by")
    _refuse_repeated(files)
    sources = [open_frames(file) for file in files]
    first_rows = [0, *accumulate(source.count for source in sources)]
    if split_dir is not None:
        split = read_split_dir(split_dir, first_rows[-1])
    elif split_by is not None:
        split = grouped_split(_groups(sources, split_by, show_progress), sizes or {}, seed, split_by)
    else:
        split = random_split(first_rows[-1], sizes or {}, seed)

    with staged_folder(out, may_replace=is_conversion if overwrite else None) as folder, ExitStack() as stack:
        writers = {name: ShardedWriter(folder / name, edges, shard_size) for name in split.indices}
        for writer in writers.values():
            stack.callback(writer.close)
        _write_frames(sources, first_rows, split, writers, show_progress)
        origin = {
            "theory": ", ".join(dict.fromkeys(source.theory for source in sources)),
            "collection": _name_of_several([source.path.stem for source in sources]),
            "source_file": ", ".join(source.path.name for source in sources),
            "source_files": [source.path.name for source in sources],
            "source_sha256": _sha256_of_files([source.path for source in sources]),
            "source_layout": ", ".join(dict.fromkeys(source.layout for source in sources)),
            "source_count": first_rows[-1],
        }
        manifests = {}
        for name, writer in writers.items():
            manifests[name] = _manifest(name, writer.finish(), split, edges, origin)
            manifests[name].write(folder / name)
    return manifests


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

    The source is OC22's S2EF-total, or any folders of LMDBs in the host's format with total energies in eV: records of
    old and new PyG, with ``y`` or ``energy`` and ``force`` or ``forces``; those without ``pbc`` are periodic in all
    directions, as for the host. Positions, ``sid`` and ``fid`` stay theirs; their edges are dropped.

    Records keep the source's order, its shards sorted by name. What has been written when the process ends, however it
    does, is in ``.<name of out>.partial`` beside ``out``; the same call then goes on there, and ends with the same
    files as without the interruption. ``out`` appears when it is complete.

    Args:
        source: the folder that holds the folders of LMDBs.
        out: the folder to make.
        sizes: ``train`` and ``val``, numbers of records to draw.
        val_split: the folder that ``val`` is drawn from.
        seed: of both draws.
        split_dir: read the row numbers, counted over the sorted shards of each folder, from
            ``{train,val}.{npy,txt,json,pkl}`` here instead.
        cutoff, max_neighbors, shard_size: see :func:`convert_structures`.
        jobs: processes, each writing a shard at a time. More than one need an importable ``__main__``.
        show_progress: show a progress bar.

    Returns:
        The manifests, by split name.

    Raises:
        InputError: anything is wrong with the source, the numbers or the place to write to. Finished shards are kept.
    """
    edges = check_settings(cutoff, max_neighbors, shard_size)
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
    split = _draw(folders, sizes, seed, split_dir)

    jobs_of_split = {name: ShardJob(folders[name], rows, edges, shard_size) for name, rows in split.indices.items()}
    with resumable_shards(out, jobs_of_split, jobs, show_progress) as (folder, contents):
        manifests = {}
        for name in split.indices:
            origin = {
                "theory": "not stated",
                "collection": f"{Path(source).name}/{folder_of[name]}",
                "source_file": f"{Path(source).name}/{folder_of[name]}",
                "source_files": [file.name for file in folders[name].files],
                "source_sha256": folders[name].digest,
                "source_layout": TREE_LAYOUT,
                "source_count": folders[name].count,
            }
            manifests[name] = _manifest(name, contents[name], split, edges, origin)
            manifests[name].write(folder / name)
    return manifests


def _groups(sources: Sequence[FrameFile], split_by: str, show_progress: bool) -> list[str]:
    frames = [(source, row) for source in sources for row in range(source.count)]
    if split_by == BY_FILE:
        return [str(source.path) for source, _ in frames]
    frames = tqdm(frames, desc=split_by, unit="frame", disable=not show_progress)
    return [source.value(row, split_by) for source, row in frames]


def _write_frames(
    sources: Sequence[FrameFile],
    first_rows: Sequence[int],
    split: Split,
    writers: Mapping[str, ShardedWriter],
    show_progress: bool,
) -> None:
    names = np.repeat(list(split.indices), [len(rows) for rows in split.indices.values()])
    rows = np.concatenate(list(split.indices.values()))
    order = rows.argsort()
    for at in tqdm(order, unit="frame", disable=not show_progress):
        row, writer = int(rows[at]), writers[names[at]]
        number = int(np.searchsorted(first_rows, row, side="right")) - 1
        row_in_file = row - first_rows[number]
        writer.add(sources[number].structure(row_in_file, fid=row), number, row_in_file)


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


def _manifest(
    name: str, shards: Sequence[ShardContents], split: Split, edges: EdgeSettings | None, origin: dict
) -> StructuresManifest:
    labels, atoms = LabelAccumulator(), AtomAccumulator()
    for shard in shards:
        labels.merge(shard.labels)
        atoms.merge(shard.atoms)
    return StructuresManifest(
        split=name,
        count=labels.count,
        energy_unit=ENERGY_UNIT,
        length_unit=LENGTH_UNIT,
        force_unit=f"{ENERGY_UNIT}/{LENGTH_UNIT}",
        units_from=UNITS_FROM,
        split_method=split.method,
        seed=split.seed,
        split_by=split.by,
        split_files=split.files,
        labels=labels.statistics(),
        ocp_dc_version=ocp_dc.__version__,
        shards=len(shards),
        atoms=atoms.statistics(),
        edges=edges,
        **origin,
    )


def _refuse_repeated(files: Iterable[str | Path]) -> None:
    seen: set[Path] = set()
    for file in files:
        if Path(file).resolve() in seen:
            raise InputError(f"{file} is given twice; its frames would be in training and test sets at once")
        seen.add(Path(file).resolve())
    if not seen:
        raise InputError("no files to convert; give at least one")


def _name_of_several(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _sha256_of_files(files: Sequence[Path]) -> str:
    digests = [sha256_of(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
