"""Reference energies: a baseline subtracted from the energy labels before training and added back to predictions.

The paper trains on total energies. A reference, fitted to the training labels by least squares in float64, leaves the
network only the part that varies; `docs/` and the recommended configs say what that is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from fairchem.core.modules.normalization.element_references import LinearReferences
from torch.utils.data import Dataset
from tqdm import tqdm

from ocp_dc.datasets.manifest import Manifest, MoleculeManifest, read_manifest
from ocp_dc.errors import InputError

MAX_ATOMIC_NUMBER = 118
REFERENCE_KINDS = ("none", "mean", "element")

# of a dataset that gives all records of an LMDB as ocp-dc wrote them
UNALTERED = {"format", "src", "key_mapping"}
KEY_MAPPING = {"y": "energy", "force": "forces"}


@dataclass(frozen=True)
class TrainingLabels:
    """What rescaling and references need to know of a training set.

    Attributes:
        energies: (N,) float64, source units.
        weights: (N,) number of records that an energy counts for in a mean or a fit.
        compositions: (N, 119) number of atoms of each element, by atomic number.
        max_abs_force, mean_abs_force: of all force components, source units.
    """

    energies: np.ndarray
    weights: np.ndarray
    compositions: np.ndarray
    max_abs_force: float
    mean_abs_force: float

    @property
    def mean_energy(self) -> float:
        return float(np.average(self.energies, weights=self.weights))

    @property
    def max_abs_label(self) -> float:
        return max(float(np.abs(self.energies).max()), self.max_abs_force)

    def relative_to(self, energies: np.ndarray | float) -> TrainingLabels:
        """The same labels with ``energies``, (N,) or one for all, subtracted."""
        return replace(self, energies=self.energies - energies)


def manifests_of(settings: dict[str, Any] | None) -> dict[str, Manifest | None]:
    """The manifest, or None, of each source of a config's section of a dataset."""
    sources = (settings or {}).get("src", [])
    return {source: read_manifest(source) for source in ([sources] if isinstance(sources, str) else sources)}


def training_labels(dataset: Dataset, settings: dict[str, Any], reference: str) -> TrainingLabels:
    """The labels of a training set: from its manifests where they say enough, else by reading its records.

    Args:
        settings: the config's section that ``dataset`` was made from.
        reference: ``none``, ``mean`` or ``element``, which also needs the compositions.
    """
    manifests = list(manifests_of(settings).values())
    unaltered = settings.keys() <= UNALTERED and settings.get("key_mapping") == KEY_MAPPING
    told = all(manifests) and sum(manifest.count for manifest in manifests) == len(dataset)
    composed = reference != "element" or all(isinstance(manifest, MoleculeManifest) for manifest in manifests)
    return labels_from_manifests(manifests) if unaltered and told and composed else read_training_labels(dataset)


def labels_from_manifests(manifests: Sequence[Manifest]) -> TrainingLabels:
    """Labels with the mean, the fits and the largest values of all records that the manifests are of.

    Each gives its lowest and its highest energy, without weight, and its mean, with the weight of all its records. Of
    one molecule that is all a fit needs; structures, whose compositions no manifest says, have none here.
    """
    energies = [(m.labels.energy_min, m.labels.energy_max, m.labels.energy_mean) for m in manifests]
    compositions = [_composition(np.array(getattr(m, "atomic_numbers", []), dtype=int)) for m in manifests]
    return TrainingLabels(
        energies=np.ravel(energies),
        weights=np.ravel([(0, 0, m.count) for m in manifests]),
        compositions=np.repeat(compositions, 3, axis=0),
        max_abs_force=max(m.labels.max_abs_force for m in manifests),
        mean_abs_force=float(
            np.average([m.labels.mean_abs_force for m in manifests], weights=[m.atom_count for m in manifests])
        ),
    )


def read_training_labels(dataset: Dataset, show_progress: bool = True) -> TrainingLabels:
    """One pass over a dataset of graphs with ``energy``, ``forces`` and ``atomic_numbers``."""
    energies = np.empty(len(dataset))
    compositions = np.zeros((len(dataset), MAX_ATOMIC_NUMBER + 1), dtype=np.int16)
    max_abs_force = sum_of_forces = 0.0
    components = 0
    for index in tqdm(range(len(dataset)), desc="reading labels", disable=not show_progress):
        graph = dataset[index]
        energies[index] = float(graph.energy)
        compositions[index] = _composition(graph.atomic_numbers.long().numpy())
        forces = graph.forces.abs()
        max_abs_force = max(max_abs_force, float(forces.max()))
        sum_of_forces += float(forces.sum(dtype=torch.float64))
        components += forces.numel()
    return TrainingLabels(energies, np.ones(len(dataset)), compositions, max_abs_force, sum_of_forces / components)


def _composition(atomic_numbers: np.ndarray) -> np.ndarray:
    return np.bincount(atomic_numbers, minlength=MAX_ATOMIC_NUMBER + 1)


def parse_reference_energy(value: str | None) -> str:
    """The config's ``task.reference_energy``: ``none``, ``mean`` or ``element``.

    Raises:
        InputError: any other value.
    """
    kind = "none" if value is None else value
    if kind not in REFERENCE_KINDS:
        raise InputError(f"task.reference_energy is {value!r}; it must be one of {', '.join(REFERENCE_KINDS)}")
    return kind


def fit_element_references(labels: TrainingLabels) -> LinearReferences:
    """Least-squares energy per element, in float64 (fairchem's own fit works in float32).

    Where compositions do not determine the elements apart (one molecule, say), the minimum-norm solution is taken.
    """
    scale = np.sqrt(labels.weights)
    coefficients, *_ = np.linalg.lstsq(labels.compositions * scale[:, None], labels.energies * scale, rcond=None)
    return LinearReferences(torch.from_numpy(coefficients))
