"""Edges between atoms, with and without periodic images.

:func:`periodic_edges` are those of fairchem's search for images, which takes batches of one periodicity, with every
atom in its cell. On a CPU they are found by vesin, whose time grows with the atoms and not with their square; on a GPU
fairchem's search is asked so that it takes all. For molecules fairchem needs ``torch_cluster``, which needs a compiler
to install; :func:`molecule_edges` is plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch
from fairchem.core.common.utils import get_max_neighbors_mask, radius_graph_pbc
from fairchem.core.models.base import GraphData
from torch import Tensor
from vesin import NeighborList

from ocp_dc.errors import InputError

OUT_OF_REACH = 1.0
FLATTEST_CELL = 1e-6
# Å²
SAME_ATOM = 1e-4
# Å; of distances in float32
ROUNDING = 1e-3


@torch.no_grad()
def periodic_edges(
    pos: Tensor, cell: Tensor, pbc: Tensor, natoms: Tensor, cutoff: float, max_neighbors: int, strict: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Directed edges j → i between atoms of the same structure and their images, both directions of each pair.

    The image of j that an edge comes from is displaced by its offset n, in cells:

    .. math::
        r_{ij} = x_j - x_i + n_{ij} C, \qquad |r_{ij}| ≤ cutoff

    The edges are those of fairchem's ``radius_graph_pbc``, in its order, where that finds them all: in a batch of
    one periodicity, with every atom inside its cell. Here structures may differ in periodicity and atoms may be
    anywhere. As in fairchem, atoms nearer than 0.01 Å have no edge. Distances are compared in torch's default
    precision, whatever that of ``pos``.

    Args:
        pos: (N, 3) positions, Å.
        cell: (B, 3, 3), lattice vectors in rows, Å. Those along which a structure is not periodic may be zero.
        pbc: (B, 3), whether each structure is periodic along each lattice vector.
        natoms: (B,) atoms in each structure; ``natoms.sum() == N``.
        cutoff: Å.
        max_neighbors: at most this many edges per receiving atom, the nearest ones. Which of several as near are
            kept is arbitrary: where the limit cuts through a shell of neighbours, the edges of a crystal depend on the
            choice of its cell, and on rounding.
        strict: False keeps whole shells (fairchem's rule: of an atom with more neighbours than the limit, all whose
            squared distance is at most that of the first beyond it plus 0.01 Å²), for any choice of the cell.

    Returns:
        ``edge_index`` (2, E), rows j and i, ordered by i; ``cell_offsets`` (E, 3), whole numbers in float32; and
        ``neighbors`` (B,), the number of edges of each structure. A pair of atoms has as many edges as it has images
        within the cutoff, an atom too has edges to its own; offsets along a direction that is not periodic are 0.

    Raises:
        InputError: a lattice vector is zero along a periodic direction, or a cell has no volume.
    """
    natoms = natoms.to(pos.device)
    pbc = pbc.reshape(-1, 3).to(pos.device, torch.bool)
    cell = _complete(cell.reshape(-1, 3, 3).double(), pbc)
    structure = torch.arange(len(natoms), device=pos.device).repeat_interleave(natoms)

    fractional = torch.einsum("nx,nxd->nd", pos.double(), torch.linalg.inv(cell)[structure])
    shifts = fractional.floor() * pbc[structure]
    wrapped = pos.double() - torch.einsum("nd,ndx->nx", shifts, cell[structure])
    wrapped = wrapped.to(torch.get_default_dtype())

    search = _found_by_fairchem if pos.is_cuda else _found_by_vesin
    edge_index, offsets, neighbors = search(wrapped, cell, pbc, natoms, cutoff, max_neighbors, strict)
    sender, receiver = edge_index
    return edge_index, offsets + (shifts[receiver] - shifts[sender]).float(), neighbors


