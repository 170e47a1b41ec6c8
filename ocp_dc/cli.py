"""The `ocp-dc` command. Training and validation are fairchem's, with its flags, and so is `predict --config-yml`."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import resource
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import ocp_dc
from ocp_dc.config_commands import add_config_commands
from ocp_dc.configuration.flags import flags_parser
from ocp_dc.datasets.md17_commands import add_md17_commands
from ocp_dc.datasets.oc22_commands import add_oc22_commands
from ocp_dc.errors import InputError, TrainingDivergedError
from ocp_dc.export_command import add_export_command
from ocp_dc.info import add_info_command
from ocp_dc.prediction_commands import add_prediction_commands
from ocp_dc.runs.commands import add_run_commands
from ocp_dc.signals import EndedBySignal, ended_by_signals
from ocp_dc.simulate.commands import add_simulation_commands
from ocp_dc.terminal import printable

FAIRCHEM_MODES = ("train", "validate")
DEBUG = "--debug"
# what libraries say where no more files can be opened
NO_DESCRIPTORS = ("Too many open files", "received 0 items of ancdata")
# as a shell reports a program that nobody reads the output of
NOBODY_READS = 128 + signal.SIGPIPE


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
    parser.add_argument(DEBUG, action="store_true", help="before COMMAND: show where in the code an error was raised")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for mode in FAIRCHEM_MODES:
        commands.add_parser(mode, help=f"fairchem's {mode}: --config-yml FILE and its other flags", add_help=False)
    add_prediction_commands(commands)
    add_md17_commands(commands)
    add_oc22_commands(commands)
    add_run_commands(commands)
    add_config_commands(commands)
    add_info_command(commands)
    add_export_command(commands)
    add_simulation_commands(commands)

    fit = commands.add_parser("fit-scale-factors", help="fit GemNet's scale factors on a config's training set")
    fit.add_argument("--config-yml", required=True, type=Path, help="config of a model with scale factors")
    fit.add_argument("--out", required=True, type=Path, help="JSON file to write, for model.scale_file")
    fit.add_argument("--num-batches", type=int, default=16, help="training batches used for each factor (default 16)")
    fit.add_argument("--overwrite", action="store_true", help="replace an existing file")
    fit.set_defaults(func=run_fit_scale_factors)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 success, 1 training diverged or a fault of ours, 2 input that cannot be used, 128 + N ended by signal N.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = arguments[:1] == [DEBUG]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # of what a terminal's encoding lacks, an escape is better than nothing
            stream.reconfigure(errors="backslashreplace")
    # of which a user can do nothing: what fairchem and its needs will do in future, and the layout of small gradients
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    hooks = threading.excepthook, sys.unraisablehook
    if not debug:
        threading.excepthook = _tell_of_thread
        # what destructors cannot do because of an error that is told
        sys.unraisablehook = lambda _: None
    try:
        with ended_by_signals():
            status = _run(arguments[1:] if debug else arguments)
        _flush()
        return status
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        return _report(error)
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        logging.shutdown()


def _tell_of_thread(ended: threading.ExceptHookArgs) -> None:
    # what a thread could not write is raised again by whoever hands it more
    if not isinstance(ended.exc_value, OSError):
        threading.__excepthook__(ended)


def _run(arguments: list[str]) -> int:
    if _is_fairchems(arguments):
        return _run_fairchem(arguments[0], arguments[1:])
    try:
        args, args.overrides = build_parser().parse_known_args(arguments)
    except SystemExit:  # help has been asked for, or an argument is wrong
        _flush()
        raise
    if args.overrides and args.func is not run_fit_scale_factors:
        raise InputError(f"unknown arguments: {' '.join(args.overrides)}; see ocp-dc {args.command} --help")
    return args.func(args)


def _report(error: BaseException) -> int:
    """Says in a line what ended a command; the exit status."""
    # what failed because of an interrupt, such as a loader whose workers were ended too, is no cause
    error = next((each for each in _contexts(error) if isinstance(each, KeyboardInterrupt)), error)
    if isinstance(error, BrokenPipeError):
        _discard_output()
        return NOBODY_READS
    what, status = f"error: {error}", 2
    if isinstance(error, EndedBySignal):
        what, status = f"{error}", error.status
    elif isinstance(error, KeyboardInterrupt):
        what, status = "interrupted", 130
    elif isinstance(error, TrainingDivergedError):
        what, status = f"training diverged: {error}", 1
    elif _is_of_descriptors(error):
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        what = f"error: too many files are open at once, `ulimit -n` is {allowed:,}: raise it, or use fewer processes"
    elif isinstance(error, OSError):
        named = f"{error.filename}: {error.strerror}" if error.filename else f"{error}"
        what = f"error: {named}; check the free space and the permissions"
    elif not isinstance(error, InputError):
        what = f"error: {type(error).__name__}: {error}; `ocp-dc {DEBUG} COMMAND …` shows where. Please report it"
        status = 1
    print(f"ocp-dc: {printable(what)}", file=sys.stderr)
    if isinstance(error, OSError):
        _discard_output()
    return status


def _contexts(error: BaseException | None) -> Iterator[BaseException]:
    """An error, that in the handling of which it was raised, and so on."""
    while error is not None:
        yield error
        error = error.__context__


def _is_of_descriptors(error: BaseException) -> bool:
    """Whether it was raised since no more files could be opened."""
    return any(
        (isinstance(each, OSError) and each.errno in (errno.EMFILE, errno.ENFILE))
        or any(words in str(each) for words in NO_DESCRIPTORS)
        for each in _contexts(error)
    )


def _flush() -> None:
    """Here errors of standard output can be told; when Python ends, it only complains of them."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_output() -> None:
    """What standard output could not take would be tried again when Python ends."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_fairchems(arguments: list[str]) -> bool:
    """Whether fairchem's flags follow; its ``predict`` is known by the config, which ours does not take."""
    if arguments[:1] == ["predict"]:
        return any(word.split("=")[0] == "--config-yml" for word in arguments)
    return bool(arguments) and arguments[0] in FAIRCHEM_MODES


def _run_fairchem(mode: str, arguments: list[str]) -> int:
    if {"-h", "--help"}.intersection(arguments):
        flags_parser(mode).print_help()
        return 0
    from ocp_dc.configuration.arguments import checked_arguments

    args, overrides = checked_arguments(mode, arguments)
    from ocp_dc.launch import run_checked

    return run_checked(args, overrides)


if __name__ == "__main__":
    sys.exit(main())
