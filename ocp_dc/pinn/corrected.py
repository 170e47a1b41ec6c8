"""The same problems as the equations have them, with BatchNorm that trains. Importing this imports DeepXDE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ocp_dc.pinn import residuals
from ocp_dc.pinn.equations import ADVECTION, CFD, DIFFUSION_REACTION, Equation
from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.fields import Field
from ocp_dc.pinn.networks import CollocationBatchNorm, Network, keep_signal_size
from ocp_dc.pinn.problem import Problem, everywhere, geometry, values_at

dde = import_deepxde()

BOUNDARY_VALUES = 1000
# of components in the names of loss terms, and the component that each residual of a gas is in the unit of
NAMES = {ADVECTION: "u", CFD: "dvp", DIFFUSION_REACTION: "uv"}
RESIDUALS = {"mass": "d", "momentum": "p", "energy": "p"}


def read(field: Field, equation: Equation) -> Field:
    """The data as they are."""
    return field


def problem(equation: Equation, field: Field) -> Problem:
    """The problem of an equation; points of the data are drawn with NumPy's global random numbers."""
    return {ADVECTION: _advection, CFD: _cfd, DIFFUSION_REACTION: _diffusion_reaction}[equation](field)


def network(equation: Equation, activation: str, batch_norm: bool, points: Tensor) -> Network:
    """With signals that neither vanish nor explode at the points (N, D): by BatchNorm, or by the initial weights."""
    sizes = len(equation.inputs), len(equation.components)
    if batch_norm:
        return CollocationBatchNorm(*sizes, activation, points)
    made = Network(*sizes, activation)
    keep_signal_size(made, points)
    return made


def units(equation: Equation, field: Field, terms: Sequence[str]) -> tuple[list[float], list[float]]:
    """The root mean square of each component at the first time, and units of the loss terms' roots made of them.

    Times and lengths are of order 1 in all three equations, so the unit of a residual is that of what changes.
    """
    sizes = np.sqrt(np.square(field.initial()[1], dtype=np.float64).mean(axis=0)).tolist()
    by_name = dict(zip(NAMES[equation], sizes, strict=True))
    by_name |= {residual: by_name.get(name, sizes[0]) for residual, name in RESIDUALS.items()}
    # L_f† mass, L_IC_v, L_BC
    return sizes, [by_name.get(term.replace("_", " ").split()[-1], sizes[0]) for term in terms]


def _advection(field: Field) -> Problem:
    where = geometry(ADVECTION)
    conditions = {**values_at(*field.initial(), "L", ["IC"]), "L_BC": dde.icbc.PeriodicBC(where, 0, everywhere)}
    return Problem(where, ("L_f†",), residuals.advection, conditions)


def _cfd(field: Field) -> Problem:
    where = geometry(CFD)
    periodic = {
        f"L_BC_{name}": dde.icbc.PeriodicBC(where, 0, everywhere, component=component)
        for component, name in enumerate("dvp")
    }
    names = ("L_f† mass", "L_f† momentum", "L_f† energy")
    return Problem(where, names, residuals.euler, {**values_at(*field.initial(), "L_IC", "dvp"), **periodic})


def _diffusion_reaction(field: Field) -> Problem:
    where = geometry(DIFFUSION_REACTION)
    closed = {
        f"L_BC† {name}": dde.icbc.NeumannBC(where, lambda _: 0, everywhere, component=component)
        for component, name in enumerate("uv")
    }
    conditions = {
        **closed,
        **values_at(*field.initial(), "L_IC", "uv"),
        **values_at(*_values_at_the_boundary(field), "L_BC", "uv"),
    }
    return Problem(where, ("L_f† u", "L_f† v"), residuals.diffusion_reaction, conditions, with_laplacian=True)


def _values_at_the_boundary(field: Field) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, 3) and values (N, 2) at cells beside the boundary, drawn over all sides and times."""
    inputs, values = field.points()
    on_boundary = np.zeros(inputs.shape[:-1], dtype=bool)
    on_boundary[:, [0, -1]] = on_boundary[:, :, [0, -1]] = True
    candidates = np.flatnonzero(on_boundary)
    chosen = np.random.choice(candidates, min(BOUNDARY_VALUES, len(candidates)), replace=False)  # noqa: NPY002
    return inputs.reshape(-1, inputs.shape[-1])[chosen], values.reshape(-1, values.shape[-1])[chosen]
