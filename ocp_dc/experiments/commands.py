"""The ``ocp-dc reproduce`` and ``ocp-dc report`` commands."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ocp_dc.datasets.samples import SAMPLE_WORD, oxide_sample_path, sample_path
from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import (
    MODELS,
    MOLECULES,
    OC22,
    TABLES,
    VARIANTS,
    experiments_of,
    recommended_variants,
)
from ocp_dc.experiments.plan import Run, format_plan
from ocp_dc.experiments.records import DONE, is_done
from ocp_dc.experiments.report import add_report_arguments, print_table, run_report
from ocp_dc.experiments.running import Outcome, default_jobs, format_outcome, run_all
from ocp_dc.experiments.scales import SCALE_NAMES, SCALES
from ocp_dc.experiments.slurm import PATIENCE, SETTING_NAMES, SlurmSettings, read_slurm_settings, submit
from ocp_dc.experiments.sources import FrameSource, MoleculeSource, OC22Source, Source


def add_experiment_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``reproduce`` and ``report``, as :func:`~ocp_dc.datasets.md17_commands.add_md17_commands` does its own."""
    reproduce = subparsers.add_parser("reproduce", help="the runs of a table or figure of the paper, and the table")
    reproduce.add_argument("target", choices=TABLES, help="the paper's tables and figures on MD17 and OC22")
    reproduce.add_argument("--model", metavar="M", nargs="+", help=f"only these, of {', '.join(MODELS)}")
    reproduce.add_argument("--molecule", metavar="X", nargs="+", help=f"only these, of {', '.join(MOLECULES)}")
    reproduce.add_argument("--variant", metavar="V", nargs="+", help=f"only these, of {', '.join(VARIANTS)}")
    reproduce.add_argument("--seeds", metavar="N", type=int, default=1, help="seeds 0 to N - 1 (default 1)")
    reproduce.add_argument(
        "--scale",
        choices=SCALE_NAMES,
        default="paper",
        help="paper (default): its protocol to the letter; small: fewer conformations; smoke: minutes, small networks",
    )
    reproduce.add_argument("--with-recommended", action="store_true", help="add this package's recommended protocol")
    reproduce.add_argument(
        "--as-published",
        action="store_true",
        help="Table 2 without periodic images, as the paper's runs were (default: with them)",
    )
    reproduce.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        help=f"MD17: a file of one molecule, the word {SAMPLE_WORD}, or a folder of md17_<molecule>.npz, where what is "
        f"missing is downloaded (default OUT/downloads). OC22: the folder of its S2EF-total LMDBs, a file of labelled "
        f"structures that ASE reads, or the word {SAMPLE_WORD} (the default at scales other than paper)",
    )
    reproduce.add_argument("--out", metavar="DIR", type=Path, help="where everything is kept (default runs/<scale>)")
    reproduce.add_argument(
        "--split-dir", metavar="DIR", type=Path, help="take the splits from DIR/<molecule>/{train,valid,test}.*"
    )
    reproduce.add_argument("--split-seed", metavar="S", type=int, help="of the random splits (default 0)")
    reproduce.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    reproduce.add_argument(
        "--jobs", metavar="N", type=int, help="runs at a time (default: one per GPU; without any, 2 on the CPU)"
    )
    reproduce.add_argument("--only-index", metavar="I", type=int, help="only the plan's run number I, from 0")
    _add_slurm(reproduce)
    reproduce.set_defaults(func=run_reproduce)

    report = subparsers.add_parser("report", help="tables and figures of finished runs, beside the paper's")
    add_report_arguments(report)
    report.set_defaults(func=run_report)


def _add_slurm(parser: argparse.ArgumentParser) -> None:
    slurm = parser.add_argument_group("SLURM")
    slurm.add_argument("--submit", action="store_true", help="send each run as a job")
    slurm.add_argument("--slurm-config", metavar="FILE", type=Path, help="YAML file with a section slurm")
    for name, kind, what in (
        ("partition", str, "partition"),
        ("account", str, "account"),
        ("qos", str, "quality of service"),
        ("time", float, "hours; longer runs are requeued and go on (default 24)"),
        ("mem", float, "gigabytes of memory (default 16)"),
        ("gpus", int, "GPUs of a job (default 1)"),
        ("cpus", int, "CPU cores of a job (default 4)"),
    ):
        slurm.add_argument(f"--slurm-{name}", metavar=name.upper(), type=kind, help=what)


def run_reproduce(args: argparse.Namespace) -> int:
    """0: every run has a result (diverging is one); 1: some failed, were killed or are another process's."""
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: at least one job is needed")
    settings = _slurm_settings(args)
    runs = _plan(args)
    out = runs[0].out
    print(format_plan(runs, out), flush=True)
    if args.dry_run:
        return 0
    chosen = runs if args.only_index is None else [runs[args.only_index]]
    with _sigterm_as_exit():
        ready, without_data = _prepare(chosen)
        if settings is not None:
            _submit(ready, settings, out)
            return _summarize(without_data) if without_data else 0
        patience = math.inf if args.only_index is None else PATIENCE
        outcomes = run_all([run.folder for run in ready], args.jobs or default_jobs(), patience)
    if args.only_index is None:
        print_table(out, args.target)
    return _summarize([*outcomes, *without_data])


