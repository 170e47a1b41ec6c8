"""What a network is trained for: points, residuals, conditions, and the names of their loss terms.

Importing this imports DeepXDE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from ocp_dc.pinn.collocation import PointwiseTimePDE
from ocp_dc.pinn.equations import Equation
from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.jets import Jet, jet_by_deepxde

dde = import_deepxde()


@dataclass(frozen=True)
class Points:
    """How many points DeepXDE draws: in space and time, on the boundary, and at the first time."""

    domain: int = 1000
    boundary: int = 1000
    initial: int = 5000


@dataclass(frozen=True)
class Problem:
    """Residuals that ought to vanish, and conditions.

    Attributes:
        geometry: of space and time, where points are drawn.
        residuals: names of the loss terms of what ``residual`` returns.
        residual: a function of a jet (see :mod:`ocp_dc.pinn.residuals`).
        conditions: DeepXDE's, by name of the loss term.
        with_laplacian: whether the residual has second derivatives.
        coupled_residual: a function of inputs (N, D) and outputs (N, C) in the place of ``residual``, where an output
            depends on other points too; None where that makes no difference.
    """

    geometry: dde.geometry.GeometryXTime
    residuals: tuple[str, ...]
    residual: Callable[[Jet], list[Tensor]]
    conditions: dict[str, object]
    with_laplacian: bool = False
    coupled_residual: Callable[[Tensor, Tensor], list[Tensor]] | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of all loss terms, in DeepXDE's order."""
        return (*self.residuals, *self.conditions)

    def data(self, points: Points, pointwise: bool) -> dde.data.TimePDE:
        """The points, drawn with NumPy's global random numbers, and the losses.

        Args:
            pointwise: whether the network's output at a point depends on that point only, which saves evaluations.
        """
        numbers = {f"num_{name}": number for name, number in asdict(points).items()}
        conditions = list(self.conditions.values())
        if pointwise:
            return PointwiseTimePDE(self.geometry, self.residual, conditions, self.with_laplacian, **numbers)
        return dde.data.TimePDE(self.geometry, self.coupled_residual or self._by_deepxde, conditions, **numbers)

    def _by_deepxde(self, inputs: Tensor, outputs: Tensor) -> list[Tensor]:
        return self.residual(jet_by_deepxde(inputs, outputs, self.with_laplacian))


def geometry(equation: Equation, low: float | None = None) -> dde.geometry.GeometryXTime:
    """Space and time of an equation; ``low`` is where space begins if not where the data do."""
    low = equation.low if low is None else low
    if equation.space == 1:
        space = dde.geometry.Interval(low, equation.high)
    else:
        space = dde.geometry.Rectangle([low] * 2, [equation.high] * 2)
    return dde.geometry.GeometryXTime(space, dde.geometry.TimeDomain(0, equation.end))


def values_at(points: np.ndarray, values: np.ndarray, prefix: str, names: Sequence[str]) -> dict[str, object]:
    """Conditions that each component has its values (N, C) at points (N, D)."""
    return {
        f"{prefix}_{name}": dde.icbc.PointSetBC(points, values[:, component : component + 1], component=component)
        for component, name in enumerate(names)
    }


def everywhere(_, on_boundary: bool) -> bool:
    """Of a boundary."""
    return on_boundary
