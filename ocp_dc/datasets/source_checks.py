"""Whether LMDBs are fit to be trained on: whole, with the records they announce, and these sound."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from ase.data import chemical_symbols
from torch_geometric.data import Data
from tqdm import tqdm

from ocp_dc.datasets.conformations import MAX_ATOMIC_NUMBER, SMALLEST_DISTANCE
from ocp_dc.datasets.lmdb import AGAIN, METADATA_NAME, RecordFile, announced_records
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.errors import InputError

LABELS = {"energy": ("y", "energy"), "forces": ("force", "forces")}
T = TypeVar("T")


@dataclass(frozen=True)
class Expected:
    """What records must be like.

    Attributes:
        labelled: whether they must have energies and forces.
        key_mapping: a config's, which says under which other names they may have them.
        cutoff: Å; a molecule of several atoms with no two closer than this is refused. None to take any.
        elements: atomic numbers that the model knows.
    """

    labelled: bool = True
    key_mapping: Mapping[str, str] = field(default_factory=dict)
    cutoff: float | None = None
    elements: Collection[int] = range(1, MAX_ATOMIC_NUMBER + 1)


def lmdb_files(name: str, path: Path) -> list[Path]:
    """The LMDBs of a source.

    Args:
        name: what messages call it.
        path: a file, or a folder with LMDBs in it.

    Raises:
        InputError: there is none.
    """
    files = sorted(path.glob("*.lmdb")) if path.is_dir() else [path] * path.is_file()
    if not files:
        raise InputError(f"{name}: no LMDB there")
    return files


def check_source(
    name: str,
    path: Path,
    expected: Expected | None = None,
    every_record: bool = False,
) -> None:
    """Refuses LMDBs that are cut short, have other numbers of records than is written beside them, or unsound ones.

    Args:
        name: what messages call the source.
        expected: what records must be like; None for labelled ones of any atoms.
        every_record: check all records, not only the first of each file.

    Raises:
        InputError: naming the file, the record and what is wrong with it.
    """
    expected = expected or Expected()
    files, count = lmdb_files(name, path), 0
    for file in files:
        with RecordFile(file) as records:
            count += len(records)
            rows = range(len(records)) if every_record else range(min(1, len(records)))
            for row in tqdm(rows, desc=f"checking {file}", unit="record", disable=not every_record):
                check_record(f"{file}: record {row}", records[row], expected)
    if not count:
        raise InputError(f"{name}: there are no records in it; {AGAIN}")
    _check_count(name, path, count)


def _check_count(name: str, path: Path, count: int) -> None:
    manifest = read_manifest(path)
    if manifest and manifest.count != count:
        raise InputError(f"{name}: {count} records, where its manifest has {manifest.count}; {AGAIN}")
    announced = announced_records(path) if path.is_dir() else None
    if announced not in (None, count):
        raise InputError(f"{name}: {count} records, where {path / METADATA_NAME} has {announced}; {AGAIN}")


def check_record(where: str, record: Data, expected: Expected) -> None:
    """Refuses a record without what models read, with numbers that are not finite, or of atoms that models do not take.

    Args:
        where: file and record, for messages.

    Raises:
        InputError: what is wrong, and that the data must be had or converted again.
    """
    natoms = _number_of_atoms(where, record, expected.elements)
    if record.get("natoms") != natoms:
        raise InputError(f"{where}: natoms is {record.get('natoms')}, and it has {natoms} atomic_numbers; {AGAIN}")
    _require_finite(where, "pos", record.get("pos"), (natoms, 3))
    for label, shape in (("energy", (1,)), ("forces", (natoms, 3))) if expected.labelled else ():
        known = dict.fromkeys((*LABELS[label], *(key for key, to in expected.key_mapping.items() if to == label)))
        name = next((name for name in known if record.get(name) is not None), None)
        if name is None:
            raise InputError(f"{where} has no {label} ({' or '.join(known)}); {AGAIN}")
        value = torch.as_tensor(record[name])
        _require_finite(where, name, value.reshape(1) if value.numel() == 1 else value, shape)
    _check_distances(where, record, expected.cutoff)


def _number_of_atoms(where: str, record: Data, elements: Collection[int]) -> int:
    numbers = record.get("atomic_numbers")
    if numbers is None or not torch.is_tensor(numbers) or numbers.dim() != 1 or not len(numbers):
        raise InputError(f"{where} has no atomic_numbers, one for each atom; {AGAIN}")
    wrong = (numbers < 1) | (numbers > MAX_ATOMIC_NUMBER) | (numbers != numbers.long())
    if wrong.any():
        raise InputError(f"{where}: an atomic number is {numbers[wrong][0].item():g}; {AGAIN}")
    if unknown := sorted(set(numbers.tolist()) - set(elements)):
        raise InputError(
            f"{where} has {', '.join(chemical_symbols[number] for number in unknown)}, which the model does not know: "
            "leave such structures out, or take another model"
        )
    return len(numbers)


def _require_finite(where: str, name: str, value: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    if value is None:
        raise InputError(f"{where} has no {name}; {AGAIN}")
    if tuple(value.shape) != shape:
        raise InputError(f"{where}: {name} of shape {tuple(value.shape)}, where {shape} is needed; {AGAIN}")
    if not torch.isfinite(value).all():
        raise InputError(f"{where}: NaN or infinite {name}; remove it, or {AGAIN}")


def _check_distances(where: str, record: Data, cutoff: float | None) -> None:
    """Between the atoms as they are given; of a periodic structure, images may be nearer."""
    if len(record.pos) < 2:
        return
    distances = torch.pdist(record.pos.float())
    if distances.min() < SMALLEST_DISTANCE:
        raise InputError(
            f"{where}: two atoms are {distances.min():.3g} Angstrom apart, less than {SMALLEST_DISTANCE}: remove it, "
            "or check that positions are in Angstrom"
        )
    periodic = bool(torch.as_tensor(record.get("pbc", True)).any())
    if cutoff is not None and distances.min() > cutoff and not periodic:
        raise InputError(
            f"{where}: no two atoms are within model.cutoff, {cutoff} Angstrom, so that there are no edges; raise it"
        )


class SourceWatch:
    """Sees to it that files are as large as when training began: reading beyond their end kills the process.

    Args:
        files: LMDBs that are read while training.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._sizes: Mapping[Path, int] = {file: file.stat().st_size for file in files}

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of a loader; where that fails, with a word on the files if these are why.

        Raises:
            InputError: see :meth:`check`.
        """
        try:
            yield from batches
        except (RuntimeError, InputError):
            # as a worker of the loader reports that it was killed, or what it found
            self.check()
            raise

    def check(self) -> None:
        """Raises InputError if a file is gone, or has become shorter."""
        for file, size in self._sizes.items():
            try:
                now = file.stat().st_size
            except OSError as error:
                raise InputError(f"{file} has been removed while it was read ({error.strerror}); {AGAIN}") from None
            if now < size:
                raise InputError(f"{file} has been cut short while it was read, to {now:,} of {size:,} bytes; {AGAIN}")
