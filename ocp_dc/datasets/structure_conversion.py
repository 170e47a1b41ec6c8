"""Files of labelled periodic structures, converted to LMDBs that fairchem reads."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ocp_dc.datasets.ase_files import FrameFile, open_frames
from ocp_dc.datasets.conformations import require_some_forces
from ocp_dc.datasets.conversion_settings import DEFAULT_MAX_NEIGHBORS, DEFAULT_SHARD_SIZE, EdgeSettings, check_settings
from ocp_dc.datasets.manifest import StructuresManifest, sha256_of
from ocp_dc.datasets.shard_writing import ShardContents, ShardWriter, shard_name, write_manifest, write_metadata
from ocp_dc.datasets.splits import grouped_split, random_split, read_split_dir
from ocp_dc.datasets.staging import staged_folder
from ocp_dc.errors import InputError
from ocp_dc.terminal import printable

BY_FILE = "file"


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
    and frames, and their ``fid`` is the number of the frame in that order. ``out`` appears when it is complete; what is
    returned are its manifests by split.

    Args:
        files: see :func:`~ocp_dc.datasets.ase_files.open_frames`. Their frames are split as one collection.
        out, sizes, seed, split_dir, overwrite, show_progress: see
            :func:`~ocp_dc.datasets.molecule_conversion.convert`.
        split_by: ``file`` or a key of the frames' ``info``: no file, or no value of that key, is then in two splits,
            see :func:`~ocp_dc.datasets.splits.grouped_split`.
        cutoff: store the edges within this distance, Å; None stores none.
        max_neighbors: of stored edges, to an atom.
        shard_size: structures in a shard.

    Raises:
        InputError: anything is wrong with the files, the splits or the place to write to; nothing is left at ``out``.
    """
    edges = check_settings(cutoff, max_neighbors, shard_size)
    if split_by is not None and split_dir is not None:
        raise InputError("--split-dir gives the splits; leave out --split-by")
    _refuse_repeated(files)
    sources = [open_frames(file) for file in files]
    count = sum(source.count for source in sources)
    if split_dir is not None:
        split = read_split_dir(split_dir, count)
    elif split_by is not None:
        split = grouped_split(_groups(sources, split_by, show_progress), sizes or {}, seed, split_by)
    else:
        split = random_split(count, sizes or {}, seed)

    with staged_folder(out, overwrite, files) as folder:
        total = sum(map(len, split.indices.values()))
        with tqdm(total=total, unit="frame", disable=not show_progress) as progress:
            shards = {
                name: _write_shards(sources, rows, folder / name, edges, shard_size, progress)
                for name, rows in split.indices.items()
            }
        contents = [shard for of_split in shards.values() for shard in of_split]
        require_some_forces(
            ", ".join(map(str, files)), [each.labels for each in contents], max(max(each.natoms) for each in contents)
        )
        source_fields = {
            "theory": ", ".join(dict.fromkeys(source.theory for source in sources)),
            "collection": _name_of_several([source.path.stem for source in sources]),
            "source_file": ", ".join(source.path.name for source in sources),
            "source_files": [source.path.name for source in sources],
            "source_sha256": _sha256_of_files([source.path for source in sources]),
            "source_layout": ", ".join(dict.fromkeys(source.layout for source in sources)),
            "source_count": count,
        }
        return {name: write_manifest(folder / name, shards[name], split, edges, source_fields) for name in shards}


def _groups(sources: Sequence[FrameFile], split_by: str, show_progress: bool) -> list[str]:
    frames = [(source, row) for source in sources for row in range(source.count)]
    if split_by == BY_FILE:
        return [str(source.path) for source, _ in frames]
    with tqdm(frames, desc=printable(split_by), unit="frame", disable=not show_progress) as progress:
        return [source.value(row, split_by) for source, row in progress]


def _write_shards(
    sources: Sequence[FrameFile],
    rows: np.ndarray,
    folder: Path,
    edges: EdgeSettings | None,
    shard_size: int,
    progress: tqdm,
) -> list[ShardContents]:
    folder.mkdir()
    first_rows = [0, *accumulate(source.count for source in sources)]
    shards = []
    for start in range(0, len(rows), shard_size):
        with ShardWriter(folder / shard_name(len(shards)), edges) as writer:
            for row in rows[start : start + shard_size].tolist():
                number = bisect_right(first_rows, row) - 1
                row_in_file = row - first_rows[number]
                writer.add(sources[number].structure(row_in_file, fid=row), number, row_in_file)
                progress.update()
        shards.append(writer.contents)
    write_metadata(folder, shards)
    return shards


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
