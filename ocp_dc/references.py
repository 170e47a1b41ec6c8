"""Reference energies: a baseline subtracted from the energy labels before training and added back to predictions.

The paper trains on total energies. A reference, fitted to the training labels by least squares in float64, leaves the
network only the part that varies; `docs/` and the recommended configs say what that is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from fairchem.core.modules.normalization.element_references import LinearReferences
from torch.utils.data import Dataset
from tqdm import tqdm

from ocp_dc.errors import InputError

MAX_ATOMIC_NUMBER = 118
REFERENCE_KINDS = ("none", "mean", "element")


@dataclass(frozen=True)
class TrainingLabels:
    """What rescaling and references need to know of a training set.

    Attributes:
        energies: (N,) float64, source units.
        compositions: (N, 119) number of atoms of each element, by atomic number.
        max_abs_force: largest absolute force component, source units.
    """

    energies: np.ndarray
    compositions: np.ndarray
    max_abs_force: float

    @property
    def max_abs_label(self) -> float:
        return max(float(np.abs(self.energies).max()), self.max_abs_force)

    def relative_to(self, energies: np.ndarray) -> TrainingLabels:
        """The same labels with ``energies`` (N,) subtracted."""
        return TrainingLabels(self.energies - energies, self.compositions, self.max_abs_force)


def read_training_labels(dataset: Dataset, show_progress: bool = True) -> TrainingLabels:
    """One pass over a dataset of graphs with ``energy``, ``forces`` and ``atomic_numbers``."""
    energies = np.empty(len(dataset))
    compositions = np.zeros((len(dataset), MAX_ATOMIC_NUMBER + 1), dtype=np.int16)
    max_abs_force = 0.0
    for index in tqdm(range(len(dataset)), desc="reading labels", disable=not show_progress):
        graph = dataset[index]
        energies[index] = float(graph.energy)
        compositions[index] = np.bincount(graph.atomic_numbers.long().numpy(), minlength=MAX_ATOMIC_NUMBER + 1)
        max_abs_force = max(max_abs_force, float(graph.forces.abs().max()))
    return TrainingLabels(energies, compositions, max_abs_force)


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
    """Least-squares energy per element, in float64 (the host's own fit works in float32).

    Where compositions do not determine the elements apart (one molecule, say), the minimum-norm solution is taken.
    """
    coefficients, *_ = np.linalg.lstsq(labels.compositions.astype(np.float64), labels.energies, rcond=None)
    return LinearReferences(torch.from_numpy(coefficients))
