"""The published runs to the letter, faults included: PDEBench's problems as the paper's code has them.

What ``corrected`` has otherwise is marked with *fault*; docs/pinn.md says what each changes. Importing this imports
DeepXDE.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ocp_dc.pinn import residuals
from ocp_dc.pinn.equations import ADVECTION, CFD, DIFFUSION_REACTION, GAMMA, Equation
from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.fields import Field
from ocp_dc.pinn.jets import Jet
from ocp_dc.pinn.networks import Network, PublishedBatchNorm
from ocp_dc.pinn.problem import Problem, everywhere, geometry, values_at

dde = import_deepxde()

SPLIT_SEED = 42
SHARE = 0.3


def read(field: Field, equation: Equation) -> Field:
    """The data as the published code has them. *Fault*: of diffusion-reaction it takes the array's y for x."""
    return field.with_x_and_y_exchanged() if equation is DIFFUSION_REACTION else field


def problem(equation: Equation, field: Field) -> Problem:
    """The problem of an equation; ``field`` is the data as they are."""
    return {ADVECTION: _advection, CFD: _cfd, DIFFUSION_REACTION: _diffusion_reaction}[equation](field)


def network(equation: Equation, activation: str, batch_norm: bool, points: Tensor) -> Network:
    """*Faults*: BatchNorm does not train; Glorot's weights let signals vanish through x²/2."""
    kind = PublishedBatchNorm if batch_norm else Network
    return kind(len(equation.inputs), len(equation.components), activation)


def _advection(field: Field) -> Problem:
    where = geometry(ADVECTION)
    conditions = {**values_at(*field.initial(), "L", ["IC"]), "L_BC": dde.icbc.PeriodicBC(where, 0, everywhere)}
    return Problem(where, ("L_f†",), residuals.advection, conditions)


def _cfd(field: Field) -> Problem:
    # fault: the data are on [-1, 1]
    where = geometry(CFD, low=0.0)
    # fault: three times the density; what was meant to be the component is the coordinate's number, which has no effect
    periodic = {f"L_BC_{name}": dde.icbc.PeriodicBC(where, axis, everywhere) for axis, name in enumerate("dvp")}
    conditions = {**values_at(*field.initial(), "L_IC", "dvp"), **periodic}
    return Problem(where, ("L_f†",), summed_euler, conditions, coupled_residual=coupled_euler)


def summed_euler(jet: Jet) -> list[Tensor]:
    """Eq. 20. *Faults*: summed before it is squared, and the pressure's gradient has the wrong sign."""
    return [sum(residuals.euler(jet, pressure_sign=-1.0))]


def coupled_euler(inputs: Tensor, outputs: Tensor) -> list[Tensor]:
    """The same with derivatives of the products, as the published code takes them (paper, Eq. 21 to 23).

    Where a network's output at a point depends on that point only, nothing else comes of it. All that is
    differentiated by time without a factor is differentiated at once, and so is all by place: three derivatives in
    the place of six.
    """
    rho, v, p = (outputs[:, component : component + 1] for component in range(3))
    energy = p / (GAMMA - 1) + 0.5 * rho * v**2
    derivative = dde.grad.jacobian
    v_x, v_t = (derivative(outputs, inputs, i=1, j=axis) for axis in (0, 1))
    changes = derivative(rho + energy, inputs, i=0, j=1)
    # fault: minus the pressure's gradient
    flows = derivative(rho * v - p + v * (energy + p), inputs, i=0, j=0)
    return [changes + flows + rho * (v_t + v * v_x)]


def _diffusion_reaction(field: Field) -> Problem:
    where = geometry(DIFFUSION_REACTION)
    inputs, values = read(field, DIFFUSION_REACTION).points()
    # fault: the first values of an array [x, y, t], so all are in one corner, where x and y are the least
    count = len(field.space[0])
    drawn = torch.randperm(count, generator=torch.Generator(device="cpu").manual_seed(SPLIT_SEED), device="cpu")
    chosen = drawn[: int(SHARE * count)].numpy()
    first_points, first_values = (
        array.transpose(2, 1, 0, 3).reshape(-1, array.shape[-1])[chosen] for array in (inputs, values)
    )
    conditions = {
        # fault: of the activator alone
        "L_BC†": dde.icbc.NeumannBC(where, lambda _: 0, everywhere),
        **values_at(*field.initial(), "L_IC", "uv"),
        **values_at(first_points, first_values, "L_BC", "uv"),
    }
    return Problem(where, ("L_f†",), summed_diffusion_reaction, conditions, with_laplacian=True)


def summed_diffusion_reaction(jet: Jet) -> list[Tensor]:
    """Eq. 26. *Fault*: summed before it is squared."""
    return [sum(residuals.diffusion_reaction(jet))]
