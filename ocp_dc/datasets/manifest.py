"""Where the records of an LMDB come from, their units, and the statistics of their labels and atoms."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import ocp_dc
from ocp_dc.datasets.conversion_settings import EdgeSettings
from ocp_dc.datasets.splits import Split
from ocp_dc.errors import InputError
from ocp_dc.statistics import AtomStatistics, LabelStatistics
from ocp_dc.units import LENGTH_UNIT

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One per split, kept beside its LMDBs as ``manifest.json``.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        count: number of records.
        theory: of the source.
        energy_unit, length_unit, force_unit: of the stored labels and positions, which are the source's.
        units_from: ``file`` (the source states them), ``option`` (the user did), ``assumed``, or ``convention`` (those
            of ASE and of the Open Catalyst Project, eV and Å).
        source_file, source_layout, source_count: what the records were taken from, and how many there were.
        source_sha256: of the source file; for several, of the list of theirs; for a folder of LMDBs, of the list of
            their names, sizes and counts.
        split_method: ``random`` (with ``seed``) or ``given`` (with ``split_files``, name to sha256).
        split_by: what no value of is in two splits drawn at random; None where conformations were drawn one by one.
        labels: statistics of this split's labels.
    """

    kind: ClassVar[str]

    split: str
    count: int
    theory: str
    energy_unit: str
    length_unit: str
    force_unit: str
    units_from: str
    source_file: str
    source_sha256: str
    source_layout: str
    source_count: int
    split_method: str
    seed: int | None
    split_files: dict[str, str]
    labels: LabelStatistics
    ocp_dc_version: str
    split_by: str | None = None
    format_version: int = FORMAT_VERSION

    @property
    def name(self) -> str:
        """What the data are of, in a word."""
        raise NotImplementedError

    @property
    def elements(self) -> list[int]:
        """The atomic numbers that occur, ascending."""
        raise NotImplementedError

    @property
    def atom_count(self) -> int:
        """The atoms of all records together."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        fields = {"kind": self.kind, **asdict(self)}
        text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # bytes of a file name that are no UTF-8 become JSON's escapes, which read_manifest() turns into them again
        (folder / MANIFEST_NAME).write_text(text, "utf-8", errors="backslashreplace")


@dataclass(frozen=True, kw_only=True)
class MoleculeManifest(Manifest):
    """Of conformations of one molecule.

    The row of each in the source file is ``source_index`` in ``metadata.npz``.

    Attributes:
        molecule, formula, atomic_numbers: of the source.
    """

    kind: ClassVar[str] = "molecule"

    molecule: str
    formula: str
    atomic_numbers: list[int]

    @property
    def name(self) -> str:
        return self.molecule

    @property
    def elements(self) -> list[int]:
        return sorted(set(self.atomic_numbers))

    @property
    def atom_count(self) -> int:
        return self.count * len(self.atomic_numbers)


@dataclass(frozen=True, kw_only=True)
class StructuresManifest(Manifest):
    """Of structures of any size, composition and periodicity, in shards ``data.0000.lmdb``, ``data.0001.lmdb``, …

    Where each comes from is in ``metadata.npz``: ``source_file``, an index into ``source_files``, and ``source_index``,
    the record or frame in that file.

    Attributes:
        collection: the name of what they were taken from.
        source_files: its files, by name.
        shards: number of LMDBs.
        atoms: what the structures of this split consist of.
        edges: stored with them; None where they are not.
    """

    kind: ClassVar[str] = "structures"

    collection: str
    source_files: list[str]
    shards: int
    atoms: AtomStatistics
    edges: EdgeSettings | None

    @property
    def name(self) -> str:
        return self.collection

    @property
    def elements(self) -> list[int]:
        return self.atoms.elements

    @property
    def atom_count(self) -> int:
        return self.atoms.atoms


def shared_fields(split: Split, energy_unit: str, units_from: str) -> dict:
    """What the manifests of all splits of a conversion have in common."""
    return {
        "energy_unit": energy_unit,
        "length_unit": LENGTH_UNIT,
        "force_unit": f"{energy_unit}/{LENGTH_UNIT}",
        "units_from": units_from,
        "split_method": split.method,
        "seed": split.seed,
        "split_by": split.by,
        "split_files": split.files,
        "ocp_dc_version": ocp_dc.__version__,
    }


def read_manifest(path: str | Path) -> MoleculeManifest | StructuresManifest | None:
    """The manifest of a split folder or of an ``.lmdb`` file in it; None where there is none.

    Raises:
        InputError: there is one, but it is damaged or of another format version.
    """
    path = Path(path)
    file = (path if path.is_dir() else path.parent) / MANIFEST_NAME
    if not file.is_file():
        return None
    try:
        fields = json.loads(file.read_text("utf-8"))
        version = fields["format_version"]
        if version == FORMAT_VERSION:
            return _manifest(fields)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is not a manifest of ocp-dc ({error}); convert the data again") from error
    raise InputError(
        f"{file} has format_version {version}, this ocp-dc reads {FORMAT_VERSION}; convert the data again with it"
    )


def _manifest(fields: dict) -> MoleculeManifest | StructuresManifest:
    # the first manifests, all of molecules, do not state their kind
    kind = fields.pop("kind", MoleculeManifest.kind)
    fields["labels"] = LabelStatistics(**fields["labels"])
    if kind == MoleculeManifest.kind:
        return MoleculeManifest(**fields)
    fields["atoms"] = AtomStatistics(**fields["atoms"])
    fields["edges"] = fields["edges"] and EdgeSettings(**fields["edges"])
    return StructuresManifest(**fields)


def sha256_of(file: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
