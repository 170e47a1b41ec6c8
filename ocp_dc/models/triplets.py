"""Triplets of atoms as dense blocks: the edges of each atom side by side, so that sums over neighbours are products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function


class Slots:
    """A table of the edges of each atom: K slots an atom, as many as the atom with most edges has.

    Args:
        atoms: (E,), the atom at whose table each edge is entered, its receiver or its sender.
        num_atoms: N.

    Attributes:
        edges: (N, K), the edge in each slot; 0 in empty ones.
        filled: (N, K), whether there is one.
        slot: (E,), the slot of each edge, n K + k.
    """

    def __init__(self, atoms: Tensor, num_atoms: int) -> None:
        counts = atoms.bincount(minlength=num_atoms)
        width = int(counts.max())
        order = atoms.argsort(stable=True)
        owner = atoms[order]
        rank = torch.arange(len(atoms), device=atoms.device) - (counts.cumsum(0) - counts)[owner]
        slots = owner * width + rank
        table = slots.new_full((num_atoms * width,), -1).index_copy_(0, slots, order).view(num_atoms, width)
        self.edges, self.filled = table.clamp(min=0), table >= 0
        self.atoms = atoms
        self.slot = torch.empty_like(slots).index_copy_(0, order, slots)
        self.is_full = len(atoms) == num_atoms * width
        self.in_order = self.is_full and torch.equal(self.slot, slots)

    def spread(self, x: Tensor) -> Tensor:
        """Of each edge, (E, ...), to the slots, (N, K, ...): zeros in empty ones."""
        if self.in_order:
            spread = x
        elif self.is_full:
            spread = _Permuted.apply(x, self.edges.flatten(), self.slot)
        else:
            spread = x.new_zeros(self.edges.numel(), *x.shape[1:]).index_add(0, self.slot, x)
        return spread.unflatten(0, self.edges.shape)

    def collect(self, x: Tensor) -> Tensor:
        """Of each slot, (N, K, ...), to the edges, (E, ...)."""
        x = x.flatten(0, 1)
        if self.in_order:
            return x
        return _Permuted.apply(x, self.slot, self.edges.flatten()) if self.is_full else x.index_select(0, self.slot)

    def total(self, x: Tensor) -> Tensor:
        """The sum over the edges, (E, F), of each atom, (N, F)."""
        if self.in_order:
            return self.spread(x).sum(dim=1)
        return x.new_zeros(len(self.edges), x.shape[1]).index_add(0, self.atoms, x)


class _Permuted(Function):
    """``x.index_select(0, order)``, whose derivative is the inverse: quicker than sums over rows that may repeat."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return x.index_select(0, order)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ctx.order, ctx.inverse = inputs

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Permuted.apply(grad, ctx.inverse, ctx.order), None, None
