"""fairchem's flags, and config keys as ``--section.key=VALUE``, checked before anything is run."""

from __future__ import annotations

import argparse
import ast
import difflib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ocp_dc.config_files import config_path
from ocp_dc.configuration.checking import check_config
from ocp_dc.configuration.flags import flags_parser
from ocp_dc.configuration.reading import Config, read_config, without_unused
from ocp_dc.configuration.schema import SECTIONS
from ocp_dc.errors import InputError

LARGEST_SEED = 2**32 - 1
# fairchem's folder of them in --run-dir
CHECKPOINTS = "checkpoints"


def checked_arguments(mode: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags, and the overridden config keys, each as ``--section.key=VALUE``, once the whole config has been checked.

    Raises:
        InputError: a word that is neither, a flag out of its range, a config that is not there or cannot be read, or
            all that is wrong with it.
    """
    parser = flags_parser(mode)
    args, overrides = parser.parse_known_args(["--mode", mode, *arguments])
    flags = [flag for action in parser._actions for flag in action.option_strings]
    for word in overrides:
        _check_override(word, flags)
    _check_flags(args)
    if mode == "train":
        _choose_run(args)
    if args.weights_only:
        overrides.append("--task.weights_only=True")
    args.config_yml = config_path(str(args.config_yml))
    config = read_with_overrides(args.config_yml, overrides)
    content = without_unused(config.content, config.unused)
    check_config({**content, "mode": mode, "checkpoint": args.checkpoint}, config.places)
    return args, overrides


def read_with_overrides(path: Path, overrides: Sequence[str]) -> Config:
    """A config file, and over it what the command line sets: values are Python literals, or else text."""
    config = read_config(path)
    config.note_unused(word.partition("=")[0].removeprefix("--") for word in overrides)
    _override(config, overrides)
    return config


def _choose_run(args: argparse.Namespace) -> None:
    """A run goes on under its own name, and one that began from another's weights from its own."""
    runs = Path(args.run_dir) / CHECKPOINTS
    own = runs / (args.timestamp_id or "") / "checkpoint.pt"
    if args.timestamp_id and args.weights_only and own.is_file():
        args.checkpoint = str(own)
    if args.checkpoint and not args.timestamp_id and not args.weights_only:
        folder = Path(args.checkpoint).resolve().parent
        if folder.parent == runs.resolve():
            args.timestamp_id = folder.name


def _override(config: Config, overrides: Sequence[str]) -> None:
    """As fairchem does it."""
    for word in overrides:
        name, _, text = word.partition("=")
        *sections, key = name.removeprefix("--").split(".")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        content = config.content
        for section in sections:
            if not isinstance(content.get(section), dict):
                content[section] = {}
            content = content[section]
        content[key] = value
        config.places[".".join((*sections, key))] = "on the command line"


def _check_override(word: str, flags: Iterable[str]) -> None:
    name, equals, _ = word.partition("=")
    key = name.removeprefix("--")
    known_section = key.split(".")[0] in SECTIONS[""].model_fields
    if word.startswith("--") and equals and (known_section or "." in key):
        if word.count("=") > 1:
            raise InputError(f"{word}: fairchem splits at every =; set a value that has one in a config file")
        return
    if not word.startswith("-"):
        raise InputError(f"{word!r} belongs to nothing: config keys are given as --section.key=VALUE")
    if known_section:
        raise InputError(f"{word}: give its value after an equals sign, {name}=VALUE")
    raise InputError(f"{name} is no flag and no config key{_similar(key, flags)}")


def _similar(key: str, flags: Iterable[str]) -> str:
    keys = {
        field: f"--{section}.{field}=VALUE"
        for section, fields in SECTIONS.items()
        if section
        for field in fields.model_fields
    }
    words = {flag.removeprefix("--"): flag for flag in flags} | keys
    close = difflib.get_close_matches(key.replace("-", "_"), words, n=1) or difflib.get_close_matches(key, words, n=1)
    return f"; did you mean {words[close[0]]}?" if close else "; config keys are given as --section.key=VALUE"


def _check_flags(args: argparse.Namespace) -> None:
    for name in ("num_gpus", "num_nodes", "print_every", "slurm_mem", "slurm_timeout"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be 1 or more")
    if not 0 <= args.seed <= LARGEST_SEED:
        raise InputError(f"--seed is {args.seed}; it must be from 0 to {LARGEST_SEED}")
    for name in ("identifier", "timestamp_id"):
        given = getattr(args, name) or ""
        if Path(given).name != given or given in (".", ".."):
            raise InputError(f"--{name.replace('_', '-')} is {given!r}; it names folders, and cannot be a path")
    if args.num_nodes > 1 and not args.submit:
        raise InputError(f"--num-nodes {args.num_nodes} is for SLURM: give --submit too, or leave it out")
    if args.submit and shutil.which("sbatch") is None:
        raise InputError("--submit: there is no sbatch here; submit from a machine of the cluster")
    if args.weights_only and not args.checkpoint:
        raise InputError("--weights-only is for the weights of --checkpoint FILE: give that too")
    if args.checkpoint and not Path(args.checkpoint).is_file():
        raise InputError(f"--checkpoint {args.checkpoint}: no such file")
    _check_run_dir(Path(args.run_dir))


def _check_run_dir(folder: Path) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise InputError(f"--run-dir {folder}: {existing} is a file; give a folder")
    try:
        TemporaryDirectory(dir=existing).cleanup()
    except OSError as error:
        raise InputError(
            f"--run-dir {folder}: {existing} cannot be written to ({error.strerror}); give another"
        ) from None
