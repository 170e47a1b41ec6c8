"""The paper's transforms of a model, for any torch module: other activations (Sec. 4.1), no normalization (Sec. 4.2).

Both find their sites by walking the module: its submodules, and the lists, tuples, dicts and functions it keeps as
attributes. Anything inside an object that is neither a module nor one of those containers is not found. Activations
that its methods call by name (``F.silu(x)``, ``torch.relu(x)``, ``x.relu()``) are found too, but cannot be replaced.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from inspect import isfunction, unwrap
from types import CodeType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ocp_dc import activations
from ocp_dc.errors import InputError

Where = Callable[[str], bool] | str | Sequence[str] | None

# Names of classes, of their bases and of functions, so that third parties' count as well as PyTorch's own.
_ACTIVATION = re.compile(
    r"(.*(elu|silu|siqu|swish|mish|soft_?plus|softsign|tanh|shrink)_?\d*|ssp|act|scaledactivation)", re.IGNORECASE
)
_GATE = re.compile(r".*(sigmoid|softmax|softmin)_?(\dd)?", re.IGNORECASE)
_NORMALIZATION = {
    "batch": re.compile(r".*BatchNorm(\dd)?"),
    "all": re.compile(
        r".*(Batch|Layer|Group|Instance|Graph|GraphSize|MeanSubtraction|Pair|RMS)Norm(\dd|Array\w*|V\d+)?"
    ),
}
_MODULE_INTERNALS = frozenset(vars(nn.Module()))
# What a method may call by name. Not tanh: called, it is a gate or a bound as often as an activation.
_CALLABLE = ("celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "relu", "relu6", "selu", "silu", "softplus")


@dataclass(frozen=True)
class ReplacedSite:
    """One replaced place: its dotted path, the class or function that was there, and the class that is there now."""

    path: str
    old: str
    new: str


def replace_activations(
    module: nn.Module, activation: str | Callable[[], nn.Module], where: Where = None
) -> list[ReplacedSite]:
    """Replace the activations of ``module``, in place (paper, Sec. 4.1).

    A site is a place that holds an activation: a submodule, an item of a list, tuple or dict, or a function kept as an
    attribute (``self.act = F.silu``). It is recognised by the name of its class (or a base class) or function, whether
    PyTorch's or not: ``SiLU``, ``LeakyReLU``, ``ShiftedSoftplus``, ``swish``… A wrapper of an activation, such as
    GemNet's ``ScaledSiLU``, is one site as a whole, its scale included; a module with layers of its own is none,
    whatever its name, and is searched. Sigmoid and softmax are gates and stay, as does any lambda. A softplus that
    only keeps a parameter positive looks like an activation: leave it out with ``where``.

    PyTorch's activations that a module's methods call by name are one site per module and name: ``F.silu(x)`` in
    ``head`` is ``head.functional.silu``. They cannot be replaced: keep them as modules, or leave them out with
    ``where``. Not found: calls in plain functions outside the class, in-place ones (``F.relu_``), and those of a name
    that the module has as an attribute too.

    An instance shared by several places is replaced in each, and what replaces it is shared likewise. A place that can
    be reached by several paths is one site, under the shortest.

    Args:
        activation: a name of :func:`ocp_dc.activations.known_activations`, or a function that makes a module.
        where: the sites to replace, all by default: a predicate on the path, or one or more patterns in the manner of
            ``fnmatch`` (``"output_blocks.*"``; ``*`` crosses dots).

    Returns:
        one record for each site, in the order of the walk (breadth first).

    Raises:
        InputError: the activation is unknown, a pattern matches no site, a site to replace is a call by name, or
            nothing is replaced. The module is then as it was.
    """
    make = partial(activations.activation, activation) if isinstance(activation, str) else activation
    return _replace(module, "activation", _is_activation, _is_gate, make, where)


def denormalize(module: nn.Module, which: str = "all", where: Where = None) -> list[ReplacedSite]:
    """Replace the normalization layers of ``module`` by the identity, in place (paper, Sec. 4.2).

    Layers are recognised by the name of their class or a base class, PyTorch's or not: ``SyncBatchNorm``, PyG's
    ``GraphNorm``, fairchem's ``EquivariantLayerNormArray``… The identity takes and ignores further arguments (PyG's
    norms are called with the batch vector).

    Args:
        which: ``batch`` for batch normalization only; ``all`` for layer, group, instance, graph, pair and RMS
            normalization as well.
        where: as for :func:`replace_activations`.

    Returns:
        one record for each layer.

    Raises:
        InputError: ``which`` is neither, a pattern matches no site, or nothing is replaced.
    """
    if which not in _NORMALIZATION:
        raise InputError(f"Cannot denormalize {which!r}; use one of: {', '.join(_NORMALIZATION)}.")
    return _replace(
        module, "normalization", partial(_is_normalization, which), partial(_is_normalization, "all"), Removed, where
    )


class Removed(nn.Identity):
    """Returns its first argument, of any shape; stands where a layer that may have taken more was removed."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return x


