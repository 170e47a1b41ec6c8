"""``derivative_constrained``: any registered model with the paper's transforms."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from fairchem.core.common.registry import registry
from fairchem.core.common.utils import setup_imports
from torch import nn

from ocp_dc.activations import ORIGINAL
from ocp_dc.errors import InputError
from ocp_dc.models.variants import remove_model_normalizations
from ocp_dc.transforms import replace_activations

HYDRA_HEADS = ("output_heads.*",)
# The activation sites of the output part of fairchem's models, and of the output part that a hydra's backbone keeps.
OUTPUT_SITES: dict[str, tuple[str, ...]] = {
    "schnet": ("act",),
    "scn": ("act",),
    **dict.fromkeys(("painn", "painn_backbone"), ("out_energy.*", "out_forces.*")),
    **dict.fromkeys(("dimenetplusplus", "dimenetplusplus_backbone"), ("output_blocks.*",)),
    **dict.fromkeys(("gemnet_t", "gemnet_t_backbone", "gp_gemnet_t"), ("out_blocks.*",)),
    **dict.fromkeys(("gemnet_oc", "gemnet_oc_backbone"), ("out_blocks.*", "out_mlp_E.*", "out_mlp_F.*")),
    **dict.fromkeys(("escn", "escn_export", "equiformer_v2"), ("energy_block.*", "force_block.*")),
    **dict.fromkeys(("escn_backbone", "equiformer_v2_backbone", "equiformer_v2_dens_backbone"), ()),
    **dict.fromkeys(("esen_backbone", "esen_backbone_dens"), ()),
}
# They look like activations and keep a parameter positive: the exponent of GemNet's and PaiNN's Bernstein basis.
PARAMETER_CONSTRAINTS = ("*rbf.softplus",)


@registry.register_model("derivative_constrained")
def derivative_constrained(
    base: Mapping[str, Any],
    activation: str = "irelu",
    activation_scope: str | Sequence[str] = "output",
    denormalize: str = "none",
    otf_graph: bool | None = None,
) -> nn.Module:
    """The registered model ``base``, with its activations replaced and its normalization removed.

    What comes back is the base model itself, changed in place: it has its class, attributes, outputs and state-dict
    keys, so that a checkpoint of the base fits (but for removed normalization).

    Args:
        base: the model: ``name``, as registered or the path of a class, and its settings. For ``hydra`` these are
            ``backbone`` and ``heads``; both are searched.
        activation: a name of :func:`ocp_dc.activations.known_activations`, or ``original`` to replace none.
        activation_scope: ``output``, the sites of :data:`OUTPUT_SITES`, the default because replacing every
            activation made DimeNet++ and GemNet diverge in the paper; ``all`` sites; or a list of patterns of sites
            (``"message_layers.*"``, as in ``fnmatch``; ``*`` crosses dots). ``output`` and ``all`` leave out
            :data:`PARAMETER_CONSTRAINTS`.
        denormalize: ``none``; ``batch`` removes batch normalization; ``all``, every normalization layer.
        otf_graph: if given, the base's (fairchem's calculator sets it here).

    Returns:
        the model, with two lists of :class:`ocp_dc.transforms.ReplacedSite`: ``replaced_activations`` and
        ``removed_normalizations``.

    Raises:
        InputError: an unknown model or setting, no ``OUTPUT_SITES`` of the model, an activation to replace that is
            called by name, or nothing to replace or remove.
    """
    if not isinstance(base, Mapping):
        raise InputError(f"model.base is {base!r}; it must have the name of a model and its settings")
    settings = {**base} if otf_graph is None else {**base, "otf_graph": otf_graph}
    _require_buildable(settings)
    model = build_model(settings)

    model.replaced_activations = []
    if activation != ORIGINAL:
        model.replaced_activations = replace_activations(model, activation, _where(activation_scope, base))
    model.removed_normalizations = remove_model_normalizations(model, denormalize)
    for what in ("replaced_activations", "removed_normalizations"):
        sites = getattr(model, what)
        logging.info(f"{base['name']}: {len(sites)} {what} {' '.join(site.path for site in sites)}")
    return model


def _where(scope: str | Sequence[str], base: Mapping[str, Any]) -> Callable[[str], bool] | Sequence[str]:
    if not isinstance(scope, str):
        return scope
    if scope not in ("output", "all"):
        raise InputError(f"model.activation_scope is {scope!r}; use output, all, or a list of patterns of sites")
    patterns = ("*",) if scope == "all" else _output_sites(base)
    return lambda path: _matches(path, patterns) and not _matches(path, PARAMETER_CONSTRAINTS)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _output_sites(base: Mapping[str, Any]) -> tuple[str, ...]:
    is_hydra = base["name"] == "hydra"
    name = (base.get("backbone") or {}).get("model") if is_hydra else base["name"]
    if name not in OUTPUT_SITES:
        raise InputError(
            f"model.activation_scope is 'output', and the output part of {name!r} is not known; give 'all', or a list "
            f"of patterns of its sites. Known: {', '.join(OUTPUT_SITES)}"
        )
    if is_hydra:
        return HYDRA_HEADS + tuple(f"backbone.{pattern}" for pattern in OUTPUT_SITES[name])
    return OUTPUT_SITES[name]


def build_model(settings: Mapping[str, Any]) -> nn.Module:
    """A new model, ours or fairchem's, by a config's ``model``: its ``name`` and settings."""
    setup_imports()  # registers all models of fairchem, if that has not been done
    model_class = registry.get_model_class(settings["name"])
    return model_class(**{key: value for key, value in settings.items() if key != "name"})


def _require_buildable(settings: dict[str, Any]) -> None:
    setup_imports()
    _require_settings("model.base", settings, "name")
    if settings["name"] == "hydra":
        if settings.get("backbone"):
            _require_settings("model.base.backbone", settings["backbone"], "model")
        for name, head in (settings.get("heads") or {}).items():
            _require_settings(f"model.base.heads.{name}", head, "module", None)


def _require_settings(key: str, settings: Mapping[str, Any], name_key: str, *arguments: Any) -> None:
    """Raises InputError unless ``settings[name_key]`` takes the other settings after ``arguments``."""
    name = settings.get(name_key)
    try:
        model_class = registry.get_model_class(str(name))
    except RuntimeError as error:
        raise InputError(f"{key}.{name_key} is {name!r}: {error}") from error
    signature = inspect.signature(model_class)
    try:
        signature.bind(*arguments, **{key: value for key, value in settings.items() if key != name_key})
    except TypeError as error:
        known = ", ".join(list(signature.parameters)[len(arguments) :])
        raise InputError(f"{key}: {name} {error}; its settings: {known}") from error
