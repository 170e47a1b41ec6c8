"""The paper's model variants: which activation sites and normalization layers of a model are replaced.

Each model class declares, as data, ``activation_sites``: for each ``activation_scope``, the sites as the
``where`` of :func:`ocp_dc.transforms.replace_activations`: patterns, a predicate, or None for every site.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ocp_dc.activations import ORIGINAL
from ocp_dc.errors import InputError
from ocp_dc.transforms import ReplacedSite, denormalize, replace_activations


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


def refuse_denormalization(architecture: str, which: str) -> None:
    """Raise InputError unless ``which`` is ``none``: an architecture without normalization has nothing to remove."""
    if which != "none":
        raise InputError(f"model.denormalize is {which!r}; {architecture} has no normalization: leave it at 'none'")


def check_choice(architecture: str, key: str, value: str, known: Iterable[str]) -> None:
    """Raise InputError unless ``value`` is one of those that ``model.key`` can have."""
    if value not in known:
        raise InputError(f"model.{key} is {value!r}; {architecture} knows {', '.join(known)}")
