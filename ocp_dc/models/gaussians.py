"""Gaussians of distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussians(distance: Tensor, centres: Tensor, coefficient: float) -> Tensor:
    """exp(coefficient (d − μ)²), what :class:`torch_geometric.nn.models.schnet.GaussianSmearing` gives.

    Args:
        distance: (E,) Å.
        centres: (G,) the μ, Å.
        coefficient: negative, 1/Å².

    Returns:
        (E, G).
    """
    return exponential(coefficient * (distance.unsqueeze(1) - centres).square())


def exponential(x: Tensor) -> Tensor:
    """eˣ, but nowhere below ten times the smallest normal number; any shape. Its derivative is itself, to any order.

    PyTorch takes ten times as long for smaller numbers, and of narrow Gaussians these are the most.
    """
    return _Exponential.apply(x)


class _Exponential(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(min=math.log(10 * torch.finfo(x.dtype).tiny)).exp()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        return grad * value

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        return tangent * value
