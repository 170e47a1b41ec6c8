"""Where the records of an LMDB come from, their units, and the statistics of their labels and atoms."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ocp_dc.errors import InputError
from ocp_dc.rescaling import rescaling_constant

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1

# kcal/mol as in the paper's evaluation (EFwT); the others from CODATA 2018
ENERGY_UNITS_IN_EV = {
    "kcal/mol": 0.0433634,
    "kJ/mol": 0.0103642697,
    "eV": 1.0,
    "meV": 0.001,
    "Hartree": 27.211386246,
}
LENGTH_UNIT = "Ang"
LATTICE_VECTORS = "abc"


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of energies and forces, taken in float64 in the source's units.

    Attributes:
        energy_min, energy_max, energy_mean, energy_std: over conformations (population standard deviation).
        max_abs_force, mean_abs_force: over force components.
        max_abs_label: the largest absolute label, over energies and force components together.
        rescaling_constant: C of Eq. 4 for ``max_abs_label``.
    """

    energy_min: float
    energy_max: float
    energy_mean: float
    energy_std: float
    max_abs_force: float
    mean_abs_force: float
    max_abs_label: float
    rescaling_constant: float


class LabelAccumulator:
    """Collects :class:`LabelStatistics` block by block, in memory that does not grow."""

    def __init__(self) -> None:
        self.count = 0
        self._origin = 0.0
        self._sum = self._sum_of_squares = 0.0
        self._energy_min, self._energy_max = np.inf, -np.inf
        self._components = 0
        self._force_sum = self._force_max = 0.0

    def add(self, energies: np.ndarray, forces: np.ndarray) -> None:
        """Takes energies (b,) and all forces of these b conformations, of any shape, float64."""
        if not len(energies):
            return
        if not self.count:
            # total energies are large beside their spread: squares of deviations keep the digits that squares lose
            self._origin = float(energies[0])
        deviations = energies - self._origin
        magnitudes = np.abs(forces)
        self.count += len(energies)
        self._sum += deviations.sum()
        self._sum_of_squares += (deviations**2).sum()
        self._energy_min = min(self._energy_min, energies.min())
        self._energy_max = max(self._energy_max, energies.max())
        self._components += magnitudes.size
        self._force_sum += magnitudes.sum()
        self._force_max = max(self._force_max, magnitudes.max())

    def merge(self, other: LabelAccumulator) -> None:
        """Takes what another one has collected."""
        if not self.count:
            self._origin = other._origin
        shift = other._origin - self._origin
        self._sum_of_squares += other._sum_of_squares + 2 * shift * other._sum + other.count * shift**2
        self._sum += other._sum + other.count * shift
        self.count += other.count
        self._energy_min = min(self._energy_min, other._energy_min)
        self._energy_max = max(self._energy_max, other._energy_max)
        self._components += other._components
        self._force_sum += other._force_sum
        self._force_max = max(self._force_max, other._force_max)

    def statistics(self) -> LabelStatistics:
        mean_deviation = self._sum / self.count
        variance = max(self._sum_of_squares / self.count - mean_deviation**2, 0.0)
        max_abs_label = float(max(abs(self._energy_min), abs(self._energy_max), self._force_max))
        return LabelStatistics(
            energy_min=float(self._energy_min),
            energy_max=float(self._energy_max),
            energy_mean=float(self._origin + mean_deviation),
            energy_std=float(variance**0.5),
            max_abs_force=float(self._force_max),
            mean_abs_force=float(self._force_sum / self._components),
            max_abs_label=max_abs_label,
            rescaling_constant=rescaling_constant(max_abs_label),
        )

    def to_dict(self) -> dict:
        """What has been collected, for JSON."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, state: dict) -> LabelAccumulator:
        """One that has collected what :meth:`to_dict` says."""
        accumulator = cls()
        vars(accumulator).update(state)
        return accumulator


@dataclass(frozen=True)
class AtomStatistics:
    """What structures consist of.

    Attributes:
        elements: atomic numbers that occur, ascending.
        natoms_min, natoms_max: atoms in the smallest and the largest structure.
        atoms, fixed_atoms: in all structures together.
        periodic_along: number of structures by the lattice vectors along which they are periodic: ``abc``, ``ab``,
            ``none`` and so on.
    """

    elements: list[int]
    natoms_min: int
    natoms_max: int
    atoms: int
    fixed_atoms: int
    periodic_along: dict[str, int]


class AtomAccumulator:
    """Collects :class:`AtomStatistics` structure by structure."""

    def __init__(self) -> None:
        self._elements: set[int] = set()
        self._sizes: Counter[int] = Counter()
        self._fixed_atoms = 0
        self._periodic_along: Counter[str] = Counter()

    def add(self, atomic_numbers: np.ndarray, fixed: np.ndarray, pbc: np.ndarray) -> None:
        """Takes a structure: atomic numbers (A,), 1 for fixed atoms (A,), periodic along each lattice vector (3,)."""
        self._elements.update(np.unique(atomic_numbers).tolist())
        self._sizes[len(atomic_numbers)] += 1
        self._fixed_atoms += int(np.count_nonzero(fixed))
        letters = "".join(letter for letter, periodic in zip(LATTICE_VECTORS, pbc, strict=True) if periodic)
        self._periodic_along[letters or "none"] += 1

    def merge(self, other: AtomAccumulator) -> None:
        """Takes what another one has collected."""
        self._elements |= other._elements
        self._sizes += other._sizes
        self._fixed_atoms += other._fixed_atoms
        self._periodic_along += other._periodic_along

    def statistics(self) -> AtomStatistics:
        return AtomStatistics(
            elements=sorted(self._elements),
            natoms_min=min(self._sizes),
            natoms_max=max(self._sizes),
            atoms=sum(size * count for size, count in self._sizes.items()),
            fixed_atoms=self._fixed_atoms,
            periodic_along=dict(sorted(self._periodic_along.items())),
        )

    def to_dict(self) -> dict:
        """What has been collected, for JSON."""
        return {**vars(self), "_elements": sorted(self._elements), "_sizes": sorted(self._sizes.items())}

    @classmethod
    def from_dict(cls, state: dict) -> AtomAccumulator:
        """One that has collected what :meth:`to_dict` says."""
        accumulator = cls()
        accumulator._elements = set(state["_elements"])
        accumulator._sizes = Counter(dict(state["_sizes"]))
        accumulator._fixed_atoms = state["_fixed_atoms"]
        accumulator._periodic_along = Counter(state["_periodic_along"])
        return accumulator


@dataclass(frozen=True)
class EdgeSettings:
    """How stored edges were chosen: those within ``cutoff`` (Å), at most ``max_neighbors`` to an atom, the nearest."""

    cutoff: float
    max_neighbors: int


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

    def write(self, folder: Path) -> None:
        fields = {"kind": self.kind, **asdict(self)}
        (folder / MANIFEST_NAME).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")


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
    except (ValueError, KeyError, TypeError) as error:
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
