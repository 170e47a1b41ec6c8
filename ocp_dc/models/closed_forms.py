"""Functions of networks whose second derivative, which a loss on forces takes, autograd builds of many operations.

Here first and second derivatives are in closed form. Values and derivatives are those of PyTorch's own, to rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_aten = torch.ops.aten


def silu(x: Tensor) -> Tensor:
    """x σ(x), of any shape; differentiable any number of times."""
    return _SiLU.apply(x)


class _SiLU(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.silu(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _TimesSlopeOfSiLU.apply(grad, *ctx.saved_tensors)


class _TimesSlopeOfSiLU(Function):
    @staticmethod
    def forward(ctx, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return _aten.silu_backward(grad, x)

    @staticmethod
    def backward(ctx, other: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        gate = x.sigmoid()
        # σ(1 − σ) (2 + x (1 − 2σ))
        curvature = torch.addcmul(gate, gate, gate, value=-1) * (torch.addcmul(x, x, gate, value=-2) + 2)
        return _TimesSlopeOfSiLU.apply(other, x), other * grad * curvature


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


class BatchNorm1d(nn.BatchNorm1d):
    """PyTorch's, of (n, C), running statistics included; in training mode twice differentiable."""

    def forward(self, x: Tensor) -> Tensor:
        own = not self.training or len(x) < 2 or self.running_mean is None or self.momentum is None
        if own:
            return super().forward(x)
        self.num_batches_tracked.add_(1)
        return _BatchNorm.apply(x, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps)


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, *statistics) -> Tensor:
        running_mean, running_var, momentum, ctx.eps = statistics
        out, mean, scale = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, ctx.eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_TimesSlopesOfBatchNorm.apply(grad, *ctx.saved_tensors, ctx.eps), None, None, None, None


class _TimesSlopesOfBatchNorm(Function):
    r"""With a = (x − mean) r, r = 1 / √(var + eps) and s = weight r, :math:`∂x = s (g − \bar g − a \overline{g a})`."""

    @staticmethod
    def forward(ctx, grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, eps: float):
        ctx.save_for_backward(grad, x, weight, mean, scale)
        ctx.set_materialize_grads(False)
        return _aten.native_batch_norm_backward(grad, x, weight, None, None, mean, scale, True, eps, [True, True, True])

    @staticmethod
    @once_differentiable
    def backward(ctx, other: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None) -> tuple:
        grad, x, weight, mean, scale = ctx.saved_tensors
        a = torch.addcmul(-mean * scale, x, scale)
        grad_mean, grad_a = grad.mean(dim=0), (grad * a).mean(dim=0)
        for_grad = for_x = for_weight = None
        if other is not None:
            other_mean, other_a = other.mean(dim=0), (other * a).mean(dim=0)
            product = (other * grad).mean(dim=0) - other_mean * grad_mean - other_a * grad_a
            s = weight * scale
            for_grad = torch.addcmul(-s * other_mean, other, s).addcmul_(a, -s * other_a)
            factor = -s * scale
            for_x = torch.addcmul(-factor * (grad_a * other_mean + other_a * grad_mean), other, factor * grad_a)
            for_x = for_x.addcmul_(grad, factor * other_a).addcmul_(a, factor * (product - 2 * grad_a * other_a))
            for_weight = len(x) * scale * product
        if of_weight is not None:
            along = a * of_weight
            for_grad = along if for_grad is None else for_grad + along
            through = of_weight * scale * (grad - grad_mean - a * grad_a)
            for_x = through if for_x is None else for_x + through
        if of_bias is not None:
            for_grad = of_bias.expand_as(grad) if for_grad is None else for_grad + of_bias
        return for_grad, for_x, for_weight, None, None, None
