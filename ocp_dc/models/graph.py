"""Edges of molecules without periodic images, in plain PyTorch.

The host builds such edges with ``torch_cluster``, which needs a compiler to install; for periodic ones it has its own
code, used here unchanged.
"""

from __future__ import annotations

import torch
from fairchem.core.common.utils import get_max_neighbors_mask
from fairchem.core.models.base import GraphData
from torch import Tensor


def molecule_edges(
    pos: Tensor, natoms: Tensor, cutoff: float, max_neighbors: int, strict: bool = True
) -> tuple[Tensor, Tensor]:
    """Directed edges j → i between atoms of the same molecule, both directions of each pair.

    Args:
        pos: (N, 3) positions, Å.
        natoms: (B,) atoms in each molecule; ``natoms.sum() == N``.
        cutoff: Å.
        max_neighbors: at most this many edges per receiving atom, the nearest ones (the host's rule).
        strict: False keeps, beyond the limit, neighbours as near as the last one kept.

    Returns:
        ``edge_index`` (2, E), rows j and i, ordered by i, and ``neighbors`` (B,), the number of edges of each molecule.
    """
    natoms = natoms.to(pos.device)
    first_atom = natoms.cumsum(0) - natoms
    partners = natoms.repeat_interleave(natoms)
    receiver = torch.arange(len(pos), device=pos.device).repeat_interleave(partners)
    first_pair = partners.cumsum(0) - partners
    rank = torch.arange(len(receiver), device=pos.device) - first_pair.repeat_interleave(partners)
    sender = first_atom.repeat_interleave(natoms).repeat_interleave(partners) + rank

    with torch.no_grad():
        squared = (pos[sender] - pos[receiver]).square().sum(dim=-1)
        keep = (squared <= cutoff * cutoff) & (sender != receiver)
        sender, receiver, squared = sender[keep], receiver[keep], squared[keep]
        mask, neighbors = get_max_neighbors_mask(
            natoms=natoms,
            index=receiver,
            atom_distance=squared.float(),
            max_num_neighbors_threshold=max_neighbors,
            enforce_max_strictly=strict,
        )
    if not bool(mask.all()):
        sender, receiver = sender[mask], receiver[mask]
    return torch.stack([sender, receiver]), neighbors


class MoleculeGraphMixin:
    """For the host's models: ``use_pbc: false`` works without torch_cluster. Put it before the host's class."""

    def generate_graph(self, data, cutoff=None, max_neighbors=None, use_pbc=None, **kwargs) -> GraphData:
        """The host's ``generate_graph`` where images are periodic, otherwise :func:`molecule_edges`."""
        if use_pbc or self.use_pbc:
            return super().generate_graph(data, cutoff, max_neighbors, use_pbc, **kwargs)

        edge_index, neighbors = molecule_edges(
            data.pos,
            data.natoms,
            cutoff or self.cutoff,
            max_neighbors or self.max_neighbors,
            strict=getattr(self, "enforce_max_neighbors_strictly", True),
        )
        sender, receiver = edge_index
        vectors = data.pos[sender] - data.pos[receiver]
        no_offsets = torch.zeros_like(vectors)
        return GraphData(
            edge_index=edge_index,
            edge_distance=vectors.norm(dim=-1),
            edge_distance_vec=vectors,
            cell_offsets=no_offsets,
            offset_distances=no_offsets,
            neighbors=neighbors,
            node_offset=0,
            batch_full=data.batch,
            atomic_numbers_full=data.atomic_numbers.long(),
        )
