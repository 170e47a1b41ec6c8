"""The paper's model variants: which activation sites and normalization layers of a model are replaced.

Each model class declares, as data, ``activation_sites``: for each ``activation_scope``, the sites as the
``where`` of :func:`ocp_dc.transforms.replace_activations`: patterns, a predicate, or None for every site.
"""

from __future__ import annotations

from torch import nn

from ocp_dc.activations import ORIGINAL
from ocp_dc.errors import InputError
from ocp_dc.transforms import ReplacedSite, replace_activations


def replace_model_activations(model: nn.Module, activation: str, scope: str) -> list[ReplacedSite]:
    """Replace the sites that ``scope`` names; none with ``activation: original``.

    Raises:
        InputError: the model has no such scope, or the activation is unknown.
    """
    if scope not in model.activation_sites:
        raise InputError(
            f"model.activation_scope is {scope!r}; {type(model).__name__} has {', '.join(model.activation_sites)}"
        )
    if activation == ORIGINAL:
        return []
    return replace_activations(model, activation, where=model.activation_sites[scope])
