"""All that is wrong with a config, at once: key, value, what is allowed, and where it was set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ocp_dc.configuration.schema import (
    MODELS,
    NAMED_SECTIONS,
    OF_ALL_SCHEDULERS,
    SBATCH,
    SCHEDULERS,
    SECTIONS,
    TRAINERS,
    Config,
    Optim,
    Section,
    Source,
)
from ocp_dc.errors import InputError

LEARNED = ("energy", "forces")
SOURCE_OF_MODE = {"train": "train", "validate": "val", "predict": "test"}
SHOWN_CHARACTERS = 80
ALLOWED = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a key.

    Attributes:
        key: dotted.
        text: the message, without the place.
        missing: whether it is that the key is not there.
    """

    key: str
    text: str
    missing: bool = False


def check_config(config: dict[str, Any], places: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A whole config, with numbers that YAML took for text, such as 1e-4, as numbers.

    Args:
        places: where keys were set, see :class:`ocp_dc.configuration.reading.Config`.

    Raises:
        InputError: naming every problem.
    """
    checked, problems = _validated(Config, config, "")
    model, more = _validated_model(config.get("model"))
    problems = [*problems, *more, *_problems_between(config), *_problems_of_a_run(config)]
    if problems:
        raise InputError(_listed(problems, places or {}))
    return {**checked, "model": model}


def check_sections(sections: dict[str, Any]) -> dict[str, Any]:
    """Those that a trainer is given, which may come from elsewhere than a config file; see :func:`check_config`.

    Args:
        sections: ``task``, ``model``, ``outputs``, ``dataset``, ``optim`` and ``loss_functions``. What is left out of
            them is no problem: a checkpoint that predicts needs no learning rate.
    """
    checked, problems = _validated(Config, sections, "")
    if "train" not in sections["dataset"]:
        # of a single set, as fairchem takes it too
        problems = [problem for problem in problems if not problem.key.startswith("dataset.")]
        checked["dataset"], more = _validated(Source, sections["dataset"], "dataset.")
        problems += more
    checked["model"], more = _validated_model(sections["model"])
    problems = [problem for problem in (*problems, *more) if not problem.missing]
    problems += _problems_between({**sections, "trainer": TRAINERS[0]})
    if problems:
        raise InputError(_listed(problems, {}))
    return checked


def _validated(section: type[Section], settings: Any, prefix: str) -> tuple[dict[str, Any], list[Problem]]:
    try:
        return section.model_validate(settings).model_dump(exclude_unset=True), []
    except ValidationError as error:
        known = () if section is Config else list(section.model_fields)
        problems = _problems(error.errors(include_url=False), settings, prefix, known)
        return dict(settings) if isinstance(settings, dict) else settings, list(problems)


def _validated_model(settings: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Of models that are not known here, nothing is checked."""
    if not isinstance(settings, dict):
        return settings, []
    if "name" not in settings:
        return settings, [Problem("model.name", "model.name is missing", missing=True)]
    known = MODELS.get(settings["name"]) if isinstance(settings["name"], str) else None
    return _validated(known, settings, "model.") if known else (settings, [])


def _problems(errors: Sequence[ErrorDetails], settings: Any, prefix: str, known: Sequence[str]) -> Iterator[Problem]:
    """One for each key, though a key of several kinds has an error for each kind."""
    by_key: dict[tuple, list[ErrorDetails]] = {}
    for error in errors:
        by_key.setdefault(_own_part(error, settings), []).append(error)
    for path, of_key in by_key.items():
        if any(other != path and other[: len(path)] == path for other in by_key):
            continue  # it is none of the other kinds that it may be of; what is wrong is inside
        key = prefix + ".".join(map(str, path))
        kinds = {error["type"] for error in of_key}
        if "missing" in kinds:
            yield Problem(key, f"{key} is missing", missing=True)
        elif "extra_forbidden" in kinds:
            yield unknown_key(key, known or _known_keys(key.rpartition(".")[0]))
        else:
            allowed = dict.fromkeys(map(_allowed, of_key))
            yield Problem(key, f"{key} is {_shown(of_key[0]['input'])}; it must be {' or '.join(allowed)}")


def _allowed(error: ErrorDetails) -> str:
    limits = {name: f"{value:g}" if isinstance(value, float) else value for name, value in error.get("ctx", {}).items()}
    return ALLOWED.get(error["type"], error["msg"]).format(**limits).replace("'", "")


def _own_part(error: ErrorDetails, settings: Any) -> tuple:
    """The path of an error, without what pydantic puts in between of the kinds that a value may have."""
    own = []
    for step in error["loc"]:
        try:
            settings = settings[step]
        except (KeyError, IndexError, TypeError):
            continue
        own.append(step)
    if error["type"] == "missing":
        own.append(error["loc"][-1])
    return tuple(own)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def unknown_key(key: str, known: Iterable[str]) -> Problem:
    """Of a dotted key that is none of ``known`` there."""
    return Problem(key, f"config key {key} is unknown; {_hint(key.rpartition('.')[2], list(known))}")


def _hint(name: str, known: Iterable[str]) -> str:
    """What a key of that name may have been meant to be."""
    if close := difflib.get_close_matches(name, known, n=1):
        return f"did you mean {close[0]}?"
    if elsewhere := [f"{other}.{name}" for other, fields in SECTIONS.items() if other and name in fields.model_fields]:
        return f"did you mean {elsewhere[0]}?"
    return f"known: {', '.join(sorted(known))}"


def _known_keys(section: str) -> list[str]:
    """Of a dotted section, such as ``outputs.energy``."""
    for pattern, fields in NAMED_SECTIONS.items():
        if re.fullmatch(pattern, section):
            return list(fields.model_fields)
    return list(SECTIONS[section].model_fields)


def _problems_between(config: dict[str, Any]) -> Iterator[Problem]:
    """Of keys that belong together."""
    task, optim, outputs = (_mapping(config.get(name)) for name in ("task", "optim", "outputs"))
    yield from _problems_of_the_scheduler(optim)
    if isinstance(config.get("outputs"), dict) and (absent := [name for name in LEARNED if name not in outputs]):
        yield Problem("outputs", f"outputs has no {', '.join(absent)}: this trainer learns energy and forces")
    terms = config.get("loss_functions")
    for index, term in enumerate(terms if isinstance(terms, list) else []):
        for target in _mapping(term):
            if outputs and target not in outputs:
                key = f"loss_functions.{index}.{target}"
                yield Problem(key, f"{key}: {target} is none of outputs, which are {', '.join(outputs)}")
    train = _mapping(config.get("dataset"))
    transforms = _mapping(_mapping(train.get("train", train)).get("transforms"))
    ours = [key for key in ("label_rescaling", "reference_energy") if task.get(key) not in (None, "none")]
    theirs = [key for key in ("normalizer", "element_references") if key in transforms]
    if ours and theirs:
        key = f"dataset.train.transforms.{theirs[0]}"
        yield Problem(key, f"{key} and task.{ours[0]} both scale the labels: remove one of them")
    own = [f"task.{key}" for key in ours] + ["optim.step"] * ("step" in optim)
    if own and config.get("trainer") not in TRAINERS:
        given = f"is {config['trainer']!r}" if "trainer" in config else "is not set"
        yield Problem("trainer", f"trainer {given}, and only this package's reads {own[0]}: set it to {TRAINERS[1]}")


def _problems_of_the_scheduler(optim: dict[str, Any]) -> Iterator[Problem]:
    scheduler = optim.get("scheduler")
    if scheduler is not None and str(scheduler) not in SCHEDULERS:
        key = "optim.scheduler"
        yield Problem(key, f"{key} is {_shown(scheduler)}; it must be one of {', '.join(SCHEDULERS)}")
        return
    own = SCHEDULERS[scheduler] | OF_ALL_SCHEDULERS if scheduler not in (None, "Null") else set()
    known = Optim.model_fields.keys() | own
    for name in optim:
        if name in known:
            continue
        key = f"optim.{name}"
        of_others = [other for other, parameters in SCHEDULERS.items() if name in parameters]
        if of_others:
            found = f"optim.scheduler is {_shown(scheduler)}" if scheduler else "there is no optim.scheduler"
            problem = f"is a parameter of {', '.join(of_others)}, and {found}"
            yield Problem(key, f"config key {key} {problem}: give it with that scheduler, or remove it")
        else:
            yield unknown_key(key, known)


def _problems_of_a_run(config: dict[str, Any]) -> Iterator[Problem]:
    """What a whole config must say besides."""
    if config.get("logger") is None:
        yield Problem("logger", "logger is missing: set it to tensorboard, or to wandb where that is installed", True)
    split = SOURCE_OF_MODE.get(str(config.get("mode")))
    dataset = _mapping(config.get("dataset"))
    if split and "src" not in _mapping(dataset.get(split)) and not (split == "train" and "src" in dataset):
        key = f"dataset.{split}.src"
        yield Problem(key, f"{key} is missing: to {config['mode']} takes data, --{key}=FOLDER", missing=True)
    if config.get("mode") == "predict" and not config.get("checkpoint"):
        yield Problem("checkpoint", "predicting takes a trained model: --checkpoint FILE", missing=True)
    metrics = _mapping(config.get("evaluation_metrics"))
    of_targets = {target: of for target, of in _mapping(metrics.get("metrics")).items() if isinstance(of, list)}
    names = [f"{target}_{name}" for target, of in of_targets.items() for name in of]
    primary = metrics.get("primary_metric")
    if names and primary is not None and primary not in names:
        key = "evaluation_metrics.primary_metric"
        yield Problem(key, f"{key} is {primary!r}; it must be one of those under metrics: {', '.join(names)}")
    for name in _mapping(config.get("slurm")):
        if str(name).replace("-", "_") not in SBATCH:
            yield unknown_key(f"slurm.{name}", SBATCH)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(problems: Sequence[Problem], places: Mapping[str, str]) -> str:
    lines = [problem.text + _place(problem.key, places) for problem in problems]
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} problems in the config:" + "".join(f"\n  {line}" for line in lines)


def _place(key: str, places: Mapping[str, str]) -> str:
    return f" ({places[key]})" if key in places else ""
