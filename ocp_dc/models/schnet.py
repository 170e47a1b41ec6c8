"""SchNet (Schütt et al., 2017) with the paper's activation."""

from __future__ import annotations

from typing import ClassVar

from fairchem.core.common.registry import registry
from fairchem.core.models.schnet import SchNetWrap
from torch import Tensor

from ocp_dc.edges import EdgesMixin
from ocp_dc.models.forces import GradientForces
from ocp_dc.models.variants import MOLECULE_EDGES, Variant


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

    def _forward(self, data) -> Tensor:
        graph = self.generate_graph(data)
        edge_attr = self.distance_expansion(graph.edge_distance)

        h = self.embedding(graph.atomic_numbers_full)
        for interaction in self.interactions:
            h = h + interaction(h, graph.edge_index, graph.edge_distance, edge_attr)
        atom_energy = self.lin2(self.act(self.lin1(h)))

        energy = atom_energy.new_zeros(len(data.natoms))
        return energy.scatter_reduce(0, graph.batch_full, atom_energy[:, 0], self.reduce, include_self=False)[:, None]
