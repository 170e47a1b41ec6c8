"""The ``ocp-dc configs`` command: the configs that come with this package, and what is in one."""

from __future__ import annotations

import argparse

from ocp_dc.config_files import CONFIGS, config_file, config_names, summary
from ocp_dc.errors import InputError
from ocp_dc.terminal import format_table


def add_config_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``configs [NAME]``; see :func:`~ocp_dc.info.add_info_command`."""
    parser = subparsers.add_parser("configs", help="list the configs of this package, or print one")
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="print this one with its includes, such as md17/schnet_dc"
    )
    parser.add_argument("--path", action="store_true", help="print only the file's path")
    parser.set_defaults(func=_configs)


def _configs(args: argparse.Namespace) -> int:
    if args.name is None:
        if args.path:
            raise InputError("--path needs the NAME of a config; `ocp-dc configs` lists them")
        print(_listing())
    elif args.path:
        print(config_file(args.name))
    else:
        print(_resolved(args.name), end="")
    return 0


def _listing() -> str:
    return f"{format_table([(name, summary(name)) for name in config_names()])}\nin {CONFIGS}"


def _resolved(name: str) -> str:
    """A config with all that it includes, as YAML."""
    import yaml
    from fairchem.core.common.utils import load_config

    file = config_file(name)
    content, _, _ = load_config(file)
    return f"# {file}\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"
