"""The ``ocp-dc reproduce`` and ``ocp-dc report`` commands."""

from __future__ import annotations

import argparse
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ocp_dc.errors import InputError
from ocp_dc.runs.devices import device_name
from ocp_dc.runs.plan import PlannedRun, format_plan
from ocp_dc.runs.records import DONE, is_done, read_record
from ocp_dc.runs.report import FORMATS, print_table, run_report
from ocp_dc.runs.running import PATIENCE, Outcome, default_jobs, format_outcome, run_all
from ocp_dc.runs.slurm import FLAGS, SlurmSettings, read_slurm_settings, submit
from ocp_dc.runs.study import Study, studies, study_of

MAX_SEEDS = 1_000
NOT_FOR_JOBS = ("dry_run", "jobs", "only_index", "submit")


def add_run_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``reproduce`` and ``report``."""
    known = studies()
    targets = [target for study in known for target in study.targets]
    reproduce = subparsers.add_parser("reproduce", help="the runs of a table or figure of the paper, and the table")
    reproduce.add_argument(
        "targets", choices=targets, nargs="+", metavar="TARGET", help=f"tables and figures: {', '.join(targets)}"
    )
    seeds = ", ".join(f"{study.title}: {study.seeds}" for study in known)
    reproduce.add_argument("--seeds", metavar="N", type=int, help=f"seeds 0 to N - 1 (default, {seeds})")
    reproduce.add_argument(
        "--scale",
        choices=list(dict.fromkeys(scale for study in known for scale in study.scales)),
        help="paper: its protocol to the letter, the default of the tables; others: less of it, smoke in minutes; "
        + "; ".join(f"{study.title}: {', '.join(study.scales)}" for study in known),
    )
    reproduce.add_argument(
        "--data", metavar="PATH", type=Path, help=" ".join(f"{study.title}: {study.data_help}." for study in known)
    )
    reproduce.add_argument("--out", metavar="DIR", type=Path, help="where everything is kept (default runs/<scale>)")
    reproduce.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    reproduce.add_argument(
        "--jobs", metavar="N", type=int, help="runs at a time (default: one per GPU; without any, 2 on the CPU)"
    )
    reproduce.add_argument("--only-index", metavar="I", type=int, help="only the plan's run number I, from 0")
    own = {}
    for study in known:
        shared = ", ".join(f"--{option}" for option in study.shared_options)
        group = reproduce.add_argument_group(study.title, f"also {shared}, as of others" if shared else None)
        study.add_arguments(group)
        own[study] = group._group_actions
    slurm = reproduce.add_argument_group("SLURM")
    slurm.add_argument("--submit", action="store_true", help="send each run as a job")
    slurm.add_argument("--slurm-config", metavar="FILE", type=Path, help="YAML file with a section slurm")
    for name, flag in FLAGS.items():
        slurm.add_argument(f"--slurm-{name}", metavar=name.upper(), type=flag["kind"], help=flag["help"])
    reproduce.set_defaults(func=run_reproduce, own_options=own, parser=reproduce)

    report = subparsers.add_parser("report", help="tables and figures of finished runs, beside the paper's")
    report.add_argument("out", metavar="OUT", type=Path, help="the --out of `ocp-dc reproduce`")
    report.add_argument("--target", choices=[*targets, "all"], default="all", help="default: all that has runs")
    report.add_argument(
        "--format",
        choices=FORMATS,
        default="md",
        help="default md; png writes only the figures, copies a folder of the runs without checkpoints, to publish",
    )
    report.add_argument(
        "--to",
        metavar="PATH",
        type=Path,
        help="file (default OUT/report.FORMAT), and for md a folder figures beside it; a folder for png and copies",
    )
    report.add_argument("--overwrite", action="store_true", help="replace existing files at --to")
    report.set_defaults(func=run_report, known_targets=targets)


def run_reproduce(args: argparse.Namespace) -> int:
    """0: every run has a result (diverging is one); 1: some failed, were killed or are another process's."""
    study = _study_of_all(args.targets)
    command = _command_to_submit(args)
    args.scale = args.scale or study.scales[0]
    args.seeds = study.seeds if args.seeds is None else args.seeds
    settings = _check(args, study)
    out = (args.out or Path("runs") / args.scale).resolve()
    runs = _plan(study, args, out)
    if args.only_index is not None and not 0 <= args.only_index < len(runs):
        raise InputError(f"--only-index {args.only_index}: the plan has runs 0 to {len(runs) - 1}")
    device = None if settings and settings.gpus else device_name()
    notes = [f"as SLURM jobs: {command}"] if args.dry_run and not args.submit else []
    print(format_plan(runs, out, device, study.estimate(args), notes), flush=True)
    if args.dry_run:
        return 0
    ready, failed = study.prepare(runs if args.only_index is None else [runs[args.only_index]])
    if settings is not None:
        _submit(ready, settings, out)
        return _summarize(failed) if failed else 0
    patience = math.inf if args.only_index is None else PATIENCE
    outcomes = run_all([run.folder for run in ready], args.jobs or default_jobs(), patience)
    if args.only_index is None:
        for target in dict.fromkeys(args.targets):
            print_table(out, target)
    return _summarize([*outcomes, *failed])


