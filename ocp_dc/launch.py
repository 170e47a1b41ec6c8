"""Starts fairchem's train, validate and predict, with fairchem's flags and configs."""

from __future__ import annotations

import argparse
import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairchem.core import _cli
from fairchem.core.common import distutils
from fairchem.core.common.utils import build_config

import ocp_dc.trainers  # noqa: F401  registers models and trainer
from ocp_dc.configuration.arguments import checked_arguments, read_with_overrides
from ocp_dc.configuration.checking import check_config
from ocp_dc.configuration.reading import without_unused
from ocp_dc.trainers.checkpoints import unused_run_id
from ocp_dc.trainers.config_keys import check_sources

# fairchem's, in --run-dir
RUN_FOLDERS = ("checkpoints", "results", "logs/tensorboard", "logs/wandb")
# endings of what a run leaves that has got somewhere
USED = {".pt", ".jsonl", ".npz"}


class Runner(_cli.Runner):
    """fairchem's, but of this package: unpickling it, in a rank or a SLURM job, imports and registers everything."""


def run_rank(config: dict) -> None:
    """What each local rank does."""
    Runner()(config)


def run_fairchem(mode: str, arguments: Sequence[str]) -> int:
    """`fairchem --mode MODE ARGUMENTS`, on the CPU where there is no GPU.

    Raises:
        InputError: see :func:`~ocp_dc.configuration.arguments.checked_arguments`.
    """
    return run_checked(*checked_arguments(mode, arguments))


def run_checked(args: argparse.Namespace, overrides: list[str]) -> int:
    """What :func:`run_fairchem` does, of arguments that have been checked."""
    _use_available_device(args)
    if args.check_data:
        config = _checked_config(args, overrides)
        check_sources(config["model"], config["dataset"], every_record=True)
    _cli.Runner, _cli.runner_wrapper, _cli.build_config = Runner, run_rank, _checked_config
    run_dir = Path(args.run_dir)
    begun = bool(args.timestamp_id) and any((run_dir / parent / args.timestamp_id).exists() for parent in RUN_FOLDERS)
    if not (args.timestamp_id or args.submit or args.debug):
        args.timestamp_id = unused_run_id(run_dir, args.identifier)
    try:
        _cli.main(args, overrides)
    except BaseException:
        if args.timestamp_id and not begun:
            _remove_unused(run_dir, args.timestamp_id)
        raise
    finally:
        clean_up()
    return 0


def _remove_unused(run_dir: Path, run_id: str) -> None:
    """The folders of a run that has come to nothing: to no checkpoint, and no logged value."""
    folders = [run_dir / parent / run_id for parent in RUN_FOLDERS]
    if any(file.suffix in USED for folder in folders if folder.is_dir() for file in folder.rglob("*")):
        return
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in (folder.parent, folder.parent.parent):
            if parent != run_dir and parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def config_of(mode: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The config that :func:`run_fairchem` runs.

    Raises:
        InputError: see :func:`~ocp_dc.configuration.arguments.checked_arguments`.
    """
    args, overrides = checked_arguments(mode, arguments)
    _use_available_device(args)
    return _checked_config(args, overrides)


def _use_available_device(args: argparse.Namespace) -> None:
    args.cpu = args.cpu or not (torch.cuda.is_available() or args.submit)


def _checked_config(args: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    unused = read_with_overrides(args.config_yml, overrides).unused
    return check_config(without_unused(build_config(args, overrides), unused))


def clean_up() -> None:
    """Ends the process group, and closes the LMDBs, that fairchem leaves behind after an error."""
    distutils.cleanup()
    gc.collect()
