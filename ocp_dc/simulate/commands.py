"""The ``ocp-dc simulate`` and ``ocp-dc md-report`` commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from ocp_dc.simulate.settings import ENSEMBLES, THERMOSTATS, Settings


def add_simulation_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``simulate`` and ``md-report``; see :func:`~ocp_dc.info.add_info_command`."""
    simulate = subparsers.add_parser("simulate", help="molecular dynamics with a trained model, replicas in one batch")
    simulate.add_argument("checkpoint", type=Path, help="checkpoint.pt of a run (it is unpickled: trust it)")
    simulate.add_argument(
        "--start", required=True, help="structures, of which random ones are started from: LMDB, npz, or what ASE reads"
    )
    simulate.add_argument("--out", required=True, type=Path, help="folder of the trajectories; it goes on where it was")
    simulate.add_argument("--ensemble", choices=ENSEMBLES, default="nvt", help="default nvt")
    simulate.add_argument("--temperature", metavar="K", type=float, required=True, help="at the start, and kept by nvt")
    simulate.add_argument("--length", metavar="PS", type=float, required=True, help="of each trajectory")
    simulate.add_argument("--timestep", metavar="FS", type=float, default=0.5, help="default 0.5")
    simulate.add_argument("--replicas", metavar="N", type=int, default=4, help="trajectories (default 4)")
    simulate.add_argument("--every", metavar="FS", type=float, default=10.0, help="between frames (default 10)")
    simulate.add_argument("--thermostat", choices=THERMOSTATS, default=THERMOSTATS[0], help="default nose-hoover")
    simulate.add_argument(
        "--relaxation-time",
        metavar="FS",
        type=float,
        default=100.0,
        help="of nose-hoover; 1 / friction of langevin (default 100)",
    )
    simulate.add_argument("--seed", type=int, default=0, help="of frames, momenta and noise (default 0)")
    simulate.add_argument("--any-element", action="store_true", help="also elements that it was not trained on")
    simulate.add_argument("--energy-unit", metavar="UNIT", help="of the checkpoint, where it does not state it")
    simulate.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    simulate.set_defaults(func=run_simulate)

    report = subparsers.add_parser("md-report", help="stability, h(r), drift and speed of simulations")
    report.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="the --out of `ocp-dc simulate`")
    report.add_argument(
        "--reference", required=True, help="structures that bond lengths and h(r) are compared with; sample: ethanol"
    )
    report.add_argument("--test", help="labelled structures for the force error (default: the reference)")
    report.add_argument("--names", nargs="+", help="of the runs, in the report (default: their folders')")
    report.add_argument("--out", metavar="DIR", type=Path, help="folder for report.json, report.md and figures")
    report.add_argument(
        "--warm-up", metavar="PS", type=float, help="left out of drift and temperature (default: a tenth of the run)"
    )
    report.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    report.set_defaults(func=run_report)


def run_simulate(args: argparse.Namespace) -> int:
    settings = Settings(
        ensemble=args.ensemble,
        temperature_K=args.temperature,
        timestep_fs=args.timestep,
        length_ps=args.length,
        replicas=args.replicas,
        every_fs=args.every,
        thermostat=args.thermostat,
        relaxation_fs=args.relaxation_time,
        seed=args.seed,
    )

    from ocp_dc.calculator import load
    from ocp_dc.datasets.structure_files import read_structures
    from ocp_dc.simulate.running import origin_of, simulate

    structures = read_structures(args.start)
    model = load(args.checkpoint, "cpu" if args.cpu else None, args.energy_unit, args.any_element)
    origin = {**origin_of(args.checkpoint, args.start), "energy_unit": args.energy_unit}
    ends = simulate(model, structures, settings, args.out, origin)
    for number, ended in enumerate(ends):
        if ended:
            print(f"replica {number} ended at {ended['time_fs'] / 1000:g} ps: {ended['reason']}")
    print(f"{len(ends) - sum(map(bool, ends))} of {len(ends)} replicas reached {settings.length_ps:g} ps: {args.out}")
    return 0


def run_report(args: argparse.Namespace) -> int:
    from ocp_dc.simulate.report import report

    print(report(args.runs, args.reference, args.test, args.names, args.out, args.warm_up, args.cpu))
    return 0
