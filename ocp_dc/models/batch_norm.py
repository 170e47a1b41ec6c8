"""Batch normalization whose second derivative, which a loss on forces takes, is in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_aten = torch.ops.aten


class BatchNorm1d(nn.BatchNorm1d):
    """PyTorch's, of (n, C), running statistics included; in training mode twice differentiable."""

    _apart: ClassVar[list[Seen] | None] = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or len(x) < 2 or not self.has_running_averages:
            return super().forward(x)
        statistics = self.running_mean, self.running_var, self.momentum
        if self._apart is None:
            self.num_batches_tracked.add_(1)
            return _BatchNorm.apply(x, self.weight, self.bias, *statistics, self.eps)[0]
        out, mean, scale = _BatchNorm.apply(x, self.weight, self.bias, None, None, self.momentum, self.eps)
        variance = (scale.square().reciprocal() - self.eps) * (len(x) / (len(x) - 1))
        self._apart.append(Seen(self, mean.detach(), variance.detach()))
        return out

    @property
    def has_running_averages(self) -> bool:
        """Whether its statistics are exponential averages over batches, as by default."""
        return self.running_mean is not None and self.momentum is not None


class Seen(NamedTuple):
    """What a batch normalization saw: ``mean`` (C,) and ``variance`` (C,), which is that of a sample."""

    norm: BatchNorm1d
    mean: Tensor
    variance: Tensor

    @torch.no_grad()
    def keep(self) -> None:
        """In the running statistics."""
        self.norm.num_batches_tracked.add_(1)
        self.norm.running_mean.lerp_(self.mean, self.norm.momentum)
        self.norm.running_var.lerp_(self.variance, self.norm.momentum)


@contextmanager
def statistics_apart() -> Iterator[list[Seen]]:
    """Within it, running averages of :class:`BatchNorm1d` stay as they are: what they would take is in the list."""
    BatchNorm1d._apart = seen = []
    try:
        yield seen
    finally:
        BatchNorm1d._apart = None


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, *statistics) -> tuple[Tensor, Tensor, Tensor]:
        running_mean, running_var, momentum, ctx.eps = statistics
        out, mean, scale = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, ctx.eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, scale)
        return out, mean, scale

    @staticmethod
    def backward(ctx, grad: Tensor, *_) -> tuple[Tensor | None, ...]:
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
