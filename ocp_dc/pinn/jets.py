"""What a network gives at points, with its derivatives there: by DeepXDE, or carried through the layers.

Importing this imports DeepXDE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ocp_dc.pinn.extra import import_deepxde

gradients = import_deepxde().grad


@dataclass(frozen=True)
class Jet:
    """Outputs (N, C) and their derivatives.

    Attributes:
        values: (N, C).
        first: by each input, (N, C) each.
        laplacian: (N, C), over the coordinates in space; None where it was not asked for.
    """

    values: Tensor
    first: tuple[Tensor, ...]
    laplacian: Tensor | None = None

    def __getitem__(self, rows: Tensor | slice) -> Jet:
        """Of some of the points."""
        laplacian = None if self.laplacian is None else self.laplacian[rows]
        return Jet(self.values[rows], tuple(each[rows] for each in self.first), laplacian)


def jet_by_deepxde(inputs: Tensor, outputs: Tensor, with_laplacian: bool) -> Jet:
    """By differentiating the outputs (N, C) with respect to the inputs (N, D) they were made of, with ``dde.grad``."""
    components, axes = range(outputs.shape[1]), range(inputs.shape[1])

    def gradient(axis: int) -> Tensor:
        return torch.cat([gradients.jacobian(outputs, inputs, i=each, j=axis) for each in components], dim=1)

    def second(axis: int) -> Tensor:
        hessians = [gradients.hessian(outputs, inputs, component=each, i=axis, j=axis) for each in components]
        return torch.cat(hessians, dim=1)

    laplacian = sum(second(axis) for axis in axes[:-1]) if with_laplacian else None
    return Jet(outputs, tuple(gradient(axis) for axis in axes), laplacian)


def jet_through_layers(
    layers: Sequence[tuple[Tensor, Tensor]], activation: Callable[[Tensor], Tensor], inputs: Tensor
) -> Jet:
    """The same, Laplacian included, for a fully connected network in one pass: layers take derivatives to derivatives.

    With z the sum that goes into an activation σ: (σ(z))ₓ = σ'(z) zₓ and Δσ(z) = σ'(z) Δz + σ''(z) |∇z|².

    Args:
        layers: weight (out, in) and bias (out,) of each; the activation follows all but the last.
        inputs: (N, D); the last is time.
    """
    weight, bias = layers[0]
    # first derivatives are (D, N, width); those of the first layer are the same at all points
    before, first, laplacian = F.linear(inputs, weight, bias), weight.t()[:, None], weight.new_zeros(1, 1)
    for weight, bias in layers[1:]:
        after = activation(before)
        slope = _elementwise_derivative(after, before)
        bend = _elementwise_derivative(slope, before)
        laplacian = F.linear(slope * laplacian + bend * first[:-1].square().sum(dim=0), weight)
        first = F.linear(slope * first, weight)
        before = F.linear(after, weight, bias)
    return Jet(before, tuple(first), laplacian)


def _elementwise_derivative(values: Tensor, by: Tensor) -> Tensor:
    """Of values, each of which depends on one element; with the graph, so that it can be differentiated again."""
    ones = values.new_ones(()).expand_as(values)
    (derivative,) = torch.autograd.grad(values, by, ones, create_graph=True)
    return derivative
