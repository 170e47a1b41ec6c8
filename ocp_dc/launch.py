"""Starts fairchem's train, validate and predict, with fairchem's flags and configs."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path

import torch
from fairchem.core import _cli
from fairchem.core.common import distutils
from fairchem.core.common.flags import flags
from fairchem.core.common.utils import build_config

import ocp_dc.trainers  # noqa: F401  registers models and trainer
from ocp_dc.config_files import config_path
from ocp_dc.errors import InputError
from ocp_dc.trainers.config_keys import check_sections


class Runner(_cli.Runner):
    """fairchem's, but of this package: unpickling it, in a rank or a SLURM job, imports and registers everything."""


def run_rank(config: dict) -> None:
    """What each local rank does."""
    Runner()(config)


def run_fairchem(mode: str, arguments: Sequence[str]) -> int:
    """`fairchem --mode MODE ARGUMENTS`, on the CPU where there is no GPU.

    Raises:
        InputError: a config or checkpoint that is not there, or an unknown section.
    """
    args, overrides = parse_arguments(mode, arguments)
    if args.checkpoint and not Path(args.checkpoint).is_file():
        raise InputError(f"--checkpoint {args.checkpoint}: no such file")
    _cli.Runner, _cli.runner_wrapper = Runner, run_rank
    try:
        _cli.main(args, overrides)
    finally:
        clean_up()
    return 0


def parse_arguments(mode: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """fairchem's flags, and the overridden config keys; ``build_config`` makes a config of both.

    Raises:
        InputError: there is no such file, nor a shipped config of that name, or it has an unknown section.
    """
    args, overrides = flags.get_parser().parse_known_args(["--mode", mode, *arguments])
    args.config_yml = config_path(str(args.config_yml))
    check_sections(build_config(args, overrides))
    if not torch.cuda.is_available() and not args.submit:
        args.cpu = True
    return args, overrides


def clean_up() -> None:
    """Ends the process group, and closes the LMDBs, that fairchem leaves behind after an error."""
    distutils.cleanup()
    gc.collect()
