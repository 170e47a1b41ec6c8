"""The `ocp-dc` command. Training and validation are fairchem's, with its flags, and so is `predict --config-yml`."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import ocp_dc
from ocp_dc.config_commands import add_config_commands
from ocp_dc.datasets.md17_commands import add_md17_commands
from ocp_dc.datasets.oc22_commands import add_oc22_commands
from ocp_dc.errors import InputError, TrainingDivergedError
from ocp_dc.info import add_info_command
from ocp_dc.prediction_commands import add_prediction_commands
from ocp_dc.runs.commands import add_run_commands

FAIRCHEM_MODES = ("train", "validate")


def run_fit_scale_factors(args: argparse.Namespace) -> int:
    from ocp_dc.scale_factor_fit import fit_scale_factors

    factors = fit_scale_factors(args.config_yml, args.out, args.overrides, args.num_batches, args.overwrite)
    for name, factor in factors.items():
        print(f"{name:<32}{factor:>12.5f}")
    print(f"written to {args.out}: give it as --model.scale_file={args.out}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser; nothing heavy is imported for it, so that --help is quick."""
    parser = argparse.ArgumentParser(
        prog="ocp-dc", description="Derivative-constrained training for the Open Catalyst Project's models."
    )
    parser.add_argument("--version", action="version", version=f"ocp_dc {ocp_dc.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for mode in FAIRCHEM_MODES:
        commands.add_parser(mode, help=f"fairchem's {mode}: --config-yml FILE and its other flags", add_help=False)
    add_prediction_commands(commands)
    add_md17_commands(commands)
    add_oc22_commands(commands)
    add_run_commands(commands)
    add_config_commands(commands)
    add_info_command(commands)

    fit = commands.add_parser("fit-scale-factors", help="fit GemNet's scale factors on a config's training set")
    fit.add_argument("--config-yml", required=True, type=Path, help="config of a model with scale factors")
    fit.add_argument("--out", required=True, type=Path, help="JSON file to write, for model.scale_file")
    fit.add_argument("--num-batches", type=int, default=16, help="training batches used for each factor (default 16)")
    fit.add_argument("--overwrite", action="store_true", help="replace an existing file")
    fit.set_defaults(func=run_fit_scale_factors)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 0 success, 1 training diverged, 2 input that cannot be used, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # of which a user can do nothing: what fairchem and its needs will do in future, and the layout of small gradients
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    try:
        if _is_fairchems(arguments):
            return _run_fairchem(arguments[0], arguments[1:])
        args, args.overrides = build_parser().parse_known_args(arguments)
        if args.overrides and args.func is not run_fit_scale_factors:
            raise InputError(f"unknown arguments: {' '.join(args.overrides)}; see ocp-dc {args.command} --help")
        return args.func(args)
    except InputError as error:
        print(f"ocp-dc: error: {error}", file=sys.stderr)
        return 2
    except TrainingDivergedError as error:
        print(f"ocp-dc: training diverged: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ocp-dc: interrupted", file=sys.stderr)
        return 130
    finally:
        logging.shutdown()


def _is_fairchems(arguments: list[str]) -> bool:
    """Whether fairchem's flags follow; its ``predict`` is known by the config, which ours does not take."""
    if arguments[:1] == ["predict"]:
        return any(word.split("=")[0] == "--config-yml" for word in arguments)
    return bool(arguments) and arguments[0] in FAIRCHEM_MODES


def _run_fairchem(mode: str, arguments: list[str]) -> int:
    if {"-h", "--help"}.intersection(arguments):
        _print_help_of_fairchem(mode)
        return 0
    from ocp_dc.launch import run_fairchem

    return run_fairchem(mode, arguments)


def _print_help_of_fairchem(mode: str) -> None:
    # from the file of its flags: importing its package takes seconds
    folder = next(iter(find_spec("fairchem").submodule_search_locations))
    spec = spec_from_file_location("fairchem_flags", Path(folder) / "core" / "common" / "flags.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    parser = module.flags.get_parser()
    parser.prog = f"ocp-dc {mode}"
    parser.print_help()


if __name__ == "__main__":
    sys.exit(main())
