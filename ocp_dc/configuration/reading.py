"""Config files with all that they include, and where each key was set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ocp_dc.configuration.schema import SCHEDULERS
from ocp_dc.errors import InputError

INCLUDES = "includes"
# of a config, what no one writes by hand
MOST_NODES, MOST_FILES = 10_000, 100


@dataclass
class Config:
    """What fairchem's ``load_config`` makes of a file.

    Attributes:
        content: the config.
        places: dotted key to ``file:line``, of every key.
        unused: of ``optim``, the keys that were given for a scheduler which has been replaced since.
    """

    content: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    unused: set[str] = field(default_factory=set)

    def note_unused(self, given: Iterable[str]) -> None:
        """To be called before these dotted keys are given anew: a scheduler leaves those of another behind."""
        keys = set(given)
        if "optim.scheduler" in keys:
            parameters = set().union(*SCHEDULERS.values())
            self.unused |= {name for name in parameters if f"optim.{name}" in self.places}
        self.unused -= {key.removeprefix("optim.") for key in keys}


def without_unused(content: dict[str, Any], unused: set[str]) -> dict[str, Any]:
    """A config that lacks these keys of ``optim``, but for those that its scheduler takes, as fairchem has it."""
    if not unused:
        return content
    left_out = unused - SCHEDULERS.get(str(content["optim"].get("scheduler")), set())
    return {**content, "optim": {key: value for key, value in content["optim"].items() if key not in left_out}}


def read_config(path: Path) -> Config:
    """A config file with its includes.

    Raises:
        InputError: naming file and line: no UTF-8, no YAML, a key twice, an include that is missing or goes in a
            circle, or includes that set the same key differently from one another; more than anyone writes.
    """
    return _read(path, (), [])


def _read(path: Path, including: Sequence[Path], read: list[Path]) -> Config:
    """A file, which ``including`` led to, after those that have been ``read``."""
    read.append(path)
    if len(read) > MOST_FILES:
        raise InputError(f"{read[0]} includes more than {MOST_FILES} files, itself or by others: include each once")
    if path.resolve() in (file.resolve() for file in including):
        chain = " -> ".join(map(str, (*including, path)))
        raise InputError(f"{path} includes itself ({chain}): remove one of these includes")
    own = _parse(path)
    includes = own.content.pop(INCLUDES, [])
    where = own.places.pop(INCLUDES, str(path))
    if not isinstance(includes, list) or not all(isinstance(include, str) for include in includes):
        raise InputError(f"{where}: includes is {includes!r}; give a list of files, each after a dash")
    merged = Config()
    for include in includes:
        _merge(merged, _read(_find(include, path, where), (*including, path), read), exclusive=True)
    merged.note_unused(own.places)
    _merge(merged, own)
    return merged


def _find(include: str, path: Path, where: str) -> Path:
    """As fairchem looks for it: from the working folder, then beside the file."""
    for candidate in (Path(include), path.parent / include):
        if candidate.is_file():
            return Path(os.path.normpath(candidate))
    raise InputError(f"{where}: includes {include}, and there is no such file beside {path} or in the working folder")


def _parse(path: Path) -> Config:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it in that encoding") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            kind = "empty" if node is None else f"a {node.id}"
            raise InputError(f"{path} is {kind}; a config is a mapping of sections, such as model: and optim:")
        if _unfolded(node, {}) > MOST_NODES:
            raise InputError(f"{path} is more than {MOST_NODES:,} keys and values, as aliases repeat them: write fewer")
        places: dict[str, str] = {}
        _note_places(path, node, "", places)
        return Config(loader.construct_document(node), places)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path}{line}: not valid YAML: {problem}{_hint(problem)}") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply, or an alias is of what it stands in: unfold it") from None
    finally:
        loader.dispose()


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """Keys and values in a node, what an alias stands for counted each time. ``known``: of nodes that have been."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        inner = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in inner)
    return known[id(node)]


def _hint(problem: str) -> str:
    if r"'\t'" in problem:
        return "; indent with spaces, not with tabs"
    return "; Python objects are not allowed" if "python/" in problem else ""


def _note_places(path: Path, node: yaml.Node, prefix: str, places: dict[str, str]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_places(path, item, f"{prefix}{index}.", places)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        place = f"{path}:{key.start_mark.line + 1}"
        dotted = f"{prefix}{key.value}"
        if dotted in places:
            raise InputError(f"{place}: {dotted} is there already ({places[dotted]}): remove one of them")
        places[dotted] = place
        _note_places(path, value, f"{dotted}.", places)


def _merge(into: Config, other: Config, exclusive: bool = False) -> None:
    """``other`` takes precedence; with ``exclusive`` nothing may be set by both."""
    both = _merge_content(into.content, other.content, "")
    if exclusive and both:
        key = both[0]
        raise InputError(
            f"{key} is set by two includes, at {into.places.get(key)} and at {other.places.get(key)}: "
            "remove one, or include one file in the other"
        )
    for key in both:
        for inner in [place for place in into.places if place.startswith(f"{key}.")]:
            del into.places[inner]
    into.places.update(other.places)
    into.unused |= other.unused


def _merge_content(into: dict, other: Mapping, prefix: str) -> list[str]:
    both = []
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            both += _merge_content(into[key], value, f"{prefix}{key}.")
            continue
        if key in into:
            both.append(f"{prefix}{key}")
        into[key] = value
    return both
