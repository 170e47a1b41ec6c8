"""The npz files of MD17, rMD17 and sGDML, read as a stream without unpacking them."""

from __future__ import annotations

import lzma
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from ocp_dc.datasets.conformations import (
    Conformations,
    Trajectory,
    check_atomic_numbers,
    check_size,
    require_integers,
    resolve_energy_unit,
)
from ocp_dc.errors import InputError

LAYOUTS = {
    "MD17": {"energies": "E", "forces": "F", "positions": "R", "numbers": "z"},
    "rMD17": {"energies": "energies", "forces": "forces", "positions": "coords", "numbers": "nuclear_charges"},
}
LABELS = ("energies", "forces", "positions")
LENGTH_UNIT_SPELLINGS = ("ang", "angstrom", "å")
MAX_TEXT_BYTES = 10_000
MAX_HEADER_BYTES = 10_000
# more than DEFLATE can make of a byte: an archive that says so lies
LARGEST_EXPANSION = 1_040


def open_npz(path: Path, energy_unit: str | None) -> Trajectory:
    """See :func:`ocp_dc.datasets.molecule_files.open_trajectory`."""
    with _open_archive(path) as archive:
        present = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        layout = _layout(path, present)
        keys = LAYOUTS[layout]
        with _ArrayMember(path, archive, keys["numbers"]) as member:
            check_size(path, math.prod(member.shape))
            require_integers(path, member.shape, member.dtype)
            numbers = check_atomic_numbers(path, member.whole())
        texts = {key: _text(path, archive, key) for key in ("name", "theory", "e_unit", "r_unit") if key in present}
        stated = [key for key in ("interval_fs", "energy_autocorrelation_fs") if key in present]
        times = {key: _positive(path, archive, key) for key in stated}
        unit, units_from = resolve_energy_unit(path, texts.get("e_unit", ""), energy_unit)
        length_unit = texts.get("r_unit", "")
        if length_unit.strip().lower() not in ("", "unknown", *LENGTH_UNIT_SPELLINGS):
            raise InputError(f"{path}: r_unit is {length_unit!r}; convert positions and forces to Angstrom first")
        return _NpzTrajectory(
            path=path,
            layout=layout,
            count=_common_count(path, archive, keys, len(numbers)),
            atomic_numbers=numbers,
            molecule=texts.get("name") or path.stem,
            theory=texts.get("theory") or Trajectory.theory,
            energy_unit=unit,
            units_from=units_from,
            interval_fs=times.get("interval_fs"),
            autocorrelation_fs=times.get("energy_autocorrelation_fs"),
        )


@dataclass(frozen=True)
class _NpzTrajectory(Trajectory):
    def blocks(self) -> Iterator[Conformations]:
        keys = LAYOUTS[self.layout]
        with _open_archive(self.path) as archive, ExitStack() as stack:
            members = [stack.enter_context(_ArrayMember(self.path, archive, keys[name])) for name in LABELS]
            start = 0
            for energies, forces, positions in zip(
                *(member.blocks(self.block_rows) for member in members), strict=True
            ):
                rows = np.arange(start, start + len(energies))
                yield Conformations(rows, energies.reshape(-1), forces, positions)
                start += len(rows)


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path} is not an npz file, or it is damaged ({error}); give another, or get it again"
        ) from error


def _layout(path: Path, present: list[str]) -> str:
    layout = max(LAYOUTS, key=lambda name: len(set(present) & set(LAYOUTS[name].values())))
    missing = [key for key in LAYOUTS[layout].values() if key not in present]
    if missing:
        raise InputError(
            f"{path} has no {' and no '.join(missing)}; there is: {', '.join(sorted(present)) or 'nothing'}. "
            f"{layout} files have {', '.join(LAYOUTS[layout].values())}"
        )
    return layout


def _common_count(path: Path, archive: zipfile.ZipFile, keys: Mapping[str, str], natoms: int) -> int:
    shapes = {}
    for name in LABELS:
        with _ArrayMember(path, archive, keys[name]) as member:
            if member.dtype.kind not in "fiu":
                raise InputError(f"{path}: {keys[name]} holds {member.dtype}; store real numbers")
            shapes[name] = member.shape
    count = shapes["energies"][0] if shapes["energies"] else 0
    energies_agree = shapes["energies"] in ((count,), (count, 1))
    if not (count and energies_agree and shapes["forces"] == shapes["positions"] == (count, natoms, 3)):
        listed = ", ".join(f"{keys[name]} {shape}" for name, shape in shapes.items())
        raise InputError(
            f"{path}: the shapes disagree: {listed}, {keys['numbers']} ({natoms},). For N > 0 conformations of A atoms "
            "they are (N, 1) or (N,), (N, A, 3), (N, A, 3) and (A,)"
        )
    return count


