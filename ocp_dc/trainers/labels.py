"""The labels a model is trained on: their units and origin, which checkpoints keep, and the scale fitted to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from fairchem.core.modules.normalization.element_references import LinearReferences
from fairchem.core.modules.normalization.normalizer import Normalizer
from torch.utils.data import Dataset

from ocp_dc.datasets.manifest import Manifest
from ocp_dc.errors import InputError
from ocp_dc.references import TrainingLabels, fit_element_references, manifests_of, training_labels
from ocp_dc.rescaling import FITTED, rescaling_constant
from ocp_dc.units import LENGTH_UNIT

# What data without a manifest are taken to be in: the Open Catalyst Project's own are.
ASSUMED_ENERGY_UNIT = "eV"
# What a checkpoint keeps of the manifest of each training source.
ORIGIN = ("name", "split", "count", "theory", "source_file", "source_count", "source_sha256")


@dataclass(frozen=True)
class Units:
    """Of energies and lengths. Forces are in ``energy`` per ``length``.

    Attributes:
        units_from: as in a manifest; ``assumed`` where nothing states them. Not compared.
    """

    energy: str
    length: str
    units_from: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.energy} and {self.length}{' (assumed)' if self.units_from == 'assumed' else ''}"


def units_of_data(manifest: Manifest | None) -> Units:
    """The units of data with this manifest; eV and Å where there is none."""
    if manifest:
        return Units(manifest.energy_unit, manifest.length_unit, manifest.units_from)
    return Units(ASSUMED_ENERGY_UNIT, LENGTH_UNIT, "assumed")


def units_of_config(config: dict[str, Any]) -> Units | None:
    """The units a checkpoint's predictions are in, by the config it keeps; None where it does not state them."""
    labels = config.get("labels")
    return labels and Units(labels["energy_unit"], labels["length_unit"], labels["units_from"])


def each_source(dataset: dict[str, Any]) -> Iterator[tuple[str, str, Manifest | None]]:
    """Of each source of a config's ``dataset``: its key and name, for messages, its path, and its manifest."""
    for split in ("train", "val", "test"):
        for source, manifest in manifests_of(dataset.get(split)).items():
            yield f"dataset.{split}.src is {source}", source, manifest


def common_units(dataset: dict[str, Any]) -> Units | None:
    """The units of all sources of a config's ``dataset``; None if it has no source.

    Raises:
        InputError: two sources have different units.
    """
    found = [(name, units_of_data(manifest)) for name, _, manifest in each_source(dataset)]
    for name, units in found:
        if units != found[0][1]:
            raise InputError(
                f"{found[0][0]}, in {found[0][1]}; {name}, in {units}: give sets in the same units, from one source"
            )
    return found[0][1] if found else None


def describe_labels(units: Units, settings: dict[str, Any], records: dict[str, int]) -> dict[str, Any]:
    """What a checkpoint says of the labels it is trained on.

    Args:
        settings: the config's section of the training set.
        records: how many there are in each split.
    """
    manifests = manifests_of(settings)
    if bare := [source for source, manifest in manifests.items() if manifest is None]:
        logging.warning(f"{', '.join(bare)} has no manifest: labels taken to be in {units}")
    elements = None if bare else sorted({number for manifest in manifests.values() for number in manifest.elements})
    return {
        "energy_unit": units.energy,
        "length_unit": units.length,
        "units_from": units.units_from,
        "elements": elements,
        "records": records,
        "sources": [
            {key: getattr(manifest, key) for key in ORIGIN} if manifest else {"name": source}
            for source, manifest in manifests.items()
        ],
    }


def fit_labels(
    dataset: Dataset, settings: dict[str, Any], reference: str, rescaling: str | float | None
) -> tuple[dict[str, LinearReferences], dict[str, Normalizer]]:
    """Reference energy and C from the training labels, as fairchem's element references and normalizers.

    Args:
        dataset, settings: the training set, and the config's section it was made from.
        reference: ``none``, ``mean`` or ``element``.
        rescaling: C, how it is fitted (:data:`~ocp_dc.rescaling.FITTED`), or None for none.
    """
    labels = None
    if reference != "none" or rescaling in FITTED:
        labels = training_labels(dataset, settings, reference)
    elementrefs, mean = {}, 0.0
    if reference == "mean":
        mean = labels.mean_energy
        labels = labels.relative_to(mean)
    elif reference == "element":
        elementrefs["energy"] = fit_element_references(labels)
        labels = labels.relative_to(labels.compositions @ elementrefs["energy"].element_references.numpy())

    if rescaling is None and reference != "mean":
        return elementrefs, {}
    constant = _fitted(rescaling, labels) if rescaling in FITTED else rescaling or 1.0
    logging.info(f"label rescaling: C = {constant:g}; reference energy: {reference} ({mean})")
    return elementrefs, {"energy": float64_normalizer(mean, constant), "forces": float64_normalizer(0.0, constant)}


def _fitted(rescaling: str, labels: TrainingLabels) -> float:
    if rescaling == "auto":
        return rescaling_constant(labels.max_abs_label)
    if labels.mean_abs_force == 0:
        raise InputError("task.label_rescaling is mean_force, and all forces are 0: choose a number, or none")
    return labels.mean_abs_force


def float64_normalizer(mean: float, constant: float) -> Normalizer:
    """fairchem's, which would be float32: labels − ``mean``, divided by ``constant``."""
    return Normalizer(torch.tensor(mean, dtype=torch.float64), torch.tensor(constant, dtype=torch.float64))
