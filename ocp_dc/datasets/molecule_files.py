"""Files of conformations of one molecule, opened by the ending of their names."""

from __future__ import annotations

from pathlib import Path

from ocp_dc.datasets.conformations import Trajectory, require_file
from ocp_dc.datasets.extxyz import open_xyz
from ocp_dc.datasets.npz import open_npz
from ocp_dc.errors import InputError

_OPENERS = {".npz": open_npz, ".xyz": open_xyz, ".extxyz": open_xyz}


def open_trajectory(path: str | Path, energy_unit: str | None = None) -> Trajectory:
    """Opens an npz file of MD17, rMD17 or sGDML, or an extended XYZ file (``.xyz``, ``.extxyz``).

    Extended XYZ has the labels under ASE's names, ``energy`` and ``forces``.

    Args:
        path: the file.
        energy_unit: for a file that does not state it; kcal/mol, MD17's unit, is assumed where neither does.

    Raises:
        InputError: the file is missing, of another kind, lacks something, or contradicts itself or ``energy_unit``.
    """
    path = Path(path)
    require_file(path)
    if path.suffix.lower() not in _OPENERS:
        raise InputError(f"{path}: only {', '.join(_OPENERS)} files of a molecule are read; convert it to one of them")
    return _OPENERS[path.suffix.lower()](path, energy_unit)