@dataclass(frozen=True)
class _Place:
    path: str
    value: Any
    put: Callable[[Any], None] | None
    callers: Sequence[str] = ()


def _replace(
    root: nn.Module,
    kind: str,
    is_site: Callable[[Any], bool],
    is_near_miss: Callable[[Any], bool],
    make: Callable[[], nn.Module],
    where: Where,
) -> list[ReplacedSite]:
    found = [place for place in _places(root, is_site) if is_site(place.value) or is_near_miss(place.value)]
    sites = [place for place in found if is_site(place.value)]
    chosen = _select(sites, where, f"{kind} site of {type(root).__name__}")
    if not chosen:
        raise InputError(f"No {kind} of {type(root).__name__} was replaced. Found, but left out: {_listing(found)}.")
    _refuse_calls(chosen)
    substitutes: dict[int, nn.Module] = {}
    records = []
    for place in chosen:
        shared = id(place.value) if isinstance(place.value, nn.Module) else id(place)
        if shared not in substitutes:
            substitutes[shared] = make().train(root.training)
        place.put(substitutes[shared])
        records.append(ReplacedSite(place.path, _name(place.value), _name(substitutes[shared])))
    _leave_fused_inference(root)
    return records


def _select(sites: list[_Place], where: Where, what: str) -> list[_Place]:
    if where is None or callable(where):
        return [site for site in sites if where is None or where(site.path)]
    patterns = [where] if isinstance(where, str) else where
    for pattern in patterns:
        if not any(fnmatchcase(site.path, pattern) for site in sites):
            raise InputError(f"Pattern {pattern!r} matches no {what}. It has: {_listing(sites)}.")
    return [site for site in sites if any(fnmatchcase(site.path, pattern) for pattern in patterns)]


def _refuse_calls(chosen: list[_Place]) -> None:
    calls = [f"{site.path} ({', '.join(site.callers)} calls {_name(site.value)})" for site in chosen if site.callers]
    if calls:
        raise InputError(
            f"Activations called by name cannot be replaced: {'; '.join(calls)}. Keep each as a module "
            "(`self.act = nn.SiLU()`) and call that, or leave it out with `where` (in a config, activation_scope)."
        )


def _listing(places: list[_Place]) -> str:
    return ", ".join(f"{place.path} ({_name(place.value)})" for place in places) or "none"