def _study_of_all(targets: Sequence[str]) -> Study:
    study, *others = dict.fromkeys(study_of(target) for target in targets)
    if others:
        raise InputError(f"{' '.join(targets)}: {study.title} and {others[0].title} are started apart")
    return study


def _plan(study: Study, args: argparse.Namespace, out: Path) -> list[PlannedRun]:
    """The runs of all targets, those that they share once."""
    of_targets = (study.plan(argparse.Namespace(**vars(args), target=target), out) for target in args.targets)
    return list({run.folder: run for runs in of_targets for run in runs}.values())


def _command_to_submit(args: argparse.Namespace) -> str:
    """What sends the same runs as jobs."""
    words = ["ocp-dc", "reproduce", *args.targets]
    for action in args.parser._actions:
        value = getattr(args, action.dest, None)
        if action.option_strings and action.dest not in NOT_FOR_JOBS and value not in (None, False, action.default):
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [action.option_strings[0], *map(str, values)]
    return shlex.join([*words, "--submit"])


def _check(args: argparse.Namespace, study: Study) -> SlurmSettings | None:
    """What jobs ask for, None without ``--submit``; refuses options that do not go together."""
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: at least one job is needed")
    if args.seeds < 1:
        raise InputError(f"--seeds {args.seeds}: at least one seed is needed")
    if args.seeds > MAX_SEEDS:
        raise InputError(f"--seeds {args.seeds}: at most {MAX_SEEDS:,} seeds are planned at once")
    if args.scale not in study.scales:
        raise InputError(f"--scale {args.scale}: {args.targets[0]} has {', '.join(study.scales)}")
    for other, actions in args.own_options.items():
        for action in actions if other is not study else ():
            if getattr(args, action.dest) != action.default and action.dest not in study.shared_options:
                raise InputError(f"{action.option_strings[0]} is an option of {other.title}, not of {args.targets[0]}")
    flags = {name: getattr(args, f"slurm_{name}") for name in FLAGS}
    if args.submit:
        return read_slurm_settings(args.slurm_config, **flags)
    given = [name for name, value in {**flags, "config": args.slurm_config}.items() if value is not None]
    if given:
        raise InputError(f"--slurm-{given[0]} is for jobs; give --submit too")
    return None


def _submit(runs: Sequence[PlannedRun], settings: SlurmSettings, out: Path) -> None:
    folders = [run.folder for run in runs if not is_done(read_record(run.folder / "result.json"))]
    for folder, job in zip(folders, submit(folders, settings, out / "slurm"), strict=True):
        print(f"job {job}: {folder.name}")
    print(f"{len(folders)} jobs submitted, their output is in {out / 'slurm'}; later: ocp-dc report {out}")


def _summarize(outcomes: Sequence[Outcome]) -> int:
    counts = Counter(outcome.status for outcome in outcomes)
    for outcome in outcomes:
        if outcome.status != "finished":
            print(format_outcome(outcome))
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    unresolved = [outcome for outcome in outcomes if outcome.status not in DONE]
    if unresolved:
        print("start the same command again to go on with what has not finished or diverged")
    return 1 if unresolved else 0
