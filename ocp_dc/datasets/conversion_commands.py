"""What ``ocp-dc md17`` and ``ocp-dc oc22`` share: the arguments of a conversion, and what is printed of data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ocp_dc.errors import InputError
from ocp_dc.terminal import printable, table
from ocp_dc.units import MD17_ENERGY_UNIT

if TYPE_CHECKING:
    from ocp_dc.datasets.describe import Column
    from ocp_dc.datasets.manifest import Manifest

ASSUMED_NOTE = (
    f"note: the units are not stated there; {MD17_ENERGY_UNIT} and Angstrom are assumed (--units to say otherwise)"
)


def add_split_arguments(parser: argparse.ArgumentParser, names: Sequence[str], what: str) -> None:
    """Adds ``OUT``, a number of ``what`` for each split, ``--seed`` and ``--split-dir``."""
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    parser.add_argument("out", metavar="OUT", type=Path, help=f"folder to make, with {listed} in it")
    for name in names:
        parser.add_argument(f"--{name}", metavar="N", type=int, help=f"number of {what} drawn for {name}")
    parser.add_argument("--seed", metavar="S", type=int, help="of the random draw (default 0)")
    files = ",".join("valid" if name == "val" else name for name in names)
    parser.add_argument(
        "--split-dir", metavar="DIR", type=Path, help=f"take the indices from DIR/{{{files}}}.{{npy,txt,json,pkl}}"
    )


def split_choices(args: argparse.Namespace, names: Sequence[str]) -> dict:
    """The arguments of :func:`add_split_arguments` as those of a converter.

    Raises:
        InputError: splits are both given and to be drawn.
    """
    sizes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.split_dir is not None and (sizes or args.seed is not None):
        options = ", ".join(f"--{name}" for name in names)
        raise InputError(f"--split-dir gives the splits; leave out {options} and --seed")
    return {"sizes": sizes, "seed": args.seed or 0, "split_dir": args.split_dir}


def print_conversion(out: Path, manifests: Mapping[str, Manifest]) -> int:
    """Prints what has been written, and where; returns the exit status."""
    from ocp_dc.datasets.describe import describe_manifest

    print_columns([describe_manifest(manifest) for manifest in manifests.values()])
    print(f"written: {printable(', '.join(str(out / name) for name in manifests))} (a config's dataset.<split>.src)")
    return 0


def print_inspection(path: Path, describe_file: Callable[[Path], Column], energy_unit: str, units_from: str) -> int:
    """Prints what is in a file that ``describe_file`` reads, or in LMDBs, see
    :func:`~ocp_dc.datasets.describe.lmdb_columns`; returns the exit status.
    """
    from ocp_dc.datasets.describe import lmdb_columns

    is_file = path.is_file() and path.suffix != ".lmdb"
    print_columns([describe_file(path)] if is_file else lmdb_columns(path, energy_unit, units_from))
    return 0


def print_columns(columns: Sequence[Column]) -> None:
    """Prints a table, and a note where its units are only assumed."""
    print(table(columns))
    if any(column["units from"] == "assumed" for column in columns):
        print(ASSUMED_NOTE)
