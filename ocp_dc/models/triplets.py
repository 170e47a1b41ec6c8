"""Triplets of atoms as dense blocks: the edges of each atom side by side, so that sums over neighbours are products."""

from __future__ import annotations

import torch
from torch import Tensor


class Slots:
    """A table of the edges of each atom: K slots an atom, as many as the atom with most edges has.

    Args:
        atoms: (E,), the atom at whose table each edge is entered, its receiver or its sender.
        num_atoms: N.

    Attributes:
        edges: (N, K), the edge in each slot; 0 in empty ones.
        filled: (N, K), whether there is one.
    """

    def __init__(self, atoms: Tensor, num_atoms: int) -> None:
        counts = atoms.bincount(minlength=num_atoms)
        self.width = int(counts.max())
        order = atoms.argsort(stable=True)
        owner = atoms[order]
        rank = torch.arange(len(atoms), device=atoms.device) - (counts.cumsum(0) - counts)[owner]
        slots = owner * self.width + rank
        self.slot = torch.empty_like(slots).index_copy_(0, order, slots)
        self.is_full = len(atoms) == num_atoms * self.width
        table = slots.new_full((num_atoms * self.width,), -1).index_copy_(0, slots, order).view(num_atoms, self.width)
        self.edges, self.filled = table.clamp(min=0), table >= 0

    def spread(self, x: Tensor) -> Tensor:
        """Of each edge, (E, ...), to the slots, (N, K, ...): zeros in empty ones."""
        if self.is_full:
            spread = x.index_select(0, self.edges.flatten())
        else:
            spread = x.new_zeros(self.edges.numel(), *x.shape[1:]).index_add(0, self.slot, x)
        return spread.unflatten(0, self.edges.shape)

    def collect(self, x: Tensor) -> Tensor:
        """Of each slot, (N, K, ...), to the edges, (E, ...)."""
        return x.flatten(0, 1).index_select(0, self.slot)