def _text(path: Path, archive: zipfile.ZipFile, key: str) -> str:
    """A text or bytes array of one element; empty for anything else."""
    with _ArrayMember(path, archive, key) as member:
        if member.dtype.kind not in "SU" or math.prod(member.shape) != 1 or member.dtype.itemsize > MAX_TEXT_BYTES:
            return ""
        value = member.whole().item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _positive(path: Path, archive: zipfile.ZipFile, key: str) -> float | None:
    """An array of one positive number; None for anything else."""
    with _ArrayMember(path, archive, key) as member:
        if member.dtype.kind not in "fiu" or math.prod(member.shape) != 1:
            return None
        value = float(member.whole().item())
    return value if 0 < value < math.inf else None


def announced_rows(path: Path, key: str) -> int | None:
    """Of an array, by its header; None where there is no such array. What is no archive of numpy's raises anything."""
    with zipfile.ZipFile(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            return None
        (rows, *_), _, _ = _read_array_header(_start_of(archive, key))
        return rows


def _start_of(archive: zipfile.ZipFile, key: str) -> BytesIO:
    with archive.open(f"{key}.npy") as stream:
        return BytesIO(stream.read(MAX_HEADER_BYTES))


def _read_array_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order (by columns?) and type of an array in numpy's format; what it holds is not read."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    return readers[npy.read_magic(stream)](stream)


def _require_announced(path: Path, archive: zipfile.ZipFile, key: str, size: int) -> None:
    """Before anything is made of the size that an array announces: the archive has as many bytes, and can have them."""
    member = archive.getinfo(f"{key}.npy")
    if member.file_size != size:
        raise InputError(f"{path}: {key} announces {size:,} bytes and has {member.file_size:,}; get the file again")
    if member.compress_size > path.stat().st_size or size > LARGEST_EXPANSION * (member.compress_size + 1):
        raise InputError(f"{path}: {key} announces {size:,} bytes, which the file is too small for; get it again")


class _ArrayMember:
    """One array of an npz file, read from its compressed stream; pickled objects are never loaded."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, key: str) -> None:
        self._key = key
        start = _start_of(archive, key)
        try:
            self.shape, self._by_columns, self.dtype = _read_array_header(start)
        except Exception as error:  # what is no header raises anything
            raise InputError(f"{path}: {key} is not a numpy array ({error}); make the file again") from error
        if self.dtype.hasobject:
            raise InputError(f"{path}: {key} holds pickled objects, which are never loaded; store numbers or text")
        _require_announced(path, archive, key, start.tell() + math.prod(self.shape) * self.dtype.itemsize)
        self._stream: BinaryIO = archive.open(f"{key}.npy")
        self._stream.read(start.tell())

    def __enter__(self) -> _ArrayMember:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def whole(self) -> np.ndarray:
        values = np.frombuffer(self._read(math.prod(self.shape)), self.dtype)
        return values.reshape(self.shape, order="F" if self._by_columns else "C")

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """The array in float64, ``rows`` rows at a time."""
        if self._by_columns:
            yield from self._blocks_by_columns(rows)
            return
        for start in range(0, self.shape[0], rows):
            shape = (min(rows, self.shape[0] - start), *self.shape[1:])
            yield np.frombuffer(self._read(math.prod(shape)), self.dtype).reshape(shape).astype(np.float64)
        self._stream.read(1)  # at the end of the member, zipfile compares checksums

    def _blocks_by_columns(self, rows: int) -> Iterator[np.ndarray]:
        """In Fortran order a row is spread over the whole array, so it goes through a file on disk."""
        with tempfile.TemporaryFile() as file:
            while chunk := self._stream.read(1 << 20):
                file.write(chunk)
            file.flush()
            array = np.memmap(file, self.dtype, "r", shape=self.shape, order="F")
            for start in range(0, self.shape[0], rows):
                yield np.array(array[start : start + rows], dtype=np.float64, order="C")

    def _read(self, items: int) -> bytes:
        size = items * self.dtype.itemsize
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError(f"{self._key} ends early")
        return data
