"""Forces as the derivative constraint: F = −∂E/∂x (paper, Eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# of fairchem, those whose forces are the full gradient of the energy, unless they predict them directly
FAIRCHEMS_WITH_GRADIENT = {"SchNetWrap", "GemNetT", "GraphParallelGemNetT", "GemNetOC", "PaiNN"}


class GradientForces:
    """``forward`` of a model that computes energies (B, 1) in ``_forward(data)``. Put it before fairchem's class.

    Attributes:
        conservative: whether ``_forward`` keeps all of how the energy depends on the positions.
    """

    conservative = True

    def forward(self, data) -> dict[str, Tensor]:
        """Energies (B, 1) and, with ``regress_forces``, forces (N, 3), in the units of the rescaled labels."""
        if not self.regress_forces:
            return {"energy": self._forward(data)}
        data.pos.requires_grad_(True)
        with torch.enable_grad():
            energy = self._forward(data)
        return {"energy": energy, "forces": negative_gradient(energy, data.pos, differentiable=self.training)}


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


def forces_are_a_gradient(model: nn.Module) -> bool:
    """Whether a model's forces are the full gradient −∂E/∂x of its energy; False too where that is not known."""
    if getattr(model, "direct_forces", False):
        return False
    if isinstance(model, GradientForces):
        return model.conservative
    return any(base.__name__ in FAIRCHEMS_WITH_GRADIENT for base in type(model).__mro__)
