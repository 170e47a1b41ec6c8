"""Where the conformations of an LMDB come from, their units, and the statistics of their labels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

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
        """Takes energies (b,) and forces (b, A, 3), float64."""
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


@dataclass(frozen=True)
class Manifest:
    """One per LMDB, kept beside it as ``manifest.json``.

    The row of each conformation in the source file, in the LMDB's order, is ``source_index`` in ``metadata.npz``.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        count: number of conformations.
        molecule, formula, atomic_numbers, theory: of the source.
        energy_unit, length_unit, force_unit: of the stored labels and positions, which are the source's.
        units_from: ``file`` (the source states them), ``option`` (the user did) or ``assumed``.
        source_file, source_sha256, source_layout, source_count: the file that was converted.
        split_method: ``random`` (with ``seed``) or ``given`` (with ``split_files``, name to sha256).
        labels: statistics of this split's labels.
    """

    split: str
    count: int
    molecule: str
    formula: str
    atomic_numbers: list[int]
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
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        (folder / MANIFEST_NAME).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_manifest(path: str | Path) -> Manifest | None:
    """The manifest of a split folder or of the ``.lmdb`` file in it; None where there is none.

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
            return Manifest(**{**fields, "labels": LabelStatistics(**fields["labels"])})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not a manifest of ocp-dc ({error}); convert the data again") from error
    raise InputError(
        f"{file} has format_version {version}, this ocp-dc reads {FORMAT_VERSION}; convert the data again with it"
    )
