"""Predictions for structures of any file, in eV and eV/Å, written as extended XYZ or npz."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io.extxyz import key_val_dict_to_str
from numpy.lib import format as npy
from torch_geometric.data import Data
from tqdm import tqdm

from ocp_dc.calculator import load
from ocp_dc.datasets.structure_files import read_structures
from ocp_dc.errors import InputError
from ocp_dc.files import replacing, require_writable
from ocp_dc.trainers.prediction import evaluation_batch_size

UNITS = {"energy_unit": "eV", "forces_unit": "eV/Ang", "positions_unit": "Ang"}
# of a frame, what the line above its atoms has beside what is in its info
FRAME_KEYS = {"Lattice", "Properties", "pbc", "energy", "free_energy", "forces", "stress"}


class PredictionWriter(AbstractContextManager):
    """Takes predictions one by one; the file is complete when the context ends."""

    def write(self, atoms: Atoms, result: dict[str, Any]) -> None:
        """Adds a structure with ``energy`` (eV) and ``forces`` (A, 3) (eV/Å)."""
        raise NotImplementedError


def predict_file(
    checkpoint: str | Path,
    structures: str | Path,
    to: Path,
    *,
    batch_size: int | None = None,
    cpu: bool = False,
    energy_unit: str | None = None,
    any_element: bool = False,
    overwrite: bool = False,
) -> int:
    """Writes energies and forces of all structures of a file, in their order; gives their number.

    Args:
        checkpoint, energy_unit, any_element: see :func:`ocp_dc.calculator.load`.
        structures: see :func:`ocp_dc.datasets.structure_files.read_structures`. Labels are not looked at.
        to: ``.extxyz`` or ``.xyz`` (:class:`ExtxyzWriter`) or ``.npz`` (:class:`NpzWriter`); it appears when it is
            complete.
        batch_size: structures predicted at once, at most; None for as many as are fast.
        overwrite: replace a file at ``to``.

    Raises:
        InputError: anything is wrong with the checkpoint, the structures or the file to write.
    """
    kind = writer_of(to)
    require_writable(to, "--to", overwrite)
    for read in (Path(checkpoint), Path(structures)):
        if to.exists() and read.exists() and to.samefile(read):
            raise InputError(f"{to} is read, and would be replaced by predictions; name another file with --to")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}; give 1 or more, or leave it out")
    source = read_structures(structures)
    device = torch.device("cpu" if cpu or not torch.cuda.is_available() else "cuda")
    model = load(checkpoint, device, energy_unit, any_element)
    size = batch_size or _batch_size(source[0], device)
    with (
        replacing(to) as partial,
        kind(partial) as writer,
        tqdm(total=len(source), desc="predicting", unit="structure") as progress,
    ):
        for some in _pieces(source, size):
            for atoms, result in zip(some, model.evaluate(some), strict=True):
                if not (np.isfinite(result["energy"]) and np.isfinite(result["forces"]).all()):
                    raise InputError(
                        f"{structures}: the model's energy or forces of {atoms.get_chemical_formula()} are not finite; "
                        "take an earlier checkpoint of the run, or leave the structure out"
                    )
                writer.write(atoms, result)
            progress.update(len(some))
    return len(source)


def writer_of(path: Path) -> type[PredictionWriter]:
    """What writes files with this ending.

    Raises:
        InputError: nothing does.
    """
    if path.suffix.lower() not in _WRITERS:
        raise InputError(f"{path}: predictions are written to {', '.join(_WRITERS)} files; choose one of these endings")
    return _WRITERS[path.suffix.lower()]


def _pieces(structures: Iterable[Atoms], size: int) -> Iterator[list[Atoms]]:
    left = iter(structures)
    while some := list(islice(left, size)):
        yield some


def _batch_size(atoms: Atoms, device: torch.device) -> int:
    return evaluation_batch_size(Data(natoms=len(atoms), pbc=torch.from_numpy(atoms.pbc)), device)


class ExtxyzWriter(PredictionWriter):
    """Extended XYZ with ``energy``, ``forces`` and ``pbc`` under ASE's names, and all digits of float64.

    Cell, tags, fixed atoms (``move_mask``) and what is in ``info`` stay as they were; ASE's own writer rounds positions
    and forces to eight decimals.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, atoms: Atoms, result: dict[str, Any]) -> None:
        columns = {
            "species:S:1": atoms.get_chemical_symbols(),
            "pos:R:3": atoms.positions,
            "forces:R:3": result["forces"],
        }
        if atoms.has("tags"):
            columns["tags:I:1"] = atoms.get_tags()
        fixed = [constraint.get_indices() for constraint in atoms.constraints if isinstance(constraint, FixAtoms)]
        if fixed:
            movable = np.full(len(atoms), "T")
            movable[np.concatenate(fixed)] = "F"
            columns["move_mask:L:1"] = movable
        words = [_words(column) for column in columns.values()]
        self._file.write(f"{len(atoms)}\n{_headline(atoms, ':'.join(columns), result['energy'])}\n")
        self._file.writelines(f"{' '.join(row)}\n" for row in zip(*words, strict=True))


def _headline(atoms: Atoms, properties: str, energy: float) -> str:
    lattice = {"Lattice": atoms.cell.array.T} if atoms.cell.any() else {}
    info = {key: value for key, value in atoms.info.items() if key not in FRAME_KEYS}
    return key_val_dict_to_str({**lattice, "Properties": properties, **info, "energy": energy, "pbc": atoms.pbc})


def _words(column: Sequence[str] | np.ndarray) -> list[str]:
    """Of each atom; numbers with as many digits as tell them apart."""
    if np.ndim(column) == 1:
        return [str(value) for value in column]
    return [" ".join(map(repr, row)) for row in column.tolist()]


class NpzWriter(PredictionWriter):
    """An npz file of N structures with A₁, A₂, … atoms, those of all structures one after another.

    ``energy`` (N,) and ``forces`` (A₁ + A₂ + …, 3), float64; ``natoms`` (N,) and ``atomic_numbers`` (A₁ + A₂ + …,),
    int64; ``positions`` (A₁ + A₂ + …, 3), float64; ``energy_unit``, ``forces_unit`` and ``positions_unit``.
    ``numpy.split(forces, numpy.cumsum(natoms)[:-1])`` are the forces of each structure.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: dict[str, list[np.ndarray]] = {}

    def write(self, atoms: Atoms, result: dict[str, Any]) -> None:
        arrays = {
            "energy": np.array([result["energy"]]),
            "forces": result["forces"].astype(np.float64),
            "natoms": np.array([len(atoms)]),
            "atomic_numbers": atoms.numbers.astype(np.int64),
            "positions": atoms.positions,
        }
        for name, array in arrays.items():
            self._pieces.setdefault(name, []).append(array)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            return
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, pieces in self._pieces.items():
                _write_joined(archive, name, pieces)
            for name, unit in UNITS.items():
                _write_joined(archive, name, [np.array(unit)])


def _write_joined(archive: zipfile.ZipFile, name: str, pieces: Sequence[np.ndarray]) -> None:
    """Pieces as one array, which is never in memory beside them."""
    first = pieces[0]
    shape = (sum(map(len, pieces)), *first.shape[1:]) if first.ndim else ()
    header = {"descr": npy.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        npy.write_array_header_1_0(member, header)
        for piece in pieces:
            member.write(np.ascontiguousarray(piece).tobytes())


_WRITERS = {".extxyz": ExtxyzWriter, ".xyz": ExtxyzWriter, ".npz": NpzWriter}