def _found_by_fairchem(
    pos: Tensor, cell: Tensor, pbc: Tensor, natoms: Tensor, cutoff: float, max_neighbors: int, strict: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The edges between atoms that are inside their cells (B, 3, 3), which have a volume."""
    structure = torch.arange(len(natoms), device=pos.device).repeat_interleave(natoms)
    reciprocal = torch.linalg.inv(cell)
    # where a structure is not periodic, its images are put out of reach
    fractional = torch.einsum("nx,nxd->nd", pos.double(), reciprocal[structure])
    per_structure = structure[:, None].expand(-1, 3)
    extent = torch.zeros_like(cell[:, 0]).scatter_reduce(0, per_structure, fractional, "amax", include_self=False)
    extent = extent - torch.zeros_like(extent).scatter_reduce(0, per_structure, fractional, "amin", include_self=False)
    stretch = (extent + (cutoff + OUT_OF_REACH) * reciprocal.norm(dim=1)).masked_fill(pbc, 1)
    search = SimpleNamespace(
        pos=pos, cell=(cell * stretch[:, :, None]).float(), pbc=pbc.any(dim=0).expand_as(pbc), natoms=natoms
    )
    return radius_graph_pbc(search, cutoff, max_neighbors, enforce_max_neighbors_strictly=strict)


def _found_by_vesin(
    pos: Tensor, cell: Tensor, pbc: Tensor, natoms: Tensor, cutoff: float, max_neighbors: int, strict: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same edges, in a time that grows with the atoms and not with their square."""
    edge_index, offsets, squared = _within_reach(pos, cell, pbc, natoms, cutoff)
    kept, neighbors = get_max_neighbors_mask(natoms, edge_index[1], squared, max_neighbors, enforce_max_strictly=strict)
    if bool(kept.all()):
        return edge_index, offsets, neighbors
    return edge_index[:, kept], offsets[kept], neighbors


def _within_reach(
    pos: Tensor, cell: Tensor, pbc: Tensor, natoms: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``edge_index``, ``cell_offsets`` and squared distances (E,), with fairchem's order, arithmetic and precision."""
    found, first = [], 0
    for own, own_cell, own_pbc in zip(pos.split(natoms.tolist()), cell, pbc, strict=True):
        # an atom that is nowhere has no edges, since no comparison with NaN holds
        somewhere = own.nan_to_num(posinf=0.0, neginf=0.0)
        receiver, sender, offsets = _candidates(somewhere, own_cell, own_pbc, cutoff + ROUNDING)
        displaced = own[sender] + (own_cell.float().T @ offsets.T).T
        squared = (own[receiver] - displaced).square().sum(dim=1)
        keep = (squared <= cutoff * cutoff) & (squared > SAME_ATOM)
        found.append((torch.stack([sender, receiver])[:, keep] + first, offsets[keep], squared[keep]))
        first += len(own)
    edges, offsets, squared = zip(*found, strict=True)
    return torch.cat(edges, dim=1), torch.cat(offsets), torch.cat(squared)


def _candidates(pos: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Receiver, sender and offset of each edge of a structure, sorted by them."""
    search = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    pairs, offsets = search.compute(pos.double().numpy(), cell.numpy(), pbc.numpy(), "PS")
    pairs, offsets = torch.from_numpy(pairs.astype(np.int64)), torch.from_numpy(offsets).long()
    reach = int(offsets.abs().max()) if len(offsets) else 0
    order = pairs[:, 0] * len(pos) + pairs[:, 1]
    for direction in range(3):
        order = order * (2 * reach + 1) + offsets[:, direction]
    order = order.argsort()
    return pairs[order, 0], pairs[order, 1], offsets[order].float()


def _complete(cell: Tensor, pbc: Tensor) -> Tensor:
    """``cell`` (B, 3, 3) with unit vectors, perpendicular to the others, in place of those that are zero."""
    cell = cell.clone()
    for direction in range(3):
        missing = ~cell[:, direction].any(dim=-1)
        if (missing & pbc[:, direction]).any():
            index = int((missing & pbc[:, direction]).nonzero()[0])
            raise InputError(
                f"structure {index} of the batch is periodic along lattice vector {direction + 1}, which is zero; give "
                "it a cell, or set its pbc to False there. For molecules, set model.use_pbc to False"
            )
        if missing.any():
            # the eigenvector of the smallest eigenvalue is perpendicular to all rows
            cell[missing, direction] = torch.linalg.eigh(cell.mT @ cell).eigenvectors[missing, :, 0]
    flatness = torch.linalg.det(cell).abs() / cell.norm(dim=-1).prod(dim=-1)
    if not (flatness > FLATTEST_CELL).all():
        index = int((~(flatness > FLATTEST_CELL)).nonzero()[0])
        raise InputError(f"the cell of structure {index} of the batch has no volume: {cell[index].tolist()}")
    return cell


def molecule_edges(
    pos: Tensor, natoms: Tensor, cutoff: float, max_neighbors: int, strict: bool = True
) -> tuple[Tensor, Tensor]:
    """Directed edges j → i between atoms of the same molecule, both directions of each pair.

    Args:
        pos: (N, 3) positions, Å.
        natoms: (B,) atoms in each molecule; ``natoms.sum() == N``.
        cutoff: Å.
        max_neighbors: at most this many edges per receiving atom, the nearest ones (fairchem's rule).
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


def one_of_each_pair(edge_index: Tensor, cell_offsets: Tensor | None = None) -> Tensor | None:
    """Which edges stand for the undirected pairs: of j → i with offset n and i → j with −n, the one with j < i.

    Args:
        edge_index: (2, E), rows j and i; no edge twice.
        cell_offsets: (E, 3), whole numbers; None where there are no images. Of an atom's edges to its own images,
            those stand whose first offset other than 0 is positive.

    Returns:
        (E / 2,) indices; None where an edge lacks its reverse, as ``max_neighbors`` and stored edges may have it.
    """
    first, ahead, behind = _ways(edge_index, cell_offsets)
    (pairs,) = first.nonzero(as_tuple=True)
    if 2 * len(pairs) != edge_index.shape[1]:
        return None
    return pairs if torch.equal(ahead[pairs].sort().values, behind[~first].sort().values) else None


def one_of_each_pair_or_lone(edge_index: Tensor, cell_offsets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As :func:`one_of_each_pair`, where an edge may lack its reverse: such an edge stands for itself.

    Returns:
        (P,) indices, and (P,) whether the edge's reverse is there too.
    """
    first, ahead, behind = _ways(edge_index, cell_offsets)
    pair, order = torch.where(first, ahead, behind).sort(stable=True)
    ends = torch.ones(len(pair) + 1, dtype=torch.bool, device=pair.device)
    ends[1:-1] = pair[1:] != pair[:-1]
    starts, ends = ends[:-1], ends[1:]
    return order[starts], ~ends[starts]


def _ways(edge_index: Tensor, cell_offsets: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Whether each edge is the first way of its pair; a number of it, and one of its reverse."""
    sender, receiver = edge_index
    edges = edge_index.shape[1]
    atoms = int(edge_index.max()) + 1 if edges else 0
    first, ahead, behind = sender < receiver, receiver * atoms + sender, sender * atoms + receiver
    if cell_offsets is not None:
        offsets = cell_offsets.long()
        base = 2 * int(offsets.abs().max()) + 1 if edges else 1
        # the sign of this number is that of the first offset other than 0
        image = (offsets[:, 0] * base + offsets[:, 1]) * base + offsets[:, 2]
        first = first | ((sender == receiver) & (image > 0))
        ahead, behind = ahead * base**3 + image, behind * base**3 - image
    return first, ahead, behind


@dataclass(frozen=True)
class FixedEdges:
    """All directed edges of B structures of A atoms each; they do not depend on positions.

    Attributes:
        edge_index: (2, B A (A − 1)), rows j and i, in the order of :func:`molecule_edges`.
        pairs: (B A (A − 1) / 2,), which of them have j < i.
        pair_index: ``edge_index`` of these.
    """

    edge_index: Tensor
    pairs: Tensor
    pair_index: Tensor


@lru_cache(maxsize=32)
def fixed_edge_table(structures: int, atoms: int, device: torch.device) -> FixedEdges:
    """Made once and shared: nobody may change them."""
    receiver, sender = torch.meshgrid(torch.arange(atoms), torch.arange(atoms), indexing="ij")
    of_one = torch.stack([sender, receiver])[:, sender != receiver]
    first_atoms = atoms * torch.arange(structures)
    edge_index = (of_one[:, None] + first_atoms[:, None]).flatten(1).to(device)
    (pairs,) = (edge_index[0] < edge_index[1]).nonzero(as_tuple=True)
    return FixedEdges(edge_index, pairs, edge_index[:, pairs])


@dataclass
class Graph(GraphData):
    """fairchem's, and which edges count.

    Attributes:
        within: (E,) 1 where a fixed edge is within the cutoff, else 0, in the precision of the distances and without
            gradient: what is summed over edges is multiplied by it. None where all edges count.
    """

    within: Tensor | None = None


class EdgesMixin:
    """Edges for the models; put it before fairchem's class.

    Without ``use_pbc`` they are :func:`molecule_edges`. With it they are :func:`periodic_edges` if ``otf_graph``, where
    data without ``pbc`` is periodic in all directions; if not, the data's own ``edge_index`` and ``cell_offsets``, as
    the converters store them. ``use_pbc_single`` builds periodic edges one structure at a time, to save memory.

    Energies and forces then depend neither on which image of an atom is given nor, while no atom has more than
    ``max_neighbors`` neighbours, on the choice of a crystal's cell. Beyond that the limit cuts strictly, as fairchem's;
    edges stored from ``periodic_edges`` with ``strict=False`` keep whole shells.

    Attributes:
        supports_fixed_edges: whether the model leaves out edges that are not ``within`` the cutoff, so that it gives
            the same under :meth:`fixed_edges`.
    """

    supports_fixed_edges: ClassVar[bool] = False
    _fixed: FixedEdges | None = None

    def choose_edges(
        self, cutoff: float, max_neighbors: int, use_pbc: bool, use_pbc_single: bool, otf_graph: bool
    ) -> None:
        """Sets what fairchem's own models keep of these settings."""
        self.cutoff, self.max_neighbors = cutoff, max_neighbors
        self.use_pbc, self.use_pbc_single, self.otf_graph = use_pbc, use_pbc_single, otf_graph

    @contextmanager
    def fixed_edges(self, data) -> Iterator[None]:
        """Within it, batches of as many conformations of the same molecule as ``data`` have all pairs as edges.

        Number and order of the edges then do not depend on the positions, and ``within`` says which of them count.

        Raises:
            InputError: :meth:`against_fixed_edges` or :meth:`against_fixed_edges_at` has a reason.
        """
        if reason := self.against_fixed_edges(data) or self.against_fixed_edges_at(data.pos, len(data.natoms)):
            raise InputError(f"the edges of this batch cannot be fixed: {reason}")
        structures = len(data.natoms)
        before = self._fixed
        self._fixed = fixed_edge_table(structures, len(data.pos) // structures, data.pos.device)
        try:
            yield
        finally:
            self._fixed = before

    def against_fixed_edges_at(self, pos: Tensor, structures: int) -> str | None:
        """Why edges cannot be fixed at these positions (N, 3) of so many structures; None if they can.

        Of a batch that has nothing :meth:`against_fixed_edges`.
        """
        return None

    def against_fixed_edges(self, data) -> str | None:
        """Why this batch's edges cannot be fixed, wherever its atoms are; None if they can."""
        if not self.supports_fixed_edges:
            return f"{type(self).__name__} has no fixed edges"
        if self.use_pbc:
            return "model.use_pbc is True"
        if not bool((data.natoms == data.natoms[0]).all()):
            return "its structures differ in their numbers of atoms"
        numbers = data.atomic_numbers.view(len(data.natoms), -1)
        if not bool((numbers == numbers[0]).all()):
            return "its structures differ in their atoms, or in the order of these"
        if numbers.shape[1] - 1 > self.max_neighbors:
            return f"an atom can have {numbers.shape[1] - 1} neighbours, more than max_neighbors, {self.max_neighbors}"
        return None

    def generate_graph(self, data) -> Graph:
        """The edges of a batch, with their vectors r_ij in the precision of ``data.pos``, differentiable by it.

        Raises:
            InputError: there are no edges in the data and ``otf_graph`` is False; or see :func:`periodic_edges`.
        """
        if self._fixed is not None:
            return self._fixed_graph(data, self._fixed.edge_index)
        return self._graph(data, *self._edges(data))

    def generate_pairs(self, data) -> tuple[Graph, bool]:
        """As :meth:`generate_graph`, of one edge for each undirected pair; and True.

        Where an edge lacks its reverse (:func:`one_of_each_pair`), of all edges; and False.
        """
        if self._fixed is not None:
            return self._fixed_graph(data, self._fixed.pair_index), True
        edge_index, cell_offsets = self._edges(data)
        pairs = one_of_each_pair(edge_index, cell_offsets)
        if pairs is None:
            return self._graph(data, edge_index, cell_offsets), False
        return self._graph(data, edge_index[:, pairs], None if cell_offsets is None else cell_offsets[pairs]), True

    def generate_one_way(self, data) -> tuple[Graph, Tensor | None]:
        """As :meth:`generate_pairs`, of one edge for each pair even where ``max_neighbors`` cuts.

        Returns:
            the graph; and (P,) 1 where an edge's reverse is an edge too, else 0, None where all are.
        """
        if self._fixed is not None:
            return self._fixed_graph(data, self._fixed.pair_index), None
        edge_index, cell_offsets = self._edges(data)
        kept, reverse = one_of_each_pair(edge_index, cell_offsets), None
        if kept is None:
            kept, reverse = one_of_each_pair_or_lone(edge_index, cell_offsets)
            reverse = reverse.to(data.pos.dtype)
        return self._graph(data, edge_index[:, kept], None if cell_offsets is None else cell_offsets[kept]), reverse

    def _fixed_graph(self, data, edge_index: Tensor) -> Graph:
        sender, receiver = edge_index
        vectors = data.pos.index_select(0, sender) - data.pos.index_select(0, receiver)
        nowhere = torch.zeros_like(vectors)
        return Graph(
            edge_index=edge_index,
            edge_distance=vectors.norm(dim=-1),
            edge_distance_vec=vectors,
            cell_offsets=nowhere,
            offset_distances=nowhere,
            neighbors=torch.full_like(data.natoms, edge_index.shape[1] // len(data.natoms)),
            node_offset=0,
            batch_full=data.batch,
            atomic_numbers_full=data.atomic_numbers.long(),
            within=(vectors.detach().square().sum(dim=-1) <= self.cutoff**2).to(vectors.dtype),
        )

    @staticmethod
    def _graph(data, edge_index: Tensor, cell_offsets: Tensor | None) -> Graph:
        sender, receiver = edge_index
        structure = data.batch[receiver]
        vectors = data.pos[sender] - data.pos[receiver]
        offsets = torch.zeros_like(vectors)
        if cell_offsets is not None:
            cell = data.cell.to(data.pos.dtype)
            offsets = (cell_offsets.to(cell.dtype)[:, None] @ cell[structure])[:, 0]
            vectors = vectors + offsets
        return Graph(
            edge_index=edge_index,
            edge_distance=vectors.norm(dim=-1),
            edge_distance_vec=vectors,
            cell_offsets=offsets if cell_offsets is None else cell_offsets,
            offset_distances=offsets,
            neighbors=structure.bincount(minlength=len(data.natoms)),
            node_offset=0,
            batch_full=data.batch,
            atomic_numbers_full=data.atomic_numbers.long(),
        )

    def _edges(self, data) -> tuple[Tensor, Tensor | None]:
        if not self.use_pbc:
            return molecule_edges(data.pos, data.natoms, self.cutoff, self.max_neighbors)[0], None
        if not self.otf_graph:
            if "edge_index" not in data or "cell_offsets" not in data:
                raise InputError(
                    "model.otf_graph is False, and the data has no edges (edge_index and cell_offsets): set "
                    "model.otf_graph to True, or convert the data with edges"
                )
            return data.edge_index, data.cell_offsets
        pbc = data.pbc.reshape(-1, 3) if "pbc" in data else torch.ones_like(data.cell[:, 0], dtype=torch.bool)
        build = _one_at_a_time if self.use_pbc_single else periodic_edges
        return build(data.pos, data.cell, pbc, data.natoms, self.cutoff, self.max_neighbors)[:2]


def _one_at_a_time(
    pos: Tensor, cell: Tensor, pbc: Tensor, natoms: Tensor, cutoff: float, max_neighbors: int
) -> tuple[Tensor, Tensor]:
    """``edge_index`` and ``cell_offsets`` of :func:`periodic_edges`, from a search in each structure."""
    edges, offsets, first = [], [], 0
    for k, of_atoms in enumerate(pos.split(natoms.tolist())):
        edge_index, cell_offsets, _ = periodic_edges(of_atoms, cell[[k]], pbc[[k]], natoms[[k]], cutoff, max_neighbors)
        edges.append(edge_index + first)
        offsets.append(cell_offsets)
        first += len(of_atoms)
    return torch.cat(edges, dim=1), torch.cat(offsets)
