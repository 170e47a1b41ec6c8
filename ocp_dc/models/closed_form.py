"""Activations with their first two derivatives in closed form.

Forces are derivatives of the energy, and training on them differentiates once more. Autograd then differentiates each
operation of a function twice; here value and slope are evaluated together, once, and the curvature where it is needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fairchem.core.models.gemnet.layers.base_layers import ScaledSiLU
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class ClosedForm(nn.Module):
    """A function whose subclass gives :meth:`evaluate` and :meth:`curvature`; derivatives of any order exist."""

    def evaluate(self, x: Tensor) -> tuple[Tensor, ...]:
        """f(x), f'(x), and what else :meth:`curvature` takes; each of a shape that ``x`` broadcasts to."""
        raise NotImplementedError

    def curvature(self, x: Tensor, slope: Tensor, *others: Tensor) -> Tensor:
        """f''(x), from what :meth:`evaluate` gave."""
        raise NotImplementedError

    @torch.compiler.disable  # it cannot trace a Function that takes functions: a compiled model breaks its graph here
    def forward(self, x: Tensor) -> Tensor:
        return _Evaluated.apply(x, self)[0]


class _Evaluated(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, function: ClosedForm) -> tuple[Tensor, ...]:
        return function.evaluate(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.function = inputs
        _, slope, *others = output
        ctx.mark_non_differentiable(*others)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, slope, *others)

    @staticmethod
    def backward(ctx, grad: Tensor | None, grad_of_slope: Tensor | None, *_):
        x, slope, *others = ctx.saved_tensors
        by_x = None if grad is None else grad * slope
        if grad_of_slope is not None:
            # a third derivative needs what the curvature is made of as functions of x
            parts = ctx.function.evaluate(x)[1:] if torch.is_grad_enabled() else (slope, *others)
            curvature = ctx.function.curvature(x, *parts)
            by_x = grad_of_slope * curvature if by_x is None else torch.addcmul(by_x, grad_of_slope, curvature)
        return None if by_x is None else by_x.sum_to_size(x.shape), None


class ClosedFormSiLU(ClosedForm, nn.SiLU):
    """``scale`` · x σ(x); any shape."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sigmoid = x.sigmoid()
        scaled = sigmoid if self.scale == 1 else sigmoid * self.scale
        slope = torch.addcmul(scaled, x, _slope_of_sigmoid(sigmoid), value=self.scale)
        return x * scaled, slope, sigmoid

    def curvature(self, x: Tensor, slope: Tensor, sigmoid: Tensor) -> Tensor:
        # scale · σ' (2 + x (1 − 2σ)), where scale · x σ' = slope − scale · σ
        rest = torch.sub(slope, sigmoid, alpha=self.scale)
        return torch.add(torch.addcmul(rest, rest, sigmoid, value=-2), _slope_of_sigmoid(sigmoid), alpha=2 * self.scale)

    def extra_repr(self) -> str:
        return "" if self.scale == 1 else f"scale={self.scale}"


def _slope_of_sigmoid(sigmoid: Tensor) -> Tensor:
    return torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1)


SILU = ClosedFormSiLU()


def use_closed_form_silu(model: nn.Module) -> None:
    """Put it in the place of each ``nn.SiLU`` and of each of GemNet's ``ScaledSiLU``; the function stays the same."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is ScaledSiLU:
                setattr(module, name, ClosedFormSiLU(child.scale_factor))
            elif type(child) is nn.SiLU:
                setattr(module, name, ClosedFormSiLU())


def gated_softplus(x: Tensor) -> Tensor:
    """σ(f) softplus(s), of f and s side by side: (E, 2 D) to (E, D); twice differentiable."""
    return _GatedSoftplus.apply(x)


class _GatedSoftplus(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        gate, slope = x.sigmoid().chunk(2, dim=1)
        softplus = F.softplus(x.chunk(2, dim=1)[1])
        by_gate, by_core = softplus * torch.addcmul(gate, gate, gate, value=-1), gate * slope
        ctx.save_for_backward(x, gate, slope, by_gate, by_core)
        return gate * softplus

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _TimesSlopesOfGatedSoftplus.apply(grad, *ctx.saved_tensors)


class _TimesSlopesOfGatedSoftplus(Function):
    @staticmethod
    def forward(ctx, grad: Tensor, x: Tensor, gate: Tensor, slope: Tensor, by_gate: Tensor, by_core: Tensor) -> Tensor:
        ctx.save_for_backward(grad, gate, slope, by_gate, by_core)
        return torch.cat([grad * by_gate, grad * by_core], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, other: Tensor) -> tuple[Tensor | None, ...]:
        grad, gate, slope, by_gate, by_core = ctx.saved_tensors
        along_gate, along_core = (
            part * factor for part, factor in zip(other.chunk(2, 1), (by_gate, by_core), strict=True)
        )
        # with f for the gate's input and s for the core's, ∂²/∂f² = by_gate (1 − 2σ(f)), ∂²/∂f∂s = by_core (1 − σ(f)),
        # ∂²/∂s² = by_core (1 − σ(s))
        first, second = other.chunk(2, dim=1)
        mixed = by_core - by_core * gate
        of_gate = torch.addcmul(along_gate - 2 * along_gate * gate, second, mixed)
        of_core = torch.addcmul(along_core - along_core * slope, first, mixed)
        return along_gate + along_core, torch.cat([grad * of_gate, grad * of_core], dim=1), None, None, None, None
