"""The ``ocp-dc md17`` commands: convert, download and inspect."""

from __future__ import annotations

import argparse
from pathlib import Path

from ocp_dc.datasets.conversion_commands import add_split_arguments, print_conversion, print_inspection, split_choices
from ocp_dc.datasets.conversion_settings import SPLIT_NAMES
from ocp_dc.datasets.download import ALIASES, FILE_OF_MOLECULE, download
from ocp_dc.datasets.samples import SAMPLE_WORD, path_or_sample, sample_path
from ocp_dc.units import ENERGY_UNITS_IN_EV, MD17_ENERGY_UNIT


def add_md17_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``md17`` with ``convert``, ``download`` and ``inspect``; see :func:`~ocp_dc.info.add_info_command`."""
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

    inspector = commands.add_parser("inspect", help="print counts, composition, units, label statistics and C")
    inspector.add_argument("path", metavar="PATH", help=f"npz, xyz, converted folder, .lmdb, or the word {SAMPLE_WORD}")
    _add_units(inspector)
    inspector.set_defaults(func=_inspect)


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


def _inspect(args: argparse.Namespace) -> int:
    from ocp_dc.datasets.conformations import resolve_energy_unit
    from ocp_dc.datasets.describe import describe_trajectory
    from ocp_dc.datasets.molecule_files import open_trajectory

    path = path_or_sample(args.path, sample_path())
    energy_unit, units_from = resolve_energy_unit(path, "", args.units)
    return print_inspection(
        path, lambda file: describe_trajectory(open_trajectory(file, args.units)), energy_unit, units_from
    )
