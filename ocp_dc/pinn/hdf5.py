"""PDEBench's HDF5 files, read and written: one layout for each equation.

- advection: ``tensor`` (N, T, X), ``x-coordinate`` (X,), ``t-coordinate`` (T + 1,), one time too many;
- compressible fluid dynamics: the same with ``density``, ``Vx`` and ``pressure`` (N, T, X);
- diffusion-reaction: a group for each sample (``0000``, …) with ``data`` (T, Y, X, 2), ``grid/x``, ``grid/y`` and
  ``grid/t``, and an attribute ``config``, which is YAML.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from ocp_dc.errors import InputError
from ocp_dc.files import replacing
from ocp_dc.pinn.equations import ADVECTION, CFD, DIFFUSION_REACTION, DIFFUSION_U, DIFFUSION_V, REACTION, Equation
from ocp_dc.pinn.extra import import_h5py
from ocp_dc.pinn.fields import Field

DATASETS = {ADVECTION.name: ("tensor",), CFD.name: ("density", "Vx", "pressure")}
# of the domain's length, for coordinates in float32
COORDINATE_TOLERANCE = 1e-4


def read_field(path: Path, equation: Equation, sample: int) -> Field:
    """One sample of a file.

    Args:
        path: the file, or the folder that has it under PDEBench's name.
        sample: its number; negative ones count from the end, -1 being the last.

    Raises:
        InputError: no such file or sample, or not what PDEBench's file of this equation would hold.
    """
    h5py = import_h5py()
    path = path / equation.file if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give the folder of PDEBench's {equation.file}")
    try:
        with h5py.File(path, "r") as file:
            read = _read_group if equation is DIFFUSION_REACTION else _read_arrays
            field = read(path, file, equation, sample)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); is it one of PDEBench's HDF5 files?") from error
    _check(path, field, equation)
    return field


def _read_arrays(path: Path, file, equation: Equation, sample: int) -> Field:
    names = DATASETS[equation.name]
    arrays = [_member(path, file, name) for name in names]
    x, t = (_member(path, file, f"{axis}-coordinate")[()] for axis in "xt")
    count, times, *_ = shape = arrays[0].shape
    if len(shape) != 3 or any(array.shape != shape for array in arrays) or x.shape != shape[2:] or len(t) < times:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(names, arrays, strict=True))
        raise InputError(
            f"{path}: {shapes}, x-coordinate {x.shape}, t-coordinate {t.shape} do not fit together; expected are "
            f"{' and '.join(names)} of one shape (samples, times, cells), with a coordinate for each cell and time"
        )
    row = _row(path, sample, count)
    return Field((_float64(x),), _float64(t[:times]), np.stack([array[row] for array in arrays], axis=-1))


def _read_group(path: Path, file, equation: Equation, sample: int) -> Field:
    names = sorted(name for name in file if name.isdigit())
    group = file[names[_row(path, sample, len(names))]]
    data = _member(path, group, "data")
    x, y, t = (_float64(_member(path, group, f"grid/{axis}")[()]) for axis in "xyt")
    expected = (len(t), len(y), len(x), len(equation.components))
    if data.shape != expected:
        raise InputError(f"{path}: {group.name}/data is of shape {data.shape}; by its grid it would be {expected}")
    return Field((x, y), t, data[()])


def _member(path: Path, group, name: str):
    if name not in group:
        raise InputError(f"{path}: {group.name} has no {name}, only {', '.join(sorted(group)) or 'nothing'}")
    return group[name]


def _row(path: Path, sample: int, count: int) -> int:
    if not -count <= sample < count:
        raise InputError(f"--sample {sample}: {path} has {count} samples, from 0 on, or from the end from -1 on")
    return sample % count


def _float64(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, dtype=np.float64)


def _check(path: Path, field: Field, equation: Equation) -> None:
    if not np.isfinite(field.values).all():
        time, *cell = np.argwhere(~np.isfinite(field.values))[0]
        name = equation.components[cell[-1]]
        raise InputError(f"{path}: {name} is not finite at time number {time}; choose another --sample")
    for axis, centres in zip(equation.inputs, field.space, strict=False):
        width = (equation.high - equation.low) / len(centres)
        expected = equation.low + width * (np.arange(len(centres)) + 0.5)
        _compare(path, axis, centres, expected, equation.high - equation.low)
    _compare(path, "t", field.t, np.linspace(0.0, equation.end, len(field.t)), equation.end)


def _compare(path: Path, axis: str, found: np.ndarray, expected: np.ndarray, length: float) -> None:
    if np.abs(found - expected).max() > COORDINATE_TOLERANCE * length:
        raise InputError(
            f"{path}: {axis} runs from {found[0]:g} to {found[-1]:g}, expected are {len(expected)} equal steps from "
            f"{expected[0]:g} to {expected[-1]:g}; this is not the data of the paper's equation"
        )


def write_fields(path: Path, equation: Equation, fields: Sequence[Field]) -> None:
    """Writes samples on one grid in PDEBench's layout, float32 as there; the file is there completely or not at all."""
    h5py = import_h5py()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        if equation is DIFFUSION_REACTION:
            for number, field in enumerate(fields):
                _write_group(file.create_group(f"{number:04d}"), field)
        else:
            _write_arrays(file, equation, fields)


def _write_arrays(file, equation: Equation, fields: Sequence[Field]) -> None:
    (x,), t = fields[0].space, fields[0].t
    file["x-coordinate"] = x.astype(np.float32)
    file["t-coordinate"] = np.append(t, 2 * t[-1] - t[-2]).astype(np.float32)
    for component, name in enumerate(DATASETS[equation.name]):
        file[name] = np.stack([field.values[..., component] for field in fields]).astype(np.float32)


def _write_group(group, field: Field) -> None:
    x, y = field.space
    group["data"] = field.values.astype(np.float32)
    for name, axis in (("x", x), ("y", y), ("t", field.t)):
        group[f"grid/{name}"] = axis.astype(np.float32)
    sizes = {"t": float(field.t[-1]), "tdim": len(field.t), "xdim": len(x), "ydim": len(y)}
    sim = {"Du": DIFFUSION_U, "Dv": DIFFUSION_V, "k": REACTION, **sizes}
    group.attrs["config"] = yaml.safe_dump({"name": "2d_diff-react", "sim": sim})
