"""The ``ocp-dc md17`` commands: convert, download and inspect."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from ocp_dc.datasets.conformations import MD17_ENERGY_UNIT, Trajectory, check_conformations, resolve_energy_unit
from ocp_dc.datasets.describe import Column, describe_labels, describe_manifest, describe_molecule, lmdb_columns, table
from ocp_dc.datasets.download import ALIASES, FILE_OF_MOLECULE, download
from ocp_dc.datasets.manifest import sha256_of
from ocp_dc.datasets.molecule_conversion import convert, open_trajectory, sample_path
from ocp_dc.datasets.splits import SPLIT_NAMES
from ocp_dc.errors import InputError
from ocp_dc.statistics import LabelAccumulator
from ocp_dc.units import ENERGY_UNITS_IN_EV

SAMPLE_WORD = "sample"
ASSUMED_NOTE = (
    f"note: the units are not stated there; {MD17_ENERGY_UNIT} and Angstrom are assumed (--units to say otherwise)"
)


def add_md17_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``md17`` with ``convert``, ``download`` and ``inspect``.

    Each sets ``func``, which takes the parsed arguments, returns the exit status and raises
    :class:`~ocp_dc.errors.InputError` for what the user can cure.
    """
    md17 = subparsers.add_parser("md17", help="get, convert and look at MD17 data")
    commands = md17.add_subparsers(dest="md17_command", metavar="COMMAND", required=True)

    converter = commands.add_parser("convert", help="convert an npz or extended XYZ file to LMDBs for training")
    converter.add_argument(
        "file", metavar="FILE", help=f"MD17, rMD17 or sGDML .npz, extended .xyz, or the word {SAMPLE_WORD}"
    )
    converter.add_argument("out", metavar="OUT", type=Path, help="folder to make, with train, val and test in it")
    for name in SPLIT_NAMES:
        converter.add_argument(f"--{name}", metavar="N", type=int, help=f"number of conformations drawn for {name}")
    converter.add_argument("--seed", metavar="S", type=int, help="of the random draw (default 0)")
    converter.add_argument(
        "--split-dir", metavar="DIR", type=Path, help="take the indices from DIR/{train,valid,test}.{npy,txt,json,pkl}"
    )
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
    sizes = {name: getattr(args, name) for name in SPLIT_NAMES if getattr(args, name) is not None}
    if args.split_dir is not None and (sizes or args.seed is not None):
        raise InputError("--split-dir gives the splits; leave out --train, --val, --test and --seed")
    manifests = convert(
        _source(args.file),
        args.out,
        sizes=sizes,
        seed=args.seed or 0,
        split_dir=args.split_dir,
        energy_unit=args.units,
        overwrite=args.overwrite,
        show_progress=True,
    )
    print(table([describe_manifest(manifest) for manifest in manifests.values()]))
    if any(manifest.units_from == "assumed" for manifest in manifests.values()):
        print(ASSUMED_NOTE)
    print(f"written: {', '.join(str(args.out / name) for name in manifests)} (a config's dataset.<split>.src)")
    return 0


def _download(args: argparse.Namespace) -> int:
    file = download(args.molecule, args.to, show_progress=True)
    print(f"{file}  {file.stat().st_size:,} bytes  sha256 {sha256_of(file)}")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    path = _source(args.path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_dir() or path.suffix == ".lmdb":
        columns = lmdb_columns(path, *resolve_energy_unit(path, "", args.units))
    else:
        columns = [_describe_trajectory(open_trajectory(path, args.units))]
    print(table(columns))
    if any(column["units from"] == "assumed" for column in columns):
        print(ASSUMED_NOTE)
    return 0


def _source(word: str) -> Path:
    return sample_path() if word == SAMPLE_WORD else Path(word)


def _describe_trajectory(trajectory: Trajectory) -> Column:
    labels = LabelAccumulator()
    for block in tqdm(trajectory.blocks(), desc=trajectory.molecule, unit="block"):
        check_conformations(trajectory.path, block)
        labels.add(block.energies, block.forces)
    return {
        "file": trajectory.path.name,
        "layout": trajectory.layout,
        "conformations": f"{trajectory.count:,}",
        **describe_molecule(trajectory.molecule, trajectory.formula, len(trajectory.atomic_numbers)),
        "theory": trajectory.theory,
        **describe_labels(labels.statistics(), trajectory.energy_unit, trajectory.units_from),
    }
