"""The ``ocp-dc oc22`` commands: convert, subset and inspect."""

from __future__ import annotations

import argparse
from pathlib import Path

from ocp_dc.datasets.conversion_commands import add_split_arguments, print_conversion, print_inspection, split_choices
from ocp_dc.datasets.conversion_settings import DEFAULT_MAX_NEIGHBORS, DEFAULT_SHARD_SIZE, SPLIT_NAMES, SPLITS_OF_SUBSET
from ocp_dc.datasets.samples import SAMPLE_WORD, oxide_sample_path, path_or_sample
from ocp_dc.errors import InputError


def add_oc22_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``oc22`` with ``convert``, ``subset`` and ``inspect``; see :func:`~ocp_dc.info.add_info_command`."""
    oc22 = subparsers.add_parser("oc22", help="convert, draw and look at periodic structures")
    commands = oc22.add_subparsers(dest="oc22_command", metavar="COMMAND", required=True)

    converter = commands.add_parser("convert", help="convert labelled structures to LMDBs for training")
    converter.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help=f"ASE .traj, extended .xyz, ASE .db, in eV and Angstrom, or the word {SAMPLE_WORD}",
    )
    add_split_arguments(converter, SPLIT_NAMES, "structures")
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
    add_split_arguments(subset, SPLITS_OF_SUBSET, "structures")
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
    from ocp_dc.datasets.structure_conversion import convert_structures

    manifests = convert_structures(
        [path_or_sample(file, oxide_sample_path()) for file in args.files],
        args.out,
        **split_choices(args, SPLIT_NAMES),
        **_writing_choices(args),
        split_by=args.split_by,
        overwrite=args.overwrite,
        show_progress=True,
    )
    return print_conversion(args.out, manifests)


def _subset(args: argparse.Namespace) -> int:
    import torch

    from ocp_dc.datasets.oc22_subset import draw_subset

    manifests = draw_subset(
        args.source,
        args.out,
        **split_choices(args, SPLITS_OF_SUBSET),
        **_writing_choices(args),
        val_split=args.split,
        jobs=torch.get_num_threads() if args.jobs is None else args.jobs,
        show_progress=True,
    )
    return print_conversion(args.out, manifests)


def _writing_choices(args: argparse.Namespace) -> dict:
    if args.max_neighbors is not None and args.cutoff is None:
        raise InputError("--max-neighbors is for stored edges; give --cutoff too")
    return {
        "cutoff": args.cutoff,
        "max_neighbors": DEFAULT_MAX_NEIGHBORS if args.max_neighbors is None else args.max_neighbors,
        "shard_size": args.shard_size,
    }


def _inspect(args: argparse.Namespace) -> int:
    from ocp_dc.datasets.ase_files import open_frames
    from ocp_dc.datasets.describe import describe_frames
    from ocp_dc.datasets.structures import ENERGY_UNIT, UNITS_FROM

    path = path_or_sample(args.path, oxide_sample_path())
    return print_inspection(path, lambda file: describe_frames(open_frames(file)), ENERGY_UNIT, UNITS_FROM)
