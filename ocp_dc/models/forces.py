"""Forces as the derivative constraint: F = −∂E/∂x (paper, Eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def negative_gradient(energy: Tensor, pos: Tensor, differentiable: bool) -> Tensor:
    """−∂(Σ energy)/∂pos.

    Args:
        energy: (B, 1), computed from ``pos``.
        pos: (N, 3), requires grad.
        differentiable: keep the graph, so that a loss on the forces can be differentiated again (training).

    Returns:
        (N, 3), in energy units per Å.
    """
    # not of energy.sum(): validation runs under no_grad, where a sum is cut from the graph
    (gradient,) = torch.autograd.grad(energy, pos, torch.ones_like(energy), create_graph=differentiable)
    return -gradient
