"""Functions of one variable with their first two derivatives in closed form.

Forces are derivatives of the energy, and training on them differentiates once more. Autograd then differentiates each
operation of a function twice; here value and slope are evaluated together, once, and the curvature where it is needed.
"""

from __future__ import annotations

import torch
from fairchem.core.models.gemnet.layers.base_layers import ScaledSiLU
from torch import Tensor, nn
from torch.autograd import Function


class ClosedForm(nn.Module):
    """A function whose subclass gives :meth:`value_and_slope` and :meth:`curvature`; derivatives of any order exist."""

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and f'(x), each of a shape that ``x`` broadcasts to."""
        raise NotImplementedError

    def curvature(self, x: Tensor) -> Tensor:
        """f''(x), of differentiable operations."""
        raise NotImplementedError

    @torch.compiler.disable  # it cannot trace a Function that takes functions: a compiled model breaks its graph here
    def forward(self, x: Tensor) -> Tensor:
        return _ValueAndSlope.apply(x, self)[0]


class _ValueAndSlope(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, function: ClosedForm) -> tuple[Tensor, Tensor]:
        return function.value_and_slope(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.function = inputs
        ctx.save_for_backward(x, output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad: Tensor | None, grad_of_slope: Tensor | None):
        x, slope = ctx.saved_tensors
        by_x = None if grad is None else grad * slope
        if grad_of_slope is not None:
            second = grad_of_slope * ctx.function.curvature(x)
            by_x = second if by_x is None else by_x + second
        return None if by_x is None else by_x.sum_to_size(x.shape), None


class ClosedFormSiLU(ClosedForm, nn.SiLU):
    """``scale`` · x σ(x); any shape."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sigmoid = x.sigmoid()
        scaled = self._scaled(sigmoid)
        return x * scaled, torch.addcmul(scaled, x, torch.addcmul(scaled, scaled, sigmoid, value=-1))

    def curvature(self, x: Tensor) -> Tensor:
        # scale · σ (1 − σ) (2 + x (1 − 2σ))
        sigmoid = x.sigmoid()
        scaled = self._scaled(sigmoid)
        return torch.addcmul(scaled, scaled, sigmoid, value=-1) * (torch.addcmul(x, x, sigmoid, value=-2) + 2)

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.scale == 1 else x * self.scale

    def extra_repr(self) -> str:
        return "" if self.scale == 1 else f"scale={self.scale}"


def use_closed_form_silu(model: nn.Module) -> None:
    """Put it in the place of each ``nn.SiLU`` and of each of GemNet's ``ScaledSiLU``; the function stays the same."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is ScaledSiLU:
                setattr(module, name, ClosedFormSiLU(child.scale_factor))
            elif type(child) is nn.SiLU:
                setattr(module, name, ClosedFormSiLU())
