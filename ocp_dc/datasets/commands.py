"""The ``ocp-dc md17`` commands: convert, download and inspect."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch_geometric.data import Data
from tqdm import tqdm

from ocp_dc.datasets.download import ALIASES, FILE_OF_MOLECULE, download
from ocp_dc.datasets.lmdb import read_graphs
from ocp_dc.datasets.manifest import (
    ENERGY_UNITS_IN_EV,
    LENGTH_UNIT,
    LabelAccumulator,
    LabelStatistics,
    Manifest,
    read_manifest,
)
from ocp_dc.datasets.md17 import convert, open_trajectory, sample_path, sha256_of
from ocp_dc.datasets.splits import SPLIT_NAMES
from ocp_dc.datasets.trajectory import (
    MD17_ENERGY_UNIT,
    Trajectory,
    check_conformations,
    hill_formula,
    resolve_energy_unit,
)
from ocp_dc.errors import InputError

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
    print(_table([_describe_manifest(manifest) for manifest in manifests.values()]))
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
        columns = _lmdb_columns(path, args.units)
    else:
        columns = [_describe_trajectory(open_trajectory(path, args.units))]
    print(_table(columns))
    if any(column["units from"] == "assumed" for column in columns):
        print(ASSUMED_NOTE)
    return 0


def _source(word: str) -> Path:
    return sample_path() if word == SAMPLE_WORD else Path(word)


Column = dict[str, str]


def _lmdb_columns(path: Path, energy_unit: str | None) -> list[Column]:
    splits = [path / name for name in SPLIT_NAMES if (path / name).is_dir()] or [path]
    manifests = [read_manifest(split) for split in splits]
    if all(manifests):
        return [_describe_manifest(manifest) for manifest in manifests]
    files = [file for split in splits for file in (sorted(split.glob("*.lmdb")) if split.is_dir() else [split])]
    if not files:
        raise InputError(f"{path} has no .lmdb file in it, nor {', '.join(SPLIT_NAMES)}; give another folder")
    return [_describe_lmdb(file, energy_unit) for file in files]


def _describe_manifest(manifest: Manifest) -> Column:
    if manifest.split_method == "random":
        drawn = f"random, seed {manifest.seed}"
    else:
        drawn = f"given by {', '.join(manifest.split_files)}"
    return {
        "split": manifest.split,
        "conformations": f"{manifest.count:,} of {manifest.source_count:,}",
        "drawn": drawn,
        **_describe_molecule(manifest.molecule, [manifest.formula], [len(manifest.atomic_numbers)], manifest.theory),
        **_describe_labels(manifest.labels, manifest.energy_unit, manifest.units_from),
        "source": manifest.source_file,
        "source sha256": manifest.source_sha256[:16] + "…",
    }


def _describe_trajectory(trajectory: Trajectory) -> Column:
    labels = LabelAccumulator()
    for block in tqdm(trajectory.blocks(), desc=trajectory.molecule, unit="block"):
        check_conformations(trajectory.path, block)
        labels.add(block.energies, block.forces)
    return {
        "file": trajectory.path.name,
        "layout": trajectory.layout,
        "conformations": f"{trajectory.count:,}",
        **_describe_molecule(
            trajectory.molecule, [trajectory.formula], [len(trajectory.atomic_numbers)], trajectory.theory
        ),
        **_describe_labels(labels.statistics(), trajectory.energy_unit, trajectory.units_from),
    }


def _describe_lmdb(file: Path, energy_unit: str | None) -> Column:
    """An LMDB of molecules in the host's format that has no manifest."""
    unit, units_from = resolve_energy_unit(file, "", energy_unit)
    labels = LabelAccumulator()
    sizes: set[int] = set()
    formulas: set[str] = set()
    for index, graph in enumerate(tqdm(read_graphs(file), desc=file.name, unit="conf")):
        labels.add(*_labels(file, index, graph))
        sizes.add(len(graph.atomic_numbers))
        formulas.add(hill_formula(graph.atomic_numbers.long().numpy()))
    if not labels.count:
        raise InputError(f"{file} holds no records; give another, or convert the data again")
    return {
        "file": str(file),
        "conformations": f"{labels.count:,}",
        **_describe_molecule(str(graph.get("sid", "not stated")), sorted(formulas), sorted(sizes), "not stated"),
        **_describe_labels(labels.statistics(), unit, units_from),
    }


def _labels(file: Path, index: int, graph: Data) -> tuple[np.ndarray, np.ndarray]:
    """The energy (1,) and forces (1, A, 3) of a record, under the host's older or newer names."""
    energy = graph.get("y", graph.get("energy"))
    forces = graph.get("force", graph.get("forces"))
    if energy is None or forces is None:
        raise InputError(
            f"{file}: record {index} has no energy (y) or no forces (force); it has {', '.join(graph.keys())}"
        )
    return np.array([float(energy)]), forces.double().numpy()[None]


def _describe_molecule(name: str, formulas: Sequence[str], sizes: Sequence[int], theory: str) -> Column:
    return {
        "molecule": name,
        "composition": ", ".join(formulas),
        "atoms": " to ".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1]))),
        "theory": theory,
    }


def _describe_labels(labels: LabelStatistics, energy_unit: str, units_from: str) -> Column:
    force_unit = f"{energy_unit}/{LENGTH_UNIT}"
    return {
        "units": f"{energy_unit}, {LENGTH_UNIT}, {force_unit}",
        "units from": units_from,
        f"energy mean ({energy_unit})": f"{labels.energy_mean:,.4f}",
        f"energy std ({energy_unit})": f"{labels.energy_std:,.4f}",
        f"energy min ({energy_unit})": f"{labels.energy_min:,.4f}",
        f"energy max ({energy_unit})": f"{labels.energy_max:,.4f}",
        f"mean |force| ({force_unit})": f"{labels.mean_abs_force:,.4f}",
        f"max |force| ({force_unit})": f"{labels.max_abs_force:,.4f}",
        "max |label|": f"{labels.max_abs_label:,.4f}",
        "C (Eq. 4)": f"{labels.rescaling_constant:g}",
    }


def _table(columns: Sequence[Column]) -> str:
    """Labels down, columns across; a value that all columns share is printed once."""
    label_width = max(map(len, columns[0]))
    rows = {label: [column[label] for column in columns] for label in columns[0]}
    differing = [values for values in rows.values() if len(set(values)) > 1]
    widths = [max(map(len, values)) for values in zip(*differing, strict=True)]
    lines = []
    for label, values in rows.items():
        if values in differing:
            cells = [value.rjust(width) for value, width in zip(values, widths, strict=True)]
        else:
            cells = values[:1]
        lines.append("  ".join([label.ljust(label_width), *cells]))
    return "\n".join(lines)
