"""The networks: 6 hidden layers of 40, any activation of this package, with BatchNorm as published or as it should be.

Importing this imports DeepXDE.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocp_dc.activations import activation
from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.jets import Jet, jet_by_deepxde, jet_through_layers

dde = import_deepxde()

HIDDEN_LAYERS, WIDTH = 6, 40
LARGEST_SIGNAL = 2.0
BATCH_NORM_EPSILON = 1e-5
Layers = Sequence[tuple[Tensor, Tensor]]


class Network(dde.nn.FNN):
    """The paper's network, DeepXDE's ``FNN``: Glorot normal weights, zero biases.

    Args:
        inputs, outputs: their numbers.
        name: of an activation of :mod:`ocp_dc.activations`.
    """

    def __init__(self, inputs: int, outputs: int, name: str) -> None:
        super().__init__([inputs, *[WIDTH] * HIDDEN_LAYERS, outputs], activation(name), "Glorot normal")
        self._units: Tensor | None = None

    def in_units(self, units: Sequence[float]) -> None:
        """Multiplies what the last layer gives by a unit for each output."""
        self._units = self.linears[-1].bias.new_tensor(units)

    def layers(self) -> Layers:
        """Weight and bias of each, the last one's included."""
        return self._with_units([(linear.weight, linear.bias) for linear in self.linears])

    def _with_units(self, layers: Layers) -> Layers:
        if self._units is None:
            return layers
        *hidden, (weight, bias) = layers
        return [*hidden, (weight * self._units[:, None], bias * self._units)]

    def forward(self, inputs: Tensor) -> Tensor:
        *hidden, last = self.layers()
        x = inputs
        for layer in hidden:
            x = self.activation(F.linear(x, *layer))
        return F.linear(x, *last)

    def jet(self, inputs: Tensor, with_laplacian: bool) -> Jet:
        """Outputs and derivatives at points (N, inputs), the faster of two ways."""
        if with_laplacian:
            return jet_through_layers(self.layers(), self.activation, inputs)
        inputs = inputs.detach().requires_grad_()
        return jet_by_deepxde(inputs, self(inputs), with_laplacian)

    def hidden(self, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What goes into the activation of each hidden layer, and what it makes of it, (N, width) each."""
        signals, x = [], inputs
        for layer in self.layers()[:-1]:
            before = F.linear(x, *layer)
            x = self.activation(before)
            signals.append((before, x))
        return signals


class CollocationBatchNorm(Network):
    """BatchNorm that trains: its statistics are those over given points, whatever points are evaluated.

    So the network is a function of a point, with derivatives by it, and the loss depends on the weights through the
    statistics too. The points are those of training, always the same, so evaluation needs no running means.

    Args:
        points: (N, inputs) over which the statistics are taken.
    """

    def __init__(self, inputs: int, outputs: int, name: str, points: Tensor) -> None:
        super().__init__(inputs, outputs, name)
        settings = {"track_running_stats": False, "dtype": self.linears[0].weight.dtype}
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH, **settings) for _ in range(HIDDEN_LAYERS))
        self.register_buffer("points", points, persistent=False)

    def layers(self) -> Layers:
        """BatchNorm is linear once its statistics are known: it is part of the layer that follows."""
        x, layers = self.points, [(self.linears[0].weight, self.linears[0].bias)]
        for norm, linear in zip(self.norms, self.linears[1:], strict=True):
            x = self.activation(F.linear(x, *layers[-1]))
            scale = norm.weight / torch.sqrt(x.var(dim=0, unbiased=False) + norm.eps)
            shift = norm.bias - scale * x.mean(dim=0)
            layers.append((linear.weight * scale, linear.bias + linear.weight @ shift))
        return self._with_units(layers)


class PublishedBatchNorm(Network):
    """The published "+ BN": BatchNorm after each activation, never trained, never saved, always in training mode.

    Its weights are where they begin, at 1 and 0. What the network gives at a point depends on all points that it is
    given at once, and the derivative of the sum of all outputs, which is what DeepXDE takes, is 0.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linears[-1](_normalized(self.hidden(inputs)[-1][1]))

    def hidden(self, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
        signals, x = [], inputs
        for linear in self.linears[:-1]:
            before = linear(x)
            signals.append((before, self.activation(before)))
            x = _normalized(signals[-1][1])
        return signals


def _normalized(x: Tensor) -> Tensor:
    """Untrained BatchNorm over the batch at hand; its second derivatives take half the time of PyTorch's own."""
    variance, mean = torch.var_mean(x, dim=0, unbiased=False)
    return (x - mean) * torch.rsqrt(variance + BATCH_NORM_EPSILON)


@torch.no_grad()
def keep_signal_size(network: Network, points: Tensor) -> None:
    """Scales each hidden layer's weights so that the largest number that goes into its activation is ±2.

    Layer by layer from the first, over the points. x²/2 makes what is smaller than 2 smaller with every layer, which
    vanishes, and what is larger larger, which explodes; 2 it leaves as it is.
    """
    for layer in range(HIDDEN_LAYERS):
        before, _ = network.hidden(points)[layer]
        network.linears[layer].weight.mul_(LARGEST_SIGNAL / before.abs().max())


@torch.no_grad()
def never_positive(network: Network, points: Tensor) -> float:
    """The share of hidden units into whose activation nothing positive goes at any of the points (N, inputs)."""
    positive = [(before > 0).any(dim=0) for before, _ in network.hidden(points)]
    return 1.0 - float(torch.cat(positive).double().mean())


@torch.no_grad()
def last_signal(network: Network, points: Tensor) -> float:
    """The root mean square of what the last hidden layer gives, over the points (N, inputs)."""
    return float(network.hidden(points)[-1][1].square().mean().sqrt())
