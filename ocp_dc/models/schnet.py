"""SchNet (Schütt et al., 2017) with the paper's activation."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from fairchem.core.common.registry import registry
from fairchem.core.models.schnet import SchNetWrap
from torch import Tensor

from ocp_dc.activations import ORIGINAL
from ocp_dc.edges import EdgesMixin, Graph
from ocp_dc.models.forces import GradientForces
from ocp_dc.models.gaussians import gaussians
from ocp_dc.models.variants import MOLECULE_EDGES, Variant
from ocp_dc.transforms import replace_activations


@registry.register_model("schnet_irelu")
class SchNetIReLU(Variant, GradientForces, EdgesMixin, SchNetWrap):
    """fairchem's ``schnet`` with its shifted softplus replaced by an integrated activation (paper, Sec. 4.1).

    The sites are the filter networks, the interaction blocks and the output block: the same for both values of
    ``activation_scope``.

    It takes what every model takes (:mod:`ocp_dc.models`), and fairchem's ``hidden_channels``, ``num_filters``,
    ``num_interactions``, ``num_gaussians`` and ``readout`` (``sum`` or ``mean``).
    """

    activation_sites: ClassVar = {"paper": None, "all": None}
    defaults: ClassVar = MOLECULE_EDGES
    without_normalization: ClassVar = "SchNet"
    supports_fixed_edges: ClassVar = True

    def __init__(self, activation: str = "irelu", **settings: Any) -> None:
        super().__init__(activation=activation, **settings)
        if activation == ORIGINAL:
            # the same function, of which second derivatives take fewer operations
            replace_activations(self, "shifted_softplus")

    def _forward(self, data) -> Tensor:
        graph, reverse = self.generate_one_way(data)
        h = self.embedding.weight.index_select(0, graph.atomic_numbers_full)
        h = self._interact(h, graph, reverse)
        atom_energy = self.lin2(self.act(self.lin1(h))).squeeze(1)

        energy = atom_energy.new_zeros(len(data.natoms))
        return energy.scatter_reduce(0, graph.batch_full, atom_energy, self.reduce, include_self=False).unsqueeze(1)

    def _interact(self, h: Tensor, graph: Graph, reverse: Tensor | None) -> Tensor:
        """What the interaction blocks do, with one evaluation of the filter networks for both directions of a pair.

        Args:
            h: (N, H).
            graph: of one edge for each pair.
            reverse: (P,) 1 where its reverse counts too, else 0; None where all do.
        """
        first, second = graph.edge_index
        expansion = gaussians(graph.edge_distance, self.distance_expansion.offset, self.distance_expansion.coeff)
        envelope = 0.5 * (torch.cos(graph.edge_distance * (math.pi / self.cutoff)) + 1)
        if graph.within is not None:
            envelope = envelope * graph.within
        envelope = envelope.unsqueeze(1)
        reverse = None if reverse is None else reverse.unsqueeze(1)
        for block in self.interactions:
            filters = block.mlp(expansion) * envelope
            x = block.conv.lin1(h)
            received = torch.zeros_like(x).index_add(0, second, x.index_select(0, first) * filters)
            if reverse is not None:
                filters = filters * reverse
            received = received.index_add(0, first, x.index_select(0, second) * filters)
            h = h + block.lin(block.act(block.conv.lin2(received)))
        return h
