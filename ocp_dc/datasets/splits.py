"""Which conformations are for training, validation and test: drawn at random from a seed, or given by files."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import pickletools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from ocp_dc.datasets.conversion_settings import SPLIT_NAMES
from ocp_dc.errors import InputError

FILE_STEMS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
SUFFIXES = (".npy", ".txt", ".json", ".pkl")
MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


@dataclass(frozen=True)
class Split:
    """Disjoint sets of conformations.

    Attributes:
        indices: split name to row numbers in the source, (n,) int64, ascending. Empty splits are left out.
        method: ``random`` or ``given``.
        seed: of the random draw.
        by: what :func:`grouped_split` grouped by.
        files: name to sha256 of the files that gave the indices.
    """

    indices: dict[str, np.ndarray]
    method: str
    seed: int | None = None
    by: str | None = None
    files: dict[str, str] = field(default_factory=dict)


def random_split(count: int, sizes: Mapping[str, int], seed: int) -> Split:
    """Uniform random disjoint splits of ``count`` conformations.

    ``numpy.random.default_rng(seed).permutation(count)`` is dealt out to test first, then validation, then training:
    one seed gives the same test and validation sets whatever the size of the training set, and nested training sets.

    Args:
        count: number of conformations there are.
        sizes: split name (``train``, ``val``, ``test``) to number of conformations.
        seed: of numpy's default generator, not negative.

    Raises:
        InputError: a size is negative, all are zero, or together they ask for more than there is.
    """
    _check_sizes(count, sizes, seed)
    order = np.random.default_rng(seed).permutation(count)
    indices = {}
    for name in reversed(SPLIT_NAMES):
        drawn, order = np.split(order, [sizes.get(name, 0)])
        indices[name] = np.sort(drawn)
    return _drawn(indices, seed)


def grouped_split(groups: Sequence[str], sizes: Mapping[str, int], seed: int, by: str) -> Split:
    """Random disjoint splits that no group is in two of: systems tested on are new, not relatives of training ones.

    Groups are put in random order, and the conformations of each too; test takes as many as it is to have from the
    beginning, validation from the next group on, then training: one seed is as good as for :func:`random_split`.

    Args:
        groups: the group of each conformation, (N,).
        sizes, seed: see :func:`random_split`.
        by: what the groups are, for messages and manifests.

    Raises:
        InputError: as there; the groups left for a split have too few conformations.
    """
    count = len(groups)
    _check_sizes(count, sizes, seed)
    names, group = np.unique(groups, return_inverse=True)
    random = np.random.default_rng(seed)
    place, order = random.permutation(len(names)), random.permutation(count)
    order = order[place[group[order]].argsort(kind="stable")]
    indices = {}
    for name in reversed(SPLIT_NAMES):
        size = sizes.get(name, 0)
        if size > len(order):
            raise InputError(
                f"--{name} {size}: only {len(order):,} conformations are left for it, since no {by} may be in two "
                f"splits ({len(names):,} of them, {count:,} conformations); ask for fewer, or try another --seed"
            )
        indices[name] = np.sort(order[:size])
        order = order[~np.isin(group[order], group[indices[name]])]
    return _drawn(indices, seed, by)


def _drawn(indices: Mapping[str, np.ndarray], seed: int, by: str | None = None) -> Split:
    return Split({name: indices[name] for name in SPLIT_NAMES if len(indices[name])}, "random", seed=seed, by=by)


def _check_sizes(count: int, sizes: Mapping[str, int], seed: int) -> None:
    for name, size in sizes.items():
        if size < 0:
            raise InputError(f"--{name} {size}: the number of conformations cannot be negative")
    if seed < 0:
        raise InputError(f"--seed {seed}: the seed cannot be negative")
    asked = sum(sizes.values())
    if not asked:
        raise InputError("no conformations asked for: give --train, --val or --test a positive number")
    if asked > count:
        listed = " + ".join(f"{size:,} {name}" for name, size in sizes.items())
        raise InputError(f"asked for {listed} = {asked:,} conformations, but there are {count:,}; ask for fewer")


def read_split_dir(folder: str | Path, count: int) -> Split:
    """Disjoint splits of one source, see :func:`read_index_files`.

    Args:
        folder: has a file each for ``train``, ``val`` and ``test``.
        count: number of conformations there are.

    Raises:
        InputError: as there; an index is in two splits.
    """
    split = read_index_files(folder, dict.fromkeys(SPLIT_NAMES, count))
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = np.intersect1d(split.indices[first], split.indices[second])
        if len(shared):
            files = {name: _find_file(Path(folder), FILE_STEMS[name]) for name in (first, second)}
            raise InputError(
                f"{files[first]} and {files[second]} share {len(shared)} conformations, the first is {shared[0]}; "
                "take them out of one of the two"
            )
    return split


def read_index_files(folder: str | Path, counts: Mapping[str, int]) -> Split:
    """Indices given by ``{train,valid,test}.{npy,txt,json,pkl}`` in a folder (``val`` is read as ``valid``).

    A file holds the row numbers, from 0, as a 1-d integer array (npy), whitespace-separated integers (txt) or a list of
    integers (json, pkl). A pickle that holds anything else is refused before any of it is run.

    Args:
        folder: where the files are.
        counts: split name to number of conformations that its indices may name. Each split must have a file.

    Raises:
        InputError: a file is missing, ambiguous or unreadable; an index is out of range or repeated.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--split-dir {folder}: there is no such folder")
    files = {name: _find_file(folder, FILE_STEMS[name]) for name in counts}
    indices = {name: _read_indices(file) for name, file in files.items()}
    for name, rows in indices.items():
        _check_indices(files[name], rows, counts[name])
    return Split(
        {name: np.sort(rows) for name, rows in indices.items()},
        "given",
        files={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files.values()},
    )


