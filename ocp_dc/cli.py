"""The `ocp-dc` command. Training, validation and prediction are fairchem's, with its flags."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import ocp_dc
from ocp_dc.config_commands import add_config_commands
from ocp_dc.datasets.md17_commands import add_md17_commands
from ocp_dc.datasets.oc22_commands import add_oc22_commands
from ocp_dc.errors import InputError, TrainingDivergedError
from ocp_dc.info import add_info_command
from ocp_dc.runs.commands import add_run_commands
from ocp_dc.simulate.commands import add_simulation_commands

if TYPE_CHECKING:
    from ocp_dc.evaluation import TestErrors

FAIRCHEM_MODES = ("train", "validate", "predict")


def run_evaluate(args: argparse.Namespace) -> int:
    from ocp_dc.evaluation import evaluate, write_result

    out = args.out or Path(args.checkpoint).parent / "result.json"
    if out.exists() and not args.overwrite:
        raise InputError(f"{out} exists; name another file with --out, or give --overwrite")
    errors, _ = evaluate(args.checkpoint, args.data, args.batch_size, args.cpu)
    print(format_errors(errors))
    write_result(out, errors, args.checkpoint, args.data)
    print(f"written to {out}")
    return 0


def run_fit_scale_factors(args: argparse.Namespace) -> int:
    from ocp_dc.scale_factor_fit import fit_scale_factors

    factors = fit_scale_factors(args.config_yml, args.out, args.overrides, args.num_batches, args.overwrite)
    for name, factor in factors.items():
        print(f"{name:<32}{factor:>12.5f}")
    print(f"written to {args.out}: give it as --model.scale_file={args.out}")
    return 0


def format_errors(errors: TestErrors) -> str:
    """The test errors as a table for the terminal."""
    unit = errors.energy_unit
    rows = [
        ("conformations", f"{errors.conformations}", ""),
        ("energy MAE", f"{errors.energy_mae:.4f} {unit}", f"{errors.energy_mae_eV:.5f} eV"),
        ("force MAE", f"{errors.force_mae:.4f} {unit}/Å", f"{errors.force_mae_eV_per_angstrom:.5f} eV/Å"),
        ("EFwT", f"{100 * errors.efwt:.1f} %", "energy within 0.02 eV and every force component within 0.03 eV/Å"),
    ]
    return "\n".join(f"{name:<15}{in_source_units:>24}   {note}".rstrip() for name, in_source_units, note in rows)


def build_parser() -> argparse.ArgumentParser:
    """The parser; nothing heavy is imported for it, so that --help is quick."""
    parser = argparse.ArgumentParser(
        prog="ocp-dc", description="Derivative-constrained training for the Open Catalyst Project's models."
    )
    parser.add_argument("--version", action="version", version=f"ocp_dc {ocp_dc.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for mode in FAIRCHEM_MODES:
        commands.add_parser(mode, help=f"fairchem's {mode}: --config-yml FILE and its other flags", add_help=False)
    add_md17_commands(commands)
    add_oc22_commands(commands)
    add_run_commands(commands)
    add_config_commands(commands)
    add_info_command(commands)
    add_simulation_commands(commands)

    evaluation = commands.add_parser("evaluate", help="test errors of a checkpoint")
    evaluation.add_argument("--checkpoint", required=True, help="checkpoint.pt of a run (it is unpickled: trust it)")
    evaluation.add_argument("--data", required=True, type=Path, help="LMDB folder or file (it is unpickled: trust it)")
    evaluation.add_argument("--batch-size", type=int, help="default: as many as are fast; the paper's is 1")
    evaluation.add_argument("--out", type=Path, help="default: result.json beside the checkpoint")
    evaluation.add_argument("--overwrite", action="store_true", help="replace an existing result file")
    evaluation.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    evaluation.set_defaults(func=run_evaluate)

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
        if arguments and arguments[0] in FAIRCHEM_MODES:
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