def _plan(args: argparse.Namespace) -> list[Run]:
    out = (args.out or Path("runs") / args.scale).resolve()
    if "=" in str(out):
        raise InputError(f"--out {out}: fairchem cannot read a path with = in it; choose another")
    source, molecule = _source(args, out)
    asked = args.molecule or ([molecule] if molecule else None)
    experiments = experiments_of(
        args.target, args.model, asked, args.variant, args.seeds, args.with_recommended, args.as_published
    )
    if molecule:
        print(f"{source.path} holds {molecule}: only its runs are planned")
        experiments = [experiment for experiment in experiments if experiment.molecule == molecule]
    if not experiments:
        raise InputError(f"--molecule {' '.join(asked)}: {source.path} holds {molecule}; give other --data")
    if args.only_index is not None and not 0 <= args.only_index < len(experiments):
        raise InputError(f"--only-index {args.only_index}: the plan has runs 0 to {len(experiments) - 1}")
    collection = TABLES[args.target].collection
    models = dict.fromkeys(experiment.model for experiment in experiments)
    without = [name for name in models if not recommended_variants(name, collection)]
    if args.with_recommended and without:
        print(f"configs/{collection.name} has no recommended protocol for {', '.join(without)}")
    return [Run(experiment, SCALES[args.scale, collection], source, out) for experiment in experiments]


def _source(args: argparse.Namespace, out: Path) -> tuple[Source, str | None]:
    """The conformations, and the one molecule they are of if it is one."""
    table = TABLES[args.target]
    if args.split_dir and args.split_seed is not None:
        raise InputError("--split-dir gives the splits; leave out --split-seed")
    if args.split_dir and len(table.sizes or ()) > 1:
        raise InputError(f"--split-dir gives one training set per molecule, {args.target} needs several; leave it out")
    kind, path = _oc22_files(args) if table.collection == OC22 else _md17_files(args, out)
    source = kind(path.resolve(), args.split_seed or 0, args.split_dir)
    return source, source.only_molecule() if args.data else None


def _md17_files(args: argparse.Namespace, out: Path) -> tuple[type[Source], Path]:
    path = args.data or out / "downloads"
    return MoleculeSource, sample_path() if str(path) == SAMPLE_WORD else path


def _oc22_files(args: argparse.Namespace) -> tuple[type[Source], Path]:
    path = args.data
    if path is None and args.scale == "paper":
        if not args.dry_run:
            raise InputError(
                f"--data is missing: for {args.target} give the folder of OC22's S2EF-total LMDBs, which holds train "
                "and val_ood, or a file of labelled structures"
            )
        path = Path("OC22")
    elif path is None:
        print(f"no --data given: the embedded {SAMPLE_WORD} of oxide slabs takes the place of OC22")
        path = Path(SAMPLE_WORD)
    if str(path) == SAMPLE_WORD:
        path = oxide_sample_path()
    return (FrameSource if path.is_file() else OC22Source), path


def _slurm_settings(args: argparse.Namespace) -> SlurmSettings | None:
    flags = {name: getattr(args, f"slurm_{name}") for name in SETTING_NAMES}
    if args.submit:
        return read_slurm_settings(args.slurm_config, **flags)
    given = [name for name, value in {**flags, "config": args.slurm_config}.items() if value is not None]
    if given:
        raise InputError(f"--slurm-{given[0]} is for jobs; give --submit too")
    return None


def _prepare(runs: Sequence[Run]) -> tuple[list[Run], list[Outcome]]:
    """Converts what is missing and describes each run in its folder; the others failed for want of data.

    Raises:
        InputError: there is no data for any, or a folder holds something else.
    """
    ready, failed, errors = [], [], {}
    manifests = {}
    for run in runs:
        if run.data not in manifests and run.data not in errors:
            try:
                manifests[run.data] = run.source.prepare(run.experiment.molecule, run.sizes, run.data)
            except InputError as error:
                errors[run.data] = error
        if run.data in errors:
            failed.append(Outcome(run.folder, "failed", str(errors[run.data])))
        else:
            run.write_description(manifests[run.data])
            ready.append(run)
    if not ready:
        raise next(iter(errors.values()))
    return ready, failed


def _submit(runs: Sequence[Run], settings: SlurmSettings, out: Path) -> None:
    folders = [run.folder for run in runs if not is_done(run.folder)]
    for folder, job in zip(folders, submit(folders, settings, out / "slurm"), strict=True):
        print(f"job {job}: {folder.name}")
    print(f"{len(folders)} jobs submitted, their output is in {out / 'slurm'}; later: ocp-dc report {out}")


def _summarize(outcomes: Sequence[Outcome]) -> int:
    count = Counter(outcome.status for outcome in outcomes)
    for outcome in outcomes:
        if outcome.status != "finished":
            print(format_outcome(outcome))
    print(", ".join(f"{number} {status}" for status, number in count.items()))
    unresolved = [outcome for outcome in outcomes if outcome.status not in DONE]
    if unresolved:
        print("start the same command again to go on with what has not finished or diverged")
    return 1 if unresolved else 0


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """So that workers are stopped when this process is asked to stop."""
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
