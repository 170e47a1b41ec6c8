"""The paper's model variants: which activation sites and normalization layers of a model are replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import nn

from ocp_dc.activations import ORIGINAL
from ocp_dc.errors import InputError
from ocp_dc.transforms import ReplacedSite, Where, denormalize, replace_activations

MOLECULE_EDGES = {"use_pbc": False, "otf_graph": True}


class Variant:
    """Applies the paper's transforms to the model class that it is put before, once that is built.

    Attributes:
        activation_sites: for each ``activation_scope``, the sites as the ``where`` of
            :func:`ocp_dc.transforms.replace_activations`: patterns, a predicate, or None for every site.
        defaults: settings that have another default than in the model class.
        without_normalization: the name of an architecture without normalization, which has nothing to remove.
    """

    activation_sites: ClassVar[Mapping[str, Where]]
    defaults: ClassVar[Mapping[str, Any]] = {}
    without_normalization: ClassVar[str | None] = None

    def __init__(
        self, activation: str = "irelu", activation_scope: str = "paper", denormalize: str = "none", **settings: Any
    ) -> None:
        if self.without_normalization and denormalize != "none":
            raise InputError(
                f"model.denormalize is {denormalize!r}; {self.without_normalization} has no normalization: leave it at "
                "'none'"
            )
        super().__init__(**{**self.defaults, **settings})
        self.removed_normalizations = remove_model_normalizations(self, denormalize)
        self.replaced_activations = replace_model_activations(self, activation, activation_scope)


def replace_model_activations(model: nn.Module, activation: str, scope: str) -> list[ReplacedSite]:
    """Replace the sites that ``scope`` names; none with ``activation: original``.

    Raises:
        InputError: the model has no such scope, or the activation is unknown.
    """
    check_choice(type(model).__name__, "activation_scope", scope, model.activation_sites)
    if activation == ORIGINAL:
        return []
    return replace_activations(model, activation, where=model.activation_sites[scope])


def remove_model_normalizations(model: nn.Module, which: str) -> list[ReplacedSite]:
    """Remove the normalization layers that ``which``, the model's ``denormalize``, names.

    Raises:
        InputError: it is not ``none``, ``batch`` or ``all``, or the model has no such layer.
    """
    check_choice(type(model).__name__, "denormalize", which, ("none", "batch", "all"))
    return [] if which == "none" else denormalize(model, which)


def check_choice(architecture: str, key: str, value: str, known: Iterable[str]) -> None:
    """Raise InputError unless ``value`` is one of those that ``model.key`` can have."""
    if value not in known:
        raise InputError(f"model.{key} is {value!r}; {architecture} knows {', '.join(known)}")
