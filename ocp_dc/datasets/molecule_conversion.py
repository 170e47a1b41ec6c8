"""MD17 and its kin (rMD17, sGDML, extended XYZ), converted to LMDBs that the host reads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

import ocp_dc
from ocp_dc.datasets.conformations import Trajectory, check_conformations
from ocp_dc.datasets.extxyz import open_xyz
from ocp_dc.datasets.lmdb import MoleculeWriter
from ocp_dc.datasets.manifest import MoleculeManifest, sha256_of
from ocp_dc.datasets.npz import open_npz
from ocp_dc.datasets.splits import Split, random_split, read_split_dir
from ocp_dc.datasets.staging import is_conversion, staged_folder
from ocp_dc.errors import InputError
from ocp_dc.statistics import LabelStatistics
from ocp_dc.units import LENGTH_UNIT

XYZ_SUFFIXES = (".xyz", ".extxyz")


def sample_path() -> Path:
    """The embedded sample: 1,000 ethanol conformations in MD17's keys and units (see its README)."""
    return Path(__file__).parent / "sample" / "ethanol_pbe.npz"


def open_trajectory(path: str | Path, energy_unit: str | None = None) -> Trajectory:
    """Opens an npz file of MD17, rMD17 or sGDML, or an extended XYZ file.

    Args:
        path: ``.xyz`` and ``.extxyz`` are read as extended XYZ (with ASE's names ``energy`` and ``forces``), all else
            as npz.
        energy_unit: for a file that does not state it; kcal/mol, MD17's unit, is assumed where neither does.

    Raises:
        InputError: the file is missing, of another kind, lacks something, or contradicts itself or ``energy_unit``.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    return (open_xyz if path.suffix.lower() in XYZ_SUFFIXES else open_npz)(path, energy_unit)


def convert(
    source: str | Path,
    out: str | Path,
    *,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    split_dir: str | Path | None = None,
    energy_unit: str | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> dict[str, MoleculeManifest]:
    """Converts a file to ``out/{train,val,test}``, each with ``data.lmdb``, ``metadata.npz`` and ``manifest.json``.

    The conformations of a split keep the source's order, and all of them are checked. ``out`` appears when it is
    complete, not before.

    Args:
        source: see :func:`open_trajectory`.
        out: the folder to make.
        sizes: number of conformations of each split, drawn by :func:`~ocp_dc.datasets.splits.random_split`.
        seed: of that draw.
        split_dir: read the splits from here instead, see :func:`~ocp_dc.datasets.splits.read_split_dir`.
        energy_unit: see :func:`open_trajectory`.
        overwrite: replace an earlier conversion at ``out`` once the new one is complete.
        show_progress: show a progress bar.

    Returns:
        The manifests, by split name.

    Raises:
        InputError: anything is wrong with the source, the splits or the place to write to; nothing is left at ``out``.
    """
    trajectory = open_trajectory(source, energy_unit)
    if split_dir is None:
        split = random_split(trajectory.count, sizes or {}, seed)
    else:
        split = read_split_dir(split_dir, trajectory.count)
    with staged_folder(out, may_replace=is_conversion if overwrite else None) as folder:
        return _write_splits(trajectory, split, folder, show_progress)


def _write_splits(
    trajectory: Trajectory, split: Split, folder: Path, show_progress: bool
) -> dict[str, MoleculeManifest]:
    with ExitStack() as stack:
        writers = {}
        for name in split.indices:
            writers[name] = MoleculeWriter(folder / name, trajectory.atomic_numbers, trajectory.molecule)
            stack.callback(writers[name].close)
        progress = tqdm(total=trajectory.count, unit="conf", desc=trajectory.molecule, disable=not show_progress)
        stack.enter_context(progress)
        for block in trajectory.blocks():
            for name, rows in split.indices.items():
                start, stop = np.searchsorted(rows, (block.rows[0], block.rows[-1] + 1))
                chosen = block[rows[start:stop] - block.rows[0]]
                check_conformations(trajectory.path, chosen)
                writers[name].add(chosen)
            progress.update(len(block))
        labels = {name: writer.finish() for name, writer in writers.items()}
    source_sha256 = sha256_of(trajectory.path)
    manifests = {name: _manifest(trajectory, source_sha256, split, name, labels[name]) for name in labels}
    for name, manifest in manifests.items():
        manifest.write(folder / name)
    return manifests


def _manifest(
    trajectory: Trajectory, source_sha256: str, split: Split, name: str, labels: LabelStatistics
) -> MoleculeManifest:
    return MoleculeManifest(
        split=name,
        count=len(split.indices[name]),
        molecule=trajectory.molecule,
        formula=trajectory.formula,
        atomic_numbers=trajectory.atomic_numbers.tolist(),
        theory=trajectory.theory,
        energy_unit=trajectory.energy_unit,
        length_unit=LENGTH_UNIT,
        force_unit=f"{trajectory.energy_unit}/{LENGTH_UNIT}",
        units_from=trajectory.units_from,
        source_file=trajectory.path.name,
        source_sha256=source_sha256,
        source_layout=trajectory.layout,
        source_count=trajectory.count,
        split_method=split.method,
        seed=split.seed,
        split_files=split.files,
        labels=labels,
        ocp_dc_version=ocp_dc.__version__,
    )
