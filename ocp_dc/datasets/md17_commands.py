"""The ``ocp-dc md17`` commands: convert, download, generate and inspect."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from ocp_dc.datasets.conversion_commands import add_split_arguments, print_conversion, print_inspection, split_choices
from ocp_dc.datasets.conversion_settings import SPLIT_NAMES
from ocp_dc.datasets.download import ALIASES, FILE_OF_MOLECULE, download
from ocp_dc.datasets.samples import SAMPLE_WORD, path_or_sample, sample_path
from ocp_dc.units import ENERGY_UNITS_IN_EV, MD17_ENERGY_UNIT


def add_md17_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``md17`` with its commands; see :func:`~ocp_dc.info.add_info_command`."""
    md17 = subparsers.add_parser("md17", help="get, convert and look at MD17 data")
    commands = md17.add_subparsers(dest="md17_command", metavar="COMMAND", required=True)

    converter = commands.add_parser("convert", help="convert an npz or extended XYZ file to LMDBs for training")
    converter.add_argument(
        "file", metavar="FILE", help=f"MD17, rMD17 or sGDML .npz, extended .xyz, or the word {SAMPLE_WORD}"
    )
    add_split_arguments(converter, SPLIT_NAMES, "conformations")
    converter.add_argument("--overwrite", action="store_true", help="replace an earlier conversion at OUT")
    _add_units(converter)
    converter.set_defaults(func=_convert)

    downloader = commands.add_parser(
        "download", help="fetch a published MD17 file, going on where an earlier try ended"
    )
    downloader.add_argument("molecule", metavar="MOLECULE", help=", ".join((*FILE_OF_MOLECULE, *ALIASES)))
    downloader.add_argument(
        "--to", metavar="DIR", type=Path, default=Path(), help="folder to put it in (default: here)"
    )
    downloader.set_defaults(func=_download)

    _add_generator(commands)

    inspector = commands.add_parser("inspect", help="print counts, composition, units, label statistics and C")
    inspector.add_argument("path", metavar="PATH", help=f"npz, xyz, converted folder, .lmdb, or the word {SAMPLE_WORD}")
    _add_units(inspector)
    inspector.set_defaults(func=_inspect)


def _add_generator(commands: argparse._SubParsersAction) -> None:
    generator = commands.add_parser(
        "generate",
        help="make labelled conformations of a molecule of one's own",
        description="Langevin dynamics with GFN2-xTB, written with MD17's keys and units. Repeat a killed command to "
        "continue it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = generator.add_argument
    add(
        "molecule",
        metavar="MOLECULE",
        help="an .xyz file (any that ASE reads), a name of ase.build.molecule, or a SMILES",
    )
    add("out", metavar="OUT.npz", type=Path, help="the file to write")
    add("--smiles", action="store_true", help="MOLECULE is a SMILES string (needs RDKit)")
    add("--labels", choices=("gfn2", "dft"), default="gfn2", help="theory of energies and forces")
    add("--frames", "--conformations", metavar="N", type=int, default=1000, help="conformations")
    add("--temperature", metavar="K", type=float, default=500.0, help="of the dynamics, K")
    add("--timestep", metavar="FS", type=float, default=0.5, help="fs")
    add("--interval", metavar="FS", type=float, default=25.0, help="from one conformation to the next, fs")
    add("--equilibrate", metavar="FS", type=float, default=1000.0, help="before a trajectory's first interval, fs")
    add("--friction", metavar="F", type=float, default=0.01, help="of the Langevin dynamics, 1/fs")
    add("--trajectories", metavar="N", type=int, default=8, help="independent ones; results depend on it")
    add("--seed", metavar="S", type=int, default=0, help="of the dynamics, and of a SMILES string's conformer")
    add("--charge", metavar="Q", type=int, default=0, help="of the molecule")
    add("--spin", metavar="N", type=int, default=0, help="unpaired electrons")
    add("--xc", default="PBE", help="functional of --labels dft, as PySCF names it")
    add("--basis", default="def2-SVP", help="basis set of --labels dft, as PySCF names it")
    add("--grid-level", metavar="N", type=int, default=2, help="PySCF's integration grid, 0 (coarse) to 9")
    add("--jobs", metavar="N", type=int, help="processes; results do not depend on it (default: a core each)")
    add("--overwrite", action="store_true", help="replace an existing OUT.npz")
    add(
        "--all-electron-shift",
        action=argparse.BooleanOptionalAction,
        help="bring GFN2-xTB's energies, of valence electrons, to an all-electron magnitude by a constant that the "
        "file states (default: with --labels gfn2)",
    )
    generator.set_defaults(func=_generate)


def _add_units(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--units",
        metavar="UNIT",
        help=f"energy unit where the file states none, of {', '.join(ENERGY_UNITS_IN_EV)} (default {MD17_ENERGY_UNIT})",
    )


def _convert(args: argparse.Namespace) -> int:
    from ocp_dc.datasets.molecule_conversion import convert

    manifests = convert(
        path_or_sample(args.file, sample_path()),
        args.out,
        **split_choices(args, SPLIT_NAMES),
        energy_unit=args.units,
        overwrite=args.overwrite,
        show_progress=True,
    )
    return print_conversion(args.out, manifests)


def _download(args: argparse.Namespace) -> int:
    from ocp_dc.datasets.manifest import sha256_of

    file = download(args.molecule, args.to, show_progress=True)
    print(f"{file}  {file.stat().st_size:,} bytes  sha256 {sha256_of(file)}")
    return 0


def _generate(args: argparse.Namespace) -> int:
    from ocp_dc.datasets.generation.generate import generate
    from ocp_dc.datasets.generation.labels import DftLabels, Gfn2Labels
    from ocp_dc.datasets.generation.molecules import molecule_from_smiles, read_molecule
    from ocp_dc.datasets.generation.processes import cores, limit_threads
    from ocp_dc.datasets.generation.trajectories import Sampling

    jobs = args.jobs if args.jobs is not None else min(cores(), args.trajectories)
    # molecules are too small for two threads: they slow GFN2-xTB down, and change its last digit
    limit_threads(1 if args.labels == "gfn2" else cores() // max(jobs, 1))
    electrons = {"charge": args.charge, "spin": args.spin}
    dft = {"xc": args.xc, "basis": args.basis, "grid_level": args.grid_level}
    shift = args.all_electron_shift
    generated = generate(
        molecule_from_smiles(args.molecule, args.seed) if args.smiles else read_molecule(args.molecule),
        args.molecule if args.smiles else Path(args.molecule).stem,
        args.out,
        Sampling(**{field.name: getattr(args, field.name) for field in fields(Sampling)}),
        Gfn2Labels(**electrons) if args.labels == "gfn2" else DftLabels(**electrons, **dft),
        shift_energies=args.labels == "gfn2" if shift is None else shift,
        jobs=jobs,
        overwrite=args.overwrite,
        show_progress=True,
    )
    print(f"{args.out}  {generated}")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from ocp_dc.datasets.conformations import resolve_energy_unit
    from ocp_dc.datasets.describe import describe_trajectory
    from ocp_dc.datasets.molecule_files import open_trajectory

    path = path_or_sample(args.path, sample_path())
    energy_unit, units_from = resolve_energy_unit(path, "", args.units)
    return print_inspection(
        path, lambda file: describe_trajectory(open_trajectory(file, args.units)), energy_unit, units_from
    )