def _places(root: nn.Module, is_site: Callable[[Any], bool]) -> Iterator[_Place]:
    """Every place under ``root``, breadth first; each module, list and dict is entered once, and no site is."""
    queue, entered = deque([_Place("", root, lambda _: None)]), set()
    while queue:
        holder = queue.popleft()
        # A tuple is entered from each place that holds it: replacing its items replaces it there.
        if is_site(holder.value) or id(holder.value) in entered:
            continue
        if not isinstance(holder.value, tuple):
            entered.add(id(holder.value))
        prefix = f"{holder.path}." if holder.path else ""
        for key, value, put in _items(holder):
            place = _Place(f"{prefix}{key}", value, put)
            yield place
            if _is_container(value):
                queue.append(place)
        for name, methods in _called_by_name(holder.value):
            yield _Place(f"{prefix}functional.{name}", getattr(F, name), None, methods)


def _is_container(value: Any) -> bool:
    # Of tuples, plain and named ones: others, such as e3nn's Irreps, need not behave as a tuple of their items.
    is_tuple = type(value) is tuple or (isinstance(value, tuple) and hasattr(value, "_make"))
    return is_tuple or isinstance(value, (nn.Module, list, dict))


def _items(holder: _Place) -> Iterator[tuple[Any, Any, Callable[[Any], None]]]:
    value = holder.value
    if isinstance(value, nn.Module):
        attributes = {key: item for key, item in vars(value).items() if key not in _MODULE_INTERNALS}
        for key, item in {**value._modules, **attributes}.items():
            yield key, item, partial(setattr, value, key)
    elif isinstance(value, tuple):
        current = list(value)
        for index, item in enumerate(value):
            yield index, item, partial(_put_in_tuple, holder, current, index)
    else:
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield key, item, partial(value.__setitem__, key)


def _put_in_tuple(holder: _Place, current: list[Any], index: int, new: Any) -> None:
    current[index] = new
    rebuild = getattr(type(holder.value), "_make", tuple)
    holder.put(rebuild(current))


def _is_activation(value: Any) -> bool:
    return _is_named(value, _ACTIVATION) and all(_is_activation(c) or _is_gate(c) for c in _children(value))


def _is_gate(value: Any) -> bool:
    return _is_named(value, _GATE) and not _children(value)


def _is_normalization(which: str, value: Any) -> bool:
    return (
        isinstance(value, nn.Module)
        and _is_named(value, _NORMALIZATION[which])
        and all(_is_normalization(which, child) for child in _children(value))
    )


def _is_named(value: Any, pattern: re.Pattern[str]) -> bool:
    if isinstance(value, nn.Module):
        return any(pattern.fullmatch(base.__name__) for base in type(value).__mro__)
    return callable(value) and not isinstance(value, type) and pattern.fullmatch(_name(value)) is not None


def _children(value: Any) -> list[nn.Module]:
    return list(value.children()) if isinstance(value, nn.Module) else []


def _name(value: Any) -> str:
    if isinstance(value, partial):
        return _name(value.func)
    return getattr(value, "__name__", None) or type(value).__name__


def _leave_fused_inference(root: nn.Module) -> None:
    # In eval mode PyTorch's transformer layer calls a fused kernel with the activation and the norms it was built with.
    for layer in root.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0


def _called_by_name(value: Any) -> list[tuple[str, list[str]]]:
    """The activations that methods of a module call by name, each with these methods."""
    calls = _calls(type(value)) if isinstance(value, nn.Module) else {}
    return [(name, methods) for name, methods in calls.items() if not hasattr(value, name)]


@cache
def _calls(cls: type) -> dict[str, list[str]]:
    # a constructor that names an activation keeps it, as an attribute
    calls, overridden = {}, {"__init__"}
    for base in cls.__mro__:
        methods = vars(base) if base.__module__.partition(".")[0] != "torch" else {}
        for method in [name for name, value in methods.items() if isfunction(value) and name not in overridden]:
            names = set(_names(unwrap(methods[method]).__code__))
            for activation in [name for name in _CALLABLE if name in names]:
                calls.setdefault(activation, []).append(f"{base.__name__}.{method}")
            if "super" not in names:
                overridden.add(method)
    return calls


def _names(code: CodeType) -> Iterator[str]:
    """The names of globals, attributes and methods in ``code`` and in the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
