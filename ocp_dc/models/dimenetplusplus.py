"""DimeNet++ (Gasteiger et al., 2020, arXiv:2011.14115) with the paper's activation, and forces that conserve energy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar

import torch
from fairchem.core.common.registry import registry
from fairchem.core.models.dimenet_plus_plus import DimeNetPlusPlusWrap, InteractionPPBlock, OutputPPBlock
from torch import Tensor
from torch.nn.functional import linear

from ocp_dc.edges import EdgesMixin, Graph, fixed_edge_table
from ocp_dc.models.bases import PolynomialEnvelope, SphericalBesselBasis, ZonalHarmonics
from ocp_dc.models.closed_form import use_closed_form_silu
from ocp_dc.models.forces import GradientForces
from ocp_dc.models.triplets import Slots
from ocp_dc.models.variants import MOLECULE_EDGES, Variant


@registry.register_model("dimenetplusplus_irelu")
class DimeNetPlusPlusIReLU(Variant, GradientForces, EdgesMixin, DimeNetPlusPlusWrap):
    r"""fairchem's ``dimenetplusplus`` with other activations (paper, Sec. 4.1) and, by default, conservative forces.

    fairchem takes the angles from detached positions: its "forces" leave out how the energy changes with the angles, so
    they are not the gradient of its energy, and a simulation with them does not conserve energy. Here ``conservative``
    chooses. It is True by default, since F = −∂E/∂x is what the labels obey and what the paper's argument for IReLU
    assumes; the paper's numbers, and fairchem's, need False. Energies do not depend on it.

    Angles enter through the zonal harmonics alone, which are polynomials in their cosine: evaluated on it, derivatives
    of any order exist where three atoms are in line. Sums over triplets are products of matrices, one an atom. Results
    equal fairchem's to rounding.

    It takes what every model takes (:mod:`ocp_dc.models`), and:

    Args:
        activation_scope: ``paper``, the output blocks only; ``all``, also the embedding and interaction blocks
            (unstable in the paper's trials, Sec. 5.1.1).
        conservative: whether forces are the full gradient of the energy.
        **settings: fairchem's: ``hidden_channels``, ``num_blocks``, ``int_emb_size``, ``basis_emb_size``,
            ``out_emb_channels``, ``num_spherical``, ``num_radial``, ``envelope_exponent``, ``num_before_skip``,
            ``num_after_skip``, ``num_output_layers``.
    """

    activation_sites: ClassVar = {"paper": "output_blocks.*", "all": None}
    defaults: ClassVar = MOLECULE_EDGES
    without_normalization: ClassVar = "DimeNet++"
    supports_fixed_edges: ClassVar = True

    def __init__(self, conservative: bool = True, **settings: Any) -> None:
        super().__init__(**settings)
        self.conservative = conservative
        use_closed_form_silu(self)
        self.envelope = PolynomialEnvelope(self.sbf.envelope.p, q=-1)
        self.harmonics = ZonalHarmonics(self.sbf.num_spherical)
        self.radial_functions = SphericalBesselBasis(self.sbf.num_spherical, self.sbf.num_radial, self.envelope)

    def _forward(self, data) -> Tensor:
        graph = self.generate_graph(data)
        triplets = self._triplets(graph)
        x = graph.edge_distance.unsqueeze(1) / self.cutoff
        rbf = self.envelope(x) * (self.rbf.freq * x).sin()
        filters = self._filters(x, self._cosines(graph, triplets), triplets)

        x = self._embed(graph, rbf)
        atom_energy = _output(self.output_blocks[0], x, rbf, triplets.incoming)
        for block, block_filters, output in zip(self.interaction_blocks, filters, self.output_blocks[1:], strict=True):
            x = _interact(block, x, rbf, block_filters, triplets)
            atom_energy = atom_energy + _output(output, x, rbf, triplets.incoming)

        return atom_energy.new_zeros(len(data.natoms), 1).index_add(0, graph.batch_full, atom_energy)

    @contextmanager
    def fixed_edges(self, data) -> Iterator[None]:
        with super().fixed_edges(data):
            # made now: a trace of the model is to find it made
            _fixed_triplets(len(data.natoms), len(data.pos) // len(data.natoms), data.pos.device)
            yield

    def _triplets(self, graph: Graph) -> Triplets:
        if graph.within is None:
            return Triplets(graph.edge_index, graph.cell_offsets if self.use_pbc else None, len(graph.batch_full))
        structures = len(graph.neighbors)
        return _fixed_triplets(structures, len(graph.batch_full) // structures, graph.edge_index.device)

    def _cosines(self, graph: Graph, triplets: Triplets) -> Tensor:
        """Of the angles between the edges k → j and j → i: (N, K, I)."""
        directions = graph.edge_distance_vec / graph.edge_distance.unsqueeze(1)
        if not self.conservative:
            directions = directions.detach()
        return triplets.incoming.spread(directions) @ triplets.outgoing.spread(directions).mT

    def _filters(self, x: Tensor, cosines: Tensor, triplets: Triplets) -> Tensor:
        """What each interaction block's first layer makes of the spherical basis: (blocks, N, I, K * basis_emb_size).

        The basis is a product of a function of the distance and one of the angle. The layer sums over the former's
        index for each edge, over the latter's for each triplet.
        """
        degrees, radials = self.sbf.num_spherical, self.sbf.num_radial
        weights = torch.stack([block.lin_sbf1.weight for block in self.interaction_blocks])
        blocks, width, _ = weights.shape
        weights = weights.view(blocks * width, degrees, radials).permute(1, 2, 0)
        of_edges = torch.bmm(self.radial_functions(x.unsqueeze(2)).transpose(0, 1), weights)
        of_edges = triplets.incoming.spread(of_edges.transpose(0, 1)).flatten(0, 1)

        harmonics = self.harmonics(cosines, triplets.mask(cosines.dtype))
        filters = torch.bmm(harmonics.flatten(0, 1), of_edges)
        atoms, incoming, outgoing = cosines.shape
        return filters.view(atoms, incoming, outgoing, blocks, width).permute(3, 0, 2, 1, 4).flatten(3)

    def _embed(self, graph: Graph, rbf: Tensor) -> Tensor:
        """fairchem's embedding block, with a part of its layer evaluated for each atom, not for each edge."""
        block, (sender, receiver) = self.emb, graph.edge_index
        of_receiver, of_sender, of_distance = block.lin.weight.chunk(3, dim=1)
        h = block.emb(graph.atomic_numbers_full)
        of_atoms = linear(h, of_receiver).index_select(0, receiver) + linear(h, of_sender).index_select(0, sender)
        return block.act(linear(block.act(block.lin_rbf(rbf)), of_distance, block.lin.bias) + of_atoms)


class Triplets:
    """Of a batch: k → j → i, but for those that come back to where they started.

    Attributes:
        incoming, outgoing: the edges k → j and j → i of each atom j, K and I slots an atom.
        kept: (N, K, I), whether they make a triplet.
    """

    def __init__(self, edge_index: Tensor, cell_offsets: Tensor | None, num_atoms: int) -> None:
        sender, receiver = edge_index
        self.incoming, self.outgoing = Slots(receiver, num_atoms), Slots(sender, num_atoms)
        first, last = sender[self.incoming.edges][:, :, None], receiver[self.outgoing.edges][:, None]
        elsewhere = first != last
        if cell_offsets is not None:
            first, last = cell_offsets[self.incoming.edges][:, :, None], cell_offsets[self.outgoing.edges][:, None]
            elsewhere = elsewhere | (first != -last).any(dim=-1)
        self.kept = elsewhere & self.incoming.filled[:, :, None] & self.outgoing.filled[:, None]

    def mask(self, dtype: torch.dtype) -> Tensor:
        return self.kept.to(dtype)


@lru_cache(maxsize=32)
def _fixed_triplets(structures: int, atoms: int, device: torch.device) -> Triplets:
    return Triplets(fixed_edge_table(structures, atoms, device).edge_index, None, structures * atoms)


def _interact(block: InteractionPPBlock, x: Tensor, rbf: Tensor, filters: Tensor, triplets: Triplets) -> Tensor:
    """fairchem's interaction block; ``filters`` (N, I, K * basis_emb_size)."""
    # two layers without activation between: the product of their weights is quicker
    incoming = block.act(block.lin_kj(x)) * linear(rbf, block.lin_rbf2.weight @ block.lin_rbf1.weight)
    incoming = triplets.incoming.spread(block.act(block.lin_down(incoming)))
    incoming = incoming.unsqueeze(2) * block.lin_sbf2.weight.T.contiguous()
    messages = torch.bmm(filters, incoming.flatten(1, 2))
    messages = block.act(block.lin_up(triplets.outgoing.collect(messages)))

    h = block.act(block.lin_ji(x)) + messages
    for layer in block.layers_before_skip:
        h = layer(h)
    h = block.act(block.lin(h)) + x
    for layer in block.layers_after_skip:
        h = layer(h)
    return h


def _output(block: OutputPPBlock, x: Tensor, rbf: Tensor, incoming: Slots) -> Tensor:
    """fairchem's output block."""
    x = block.lin_up(incoming.total(block.lin_rbf(rbf) * x))
    for lin in block.lins:
        x = block.act(lin(x))
    return block.lin(x)
