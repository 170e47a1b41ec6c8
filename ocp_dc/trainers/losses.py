"""fairchem's losses, as they are."""

from __future__ import annotations

from fairchem.core.modules.loss import DDPLoss
from torch import Tensor


class Loss(DDPLoss):
    """fairchem's, which would take predictions that are not finite for zeros: this trainer stops there."""

    def forward(self, input: Tensor, target: Tensor, natoms: Tensor) -> Tensor:
        """A number: of ``input`` and ``target``, of the same shape, and ``natoms`` (B,)."""
        if input.shape != target.shape:
            raise ValueError(f"predictions {tuple(input.shape)} for labels {tuple(target.shape)}")
        return self._reduction(input, self.loss_fn(input, target, natoms), natoms)
