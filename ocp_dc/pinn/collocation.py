"""The losses of DeepXDE's ``TimePDE`` at fewer evaluations of the network. Importing this imports DeepXDE."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.jets import Jet

dde = import_deepxde()


class PointwiseTimePDE(dde.data.TimePDE):
    """The same losses, for a network whose output at a point depends on that point only.

    ``TimePDE`` gives the network the points of every condition and of the equation, however often they occur, and
    takes derivatives at all of them. Here derivatives are taken where the equation or a condition has them, and values
    at the other conditions' points, once at each point.

    Args:
        residual: of a jet.
        with_laplacian: whether the residual has second derivatives.
    """

    def __init__(
        self, geometry, residual: Callable[[Jet], list[Tensor]], conditions: list, with_laplacian: bool, **numbers
    ) -> None:
        super().__init__(geometry, residual, conditions, **numbers)
        self._with_laplacian = with_laplacian
        points = np.split(self.train_x_bc, np.cumsum(self.num_bcs)[:-1])
        self._differentiated = [isinstance(condition, dde.icbc.NeumannBC) for condition in conditions]
        inner = [each for each, is_so in zip(points, self._differentiated, strict=True) if is_so]
        outer = [each for each, is_so in zip(points, self._differentiated, strict=True) if not is_so]
        self._inner, (self._of_residual, *of_conditions) = _distinct([self.train_x_all, *inner])
        # what DeepXDE gives the network, and what the losses are tested with
        self.train_x, of_values = _distinct(outer)
        self.test_x = self.train_x
        rows, value_rows = iter(of_conditions), iter(of_values)
        self._rows = [next(rows if is_so else value_rows) for is_so in self._differentiated]
        self._points = points

    def losses(self, targets, outputs: Tensor, loss_fn: Callable, inputs: Tensor, model, aux=None) -> list[Tensor]:
        """Of the residuals, then of the conditions; ``outputs`` are those at ``train_x``."""
        jet = model.net.jet(torch.as_tensor(self._inner), self._with_laplacian)
        errors = self.pde(jet[self._of_residual])
        for condition, is_so, rows, points in zip(
            self.bcs, self._differentiated, self._rows, self._points, strict=True
        ):
            if is_so:
                errors.append(_normal_derivative(condition, points, jet[rows]))
            else:
                errors.append(condition.error(points, None, outputs[rows], 0, len(points)))
        return [loss_fn(torch.zeros_like(error), error) for error in errors]


def _distinct(groups: list[np.ndarray]) -> tuple[np.ndarray, list[Tensor]]:
    """The distinct of all points, and for each group the rows of its points among them."""
    distinct, rows = np.unique(np.vstack(groups), axis=0, return_inverse=True)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return distinct, [torch.as_tensor(each) for each in np.split(rows.ravel(), ends)]


def _normal_derivative(condition, points: np.ndarray, jet: Jet) -> Tensor:
    """Of the condition's component along the boundary's normal, which is (N, D), (N, 1)."""
    column = slice(condition.component, condition.component + 1)
    gradient = torch.cat([each[:, column] for each in jet.first], dim=1)
    normal = condition.boundary_normal(points, 0, len(points), None)
    return (gradient * normal).sum(dim=1, keepdim=True) - condition.func(points, 0, len(points), None)