def _find_file(folder: Path, stems: tuple[str, ...]) -> Path:
    found = [folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]
    found = [file for file in found if file.is_file()]
    if not found:
        raise InputError(f"{folder} has no file {'|'.join(stems)} with the ending {', '.join(SUFFIXES)}; add it")
    if len(found) > 1:
        raise InputError(f"{folder} has both {found[0].name} and {found[1].name}; leave only one of them there")
    return found[0]


def _read_indices(file: Path) -> np.ndarray:
    try:
        if file.suffix == ".npy":
            values = np.load(file, allow_pickle=False)
        elif file.suffix == ".pkl":
            with file.open("rb") as stream:
                _require_small_memo(stream)
                values = _IntegerListUnpickler(stream).load()
        elif file.suffix == ".json":
            values = json.loads(file.read_text("utf-8"))
        else:
            values = [int(word) for word in file.read_text("utf-8").split()]
    except InputError:
        raise
    except Exception as error:  # unpickling damaged bytes may raise anything
        raise InputError(f"{file} cannot be read as {file.suffix} ({error}); write the indices again") from error

    if isinstance(values, np.ndarray):
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise InputError(f"{file} holds {values.dtype} of shape {values.shape}, not a 1-d array of integers")
    elif not isinstance(values, list) or any(type(value) is not int for value in values):
        raise InputError(f"{file} does not hold a list of integers; write it as one, or as a .npy file")
    try:
        return np.asarray(values, dtype=np.int64)
    except OverflowError as error:
        raise InputError(f"{file} holds an index beyond 64 bits; correct it") from error


def _check_indices(file: Path, rows: np.ndarray, count: int) -> None:
    if not len(rows):
        raise InputError(f"{file} holds no indices; a split needs at least one conformation")
    outside = rows[(rows < 0) | (rows >= count)]
    if len(outside):
        raise InputError(
            f"{file}: index {outside[0]} is out of range, there are {count:,} conformations, counted from 0"
        )
    unique, repeats = np.unique(rows, return_counts=True)
    if len(unique) < len(rows):
        raise InputError(f"{file}: index {unique[repeats > 1][0]} is there more than once; keep it once")


def _require_small_memo(stream: BinaryIO) -> None:
    """Before it is unpickled: a pickle of nine bytes can ask for 32 GB to remember objects in."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in MEMO_OPCODES and int(argument) > size:
            raise ValueError(f"it remembers object {argument} of at most {size}")
    stream.seek(0)


class _IntegerListUnpickler(pickle.Unpickler):
    """Builds plain lists and numbers only: a pickle can do nothing else without naming a class or a function."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._file = stream.name

    def find_class(self, module: str, name: str) -> NoReturn:
        raise InputError(
            f"{self._file} is not a pickled list of integers: it names {module}.{name}, which was not run; "
            "write the indices as a plain list of int, or as a .npy file"
        )
