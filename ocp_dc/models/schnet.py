"""SchNet (Schütt et al., 2017) with the paper's activation."""

from __future__ import annotations

from typing import ClassVar

from fairchem.core.common.registry import registry
from fairchem.core.models.schnet import SchNetWrap
from torch import Tensor

from ocp_dc.edges import EdgesMixin
from ocp_dc.models.forces import GradientForces
from ocp_dc.models.variants import replace_model_activations


@registry.register_model("schnet_irelu")
class SchNetIReLU(GradientForces, EdgesMixin, SchNetWrap):
    """The host's ``schnet`` with its shifted softplus replaced by an integrated activation (paper, Sec. 4.1).

    The sites are the filter networks, the interaction blocks and the output block: the same for both values of
    ``activation_scope``. With ``activation: original`` and the same weights, energies, forces and parameter gradients
    are those of the host's ``schnet``.

    Args:
        activation: a name of :func:`ocp_dc.activations.known_activations`, or ``original`` to keep shifted softplus.
        activation_scope: ``paper`` or ``all``.
        use_pbc: edges to periodic images, in the directions in which each structure has ``pbc``; or none (the default).
        otf_graph: build edges at every step rather than read them from the data; without images they always are.
        **settings: the host's: ``hidden_channels``, ``num_filters``, ``num_interactions``, ``num_gaussians``,
            ``cutoff`` (Å), ``readout`` (``sum`` or ``mean``), ``regress_forces``, ``use_pbc_single``.

    Shapes:
        in: a batch with ``pos`` (N, 3) Å, ``atomic_numbers`` (N,), ``batch`` (N,), ``natoms`` (B,), and if
        periodic ``cell`` (B, 3, 3) and ``pbc`` (B, 3); out: ``energy`` (B, 1) and ``forces`` (N, 3) = −∂(ΣE)/∂pos.
    """

    activation_sites: ClassVar = {"paper": None, "all": None}

    def __init__(
        self,
        activation: str = "irelu",
        activation_scope: str = "paper",
        use_pbc: bool = False,
        use_pbc_single: bool = False,
        regress_forces: bool = True,
        otf_graph: bool = True,
        hidden_channels: int = 128,
        num_filters: int = 128,
        num_interactions: int = 6,
        num_gaussians: int = 50,
        cutoff: float = 10.0,
        readout: str = "sum",
    ) -> None:
        super().__init__(
            use_pbc=use_pbc,
            use_pbc_single=use_pbc_single,
            regress_forces=regress_forces,
            otf_graph=otf_graph,
            hidden_channels=hidden_channels,
            num_filters=num_filters,
            num_interactions=num_interactions,
            num_gaussians=num_gaussians,
            cutoff=cutoff,
            readout=readout,
        )
        self.replaced_activations = replace_model_activations(self, activation, activation_scope)

    def _forward(self, data) -> Tensor:
        graph = self.generate_graph(data)
        edge_attr = self.distance_expansion(graph.edge_distance)

        h = self.embedding(graph.atomic_numbers_full)
        for interaction in self.interactions:
            h = h + interaction(h, graph.edge_index, graph.edge_distance, edge_attr)
        atom_energy = self.lin2(self.act(self.lin1(h)))

        energy = atom_energy.new_zeros(len(data.natoms))
        return energy.scatter_reduce(0, graph.batch_full, atom_energy[:, 0], self.reduce, include_self=False)[:, None]
