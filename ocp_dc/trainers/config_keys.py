"""What a trainer checks of its config: what needs fairchem, PyTorch or the data, after :mod:`ocp_dc.configuration`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from fairchem.core.common.registry import registry
from fairchem.core.datasets.embeddings import ATOMIC_RADII

from ocp_dc.activations import ORIGINAL, activation
from ocp_dc.configuration.checking import check_sections, unknown_key
from ocp_dc.datasets.conformations import MAX_ATOMIC_NUMBER
from ocp_dc.datasets.source_checks import Expected, check_source
from ocp_dc.errors import InputError
from ocp_dc.models.forcenet import element_features
from ocp_dc.trainers.labels import each_source

# rows of their embeddings
LARGEST_NUMBERS = {"schnet": 99, "cgcnn": 100, "dimenetplusplus": 94, "forcenet": 99, "gemnet_t": 83}


def check_trainer_config(**sections: Any) -> dict[str, Any]:
    """The sections a trainer is given, with numbers that YAML took for text as numbers.

    Args:
        sections: ``task``, ``model``, ``outputs``, ``dataset``, ``optim`` and ``loss_functions``.

    Raises:
        InputError: what :mod:`ocp_dc.configuration` finds; a model, an activation, a key of a model or a format of
            data that is not known; data that are not there, or have no such edges.
    """
    checked = check_sections(sections)
    model, dataset = checked["model"], checked["dataset"]
    _check_model(model)
    check_sources(model, dataset)
    if model.get("use_pbc") and model.get("otf_graph") is False:
        _check_stored_edges(model, dataset)
    return checked


def _check_model(model: dict) -> None:
    try:
        model_class = registry.get_model_class(model["name"])
    except RuntimeError as error:
        raise InputError(f"model.name is {model['name']!r}: {error}") from error
    settings, complete = _constructor_settings(model_class)
    for key in model.keys() - {"name"} - settings if complete else ():
        raise InputError(unknown_key(f"model.{key}", settings).text)
    if model.get("activation", ORIGINAL) != ORIGINAL and "activation_scope" in settings:
        activation(model["activation"])


def _constructor_settings(model_class: Callable) -> tuple[set[str], bool]:
    """Names of a constructor's parameters, following ``**settings`` to the base classes; whether they are all."""
    if not isinstance(model_class, type):
        return set(inspect.signature(model_class).parameters), True
    names = set()
    for base in model_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names - {"self"}, True
    return names - {"self"}, False


def check_sources(model: dict, dataset: dict, every_record: bool = False) -> None:
    """The LMDBs of a config; see :func:`~ocp_dc.datasets.source_checks.check_source`.

    Raises:
        InputError: an unknown format, or data that the model cannot be trained on.
    """
    name = (dataset.get("train") or {}).get("format", "lmdb")
    try:
        registry.get_dataset_class(name)
    except RuntimeError as error:
        raise InputError(f"dataset.train.format is {name!r}: {error}") from error
    if "lmdb" not in name and name != "md17_packed":
        return
    key_mapping = dataset["train"].get("key_mapping") or {} if dataset.get("train") else {}
    for name, source, _ in each_source(dataset):
        expected = Expected(
            labelled=not name.startswith("dataset.test"),
            key_mapping=key_mapping,
            cutoff=model.get("cutoff"),
            elements=known_elements(model),
        )
        check_source(name, Path(source), expected, every_record)


def known_elements(model: dict) -> Collection[int]:
    """Atomic numbers that a model takes, by its config; of models of others, all."""
    architecture = model["name"].removesuffix("_irelu")
    largest = LARGEST_NUMBERS.get(architecture, MAX_ATOMIC_NUMBER)
    if architecture == "gemnet_t":
        largest = model.get("num_elements", largest)
    numbers = range(1, largest + 1)
    if architecture != "forcenet":
        return numbers
    # as in the original, there are no features, or no radii, of some: their energies would be NaN
    features = element_features(model.get("feat", "full")).isfinite().all(dim=1)
    return [number for number in numbers if features[number] and not math.isnan(ATOMIC_RADII[number])]


def _check_stored_edges(model: dict, dataset: dict) -> None:
    cutoff = model.get("cutoff")
    for name, _, manifest in each_source(dataset):
        edges = getattr(manifest, "edges", None)
        stored = "no edges" if edges is None else f"edges within {edges.cutoff} Å"
        if manifest and (edges is None or edges.cutoff != cutoff):
            raise InputError(
                f"{name}, with {stored}; model.otf_graph is False and model.cutoff {cutoff}: "
                f"set model.otf_graph to True, or convert with --cutoff {cutoff}"
            )
