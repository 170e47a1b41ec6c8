"""The ``ocp-dc oc22`` commands: convert, subset and inspect."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ocp_dc.datasets.ase_files import open_frames
from ocp_dc.datasets.describe import Column, describe_atoms, describe_labels, describe_manifest, lmdb_columns, table
from ocp_dc.datasets.manifest import StructuresManifest
from ocp_dc.datasets.md17_commands import SAMPLE_WORD
from ocp_dc.datasets.splits import SPLIT_NAMES
from ocp_dc.datasets.structure_conversion import (
    ENERGY_UNIT,
    SPLITS_OF_SUBSET,
    UNITS_FROM,
    convert_structures,
    draw_subset,
    oxide_sample_path,
)
from ocp_dc.datasets.structures import DEFAULT_MAX_NEIGHBORS, DEFAULT_SHARD_SIZE
from ocp_dc.errors import InputError
from ocp_dc.statistics import AtomAccumulator, LabelAccumulator


def add_oc22_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``oc22`` with ``convert``, ``subset`` and ``inspect``.

    Each sets ``func``, which takes the parsed arguments, returns the exit status and raises
    :class:`~ocp_dc.errors.InputError` for what the user can cure.
    """
    oc22 = subparsers.add_parser("oc22", help="convert, draw and look at periodic structures")
    commands = oc22.add_subparsers(dest="oc22_command", metavar="COMMAND", required=True)

    converter = commands.add_parser("convert", help="convert labelled structures to LMDBs for training")
    converter.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help=f"ASE .traj, extended .xyz, ASE .db, in eV and Angstrom, or the word {SAMPLE_WORD}",
    )
    converter.add_argument("out", metavar="OUT", type=Path, help="folder to make, with train, val and test in it")
    _add_sizes(converter, SPLIT_NAMES)
    converter.add_argument(
        "--split-by",
        metavar="KEY",
        help="'file', or a key of atoms.info: frames of one file, or alike in the key, are drawn for one split only",
    )
    _add_writing(converter)
    converter.add_argument("--overwrite", action="store_true", help="replace an earlier conversion at OUT")
    converter.set_defaults(func=_convert)

    subset = commands.add_parser("subset", help="draw a subset of OC22's S2EF-total, going on where a try ended")
    subset.add_argument("source", metavar="SRC", type=Path, help="folder with train and val_ood, folders of LMDBs")
    subset.add_argument("out", metavar="OUT", type=Path, help="folder to make, with train and val in it")
    _add_sizes(subset, SPLITS_OF_SUBSET)
    subset.add_argument(
        "--split", metavar="NAME", default="val_ood", help="folder of SRC that val is drawn from (default val_ood)"
    )
    _add_writing(subset)
    subset.add_argument(
        "--jobs", metavar="N", type=int, help="processes, a shard each (default: as many as PyTorch has threads)"
    )
    subset.set_defaults(func=_subset)

    inspector = commands.add_parser("inspect", help="print counts, elements, periodicity, label statistics and C")
    inspector.add_argument(
        "path", metavar="PATH", help=f"converted folder, folder of LMDBs, .lmdb, file to convert, or {SAMPLE_WORD}"
    )
    inspector.set_defaults(func=_inspect)


def _add_sizes(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    for name in names:
        parser.add_argument(f"--{name}", metavar="N", type=int, help=f"number of structures drawn for {name}")
    parser.add_argument("--seed", metavar="S", type=int, help="of the random draw (default 0)")
    files = ",".join("valid" if name == "val" else name for name in names)
    parser.add_argument(
        "--split-dir", metavar="DIR", type=Path, help=f"take the indices from DIR/{{{files}}}.{{npy,txt,json,pkl}}"
    )


def _add_writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cutoff", metavar="R", type=float, help="store the edges within R Angstrom (default: none)")
    parser.add_argument(
        "--max-neighbors",
        metavar="N",
        type=int,
        help=f"stored edges to an atom, the nearest ones (default {DEFAULT_MAX_NEIGHBORS})",
    )
    parser.add_argument(
        "--shard-size",
        metavar="N",
        type=int,
        default=DEFAULT_SHARD_SIZE,
        help=f"structures in an LMDB (default {DEFAULT_SHARD_SIZE:,})",
    )


def _convert(args: argparse.Namespace) -> int:
    manifests = convert_structures(
        [_source(file) for file in args.files],
        args.out,
        **_choices(args, SPLIT_NAMES),
        split_by=args.split_by,
        overwrite=args.overwrite,
        show_progress=True,
    )
    return _report(args.out, manifests)


def _subset(args: argparse.Namespace) -> int:
    manifests = draw_subset(
        args.source,
        args.out,
        **_choices(args, SPLITS_OF_SUBSET),
        val_split=args.split,
        jobs=torch.get_num_threads() if args.jobs is None else args.jobs,
        show_progress=True,
    )
    return _report(args.out, manifests)


def _choices(args: argparse.Namespace, names: tuple[str, ...]) -> dict:
    """The arguments that both converters take."""
    sizes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.split_dir is not None and (sizes or args.seed is not None):
        options = ", ".join(f"--{name}" for name in names)
        raise InputError(f"--split-dir gives the splits; leave out {options} and --seed")
    if args.max_neighbors is not None and args.cutoff is None:
        raise InputError("--max-neighbors is for stored edges; give --cutoff too")
    return {
        "sizes": sizes,
        "seed": args.seed or 0,
        "split_dir": args.split_dir,
        "cutoff": args.cutoff,
        "max_neighbors": DEFAULT_MAX_NEIGHBORS if args.max_neighbors is None else args.max_neighbors,
        "shard_size": args.shard_size,
    }


def _report(out: Path, manifests: dict[str, StructuresManifest]) -> int:
    print(table([describe_manifest(manifest) for manifest in manifests.values()]))
    print(f"written: {', '.join(str(out / name) for name in manifests)} (a config's dataset.<split>.src)")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    path = _source(args.path)
    if path.is_file() and path.suffix != ".lmdb":
        columns = [_describe_frames(path)]
    else:
        columns = lmdb_columns(path, ENERGY_UNIT, UNITS_FROM)
    print(table(columns))
    return 0


def _describe_frames(path: Path) -> Column:
    frames = open_frames(path)
    labels, atoms = LabelAccumulator(), AtomAccumulator()
    for row in tqdm(range(frames.count), desc=path.name, unit="frame"):
        structure = frames.structure(row, fid=row)
        labels.add(np.array([structure.energy]), structure.forces)
        atoms.add(structure.atomic_numbers, structure.fixed, structure.pbc)
    return {
        "file": path.name,
        "layout": frames.layout,
        "conformations": f"{frames.count:,}",
        **describe_atoms(atoms.statistics()),
        "theory": frames.theory,
        **describe_labels(labels.statistics(), ENERGY_UNIT, UNITS_FROM),
    }


def _source(word: str) -> Path:
    return oxide_sample_path() if word == SAMPLE_WORD else Path(word)
