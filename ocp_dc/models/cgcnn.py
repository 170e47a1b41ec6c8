"""CGCNN (Xie & Grossman, 2018, arXiv:1710.10324), which fairchem no longer has, and its derivative-constrained form."""

from __future__ import annotations

from typing import ClassVar

import torch
from fairchem.core.common.registry import registry
from fairchem.core.datasets.embeddings import KHOT_EMBEDDINGS, QMOF_KHOT_EMBEDDINGS
from fairchem.core.models.base import GraphModelMixin
from torch import Tensor, nn
from torch_geometric.nn.models.schnet import GaussianSmearing

from ocp_dc.edges import EdgesMixin
from ocp_dc.errors import InputError
from ocp_dc.models.batch_norm import BatchNorm1d
from ocp_dc.models.closed_form import gated_softplus
from ocp_dc.models.forces import GradientForces
from ocp_dc.models.gaussians import gaussians
from ocp_dc.models.variants import Variant, check_choice

EMBEDDINGS = {"khot": KHOT_EMBEDDINGS, "qmof": QMOF_KHOT_EMBEDDINGS}


class CGCNNConv(nn.Module):
    r"""One crystal graph convolution (Xie & Grossman, Eq. 5, with OCP's normalizations).

    .. math::
        (f_{ij}, s_{ij}) = BatchNorm(W [x_i, x_j, e_{ij}] + b), \qquad
        x_i' = g(x_i + LayerNorm(\sum_j σ(f_{ij}) ⊙ g(s_{ij})))

    with g softplus, j the neighbours of i, and W ``lin1``.

    Args:
        node_dim: D, width of the node states.
        edge_dim: G, number of edge features.
    """

    def __init__(self, node_dim: int, edge_dim: int) -> None:
        super().__init__()
        self.inputs = [node_dim, node_dim, edge_dim]
        self.lin1 = nn.Linear(sum(self.inputs), 2 * node_dim)
        self.bn1 = BatchNorm1d(2 * node_dim)
        self.core_activation = nn.Softplus()
        self.ln1 = nn.LayerNorm(node_dim)
        self.residual_activation = nn.Softplus()
        nn.init.xavier_uniform_(self.lin1.weight)
        nn.init.zeros_(self.lin1.bias)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, within: Tensor | None = None) -> Tensor:
        """The next node states (N, D), from ``x`` (N, D).

        Args:
            edge_index: (2, E), rows j and i.
            edge_attr: (E, G), or (E / 2, G) where edges E / 2 and further have those of the first E / 2.
            within: (E, 1), 0 for edges that do not count; None where all do.
        """
        sender, receiver = edge_index
        # lin1 of the concatenated inputs, one input at a time: the products with x are then per atom, not per edge
        from_receiver, from_sender, from_edge = self.lin1.weight.split(self.inputs, dim=1)
        of_atoms = (x @ from_receiver.T).index_select(0, receiver) + (x @ from_sender.T).index_select(0, sender)
        of_edges = nn.functional.linear(edge_attr, from_edge, self.lin1.bias)
        if len(of_edges) < len(receiver):
            z = (of_atoms.unflatten(0, (2, -1)) + of_edges).flatten(0, 1)
        else:
            z = of_atoms + of_edges
        messages = self._gate(self.bn1(z))
        if within is not None:
            messages = messages * within
        received = torch.zeros_like(x).index_add(0, receiver, messages)
        return self.residual_activation(x + self.ln1(received))

    def _gate(self, z: Tensor) -> Tensor:
        if type(self.core_activation) is nn.Softplus:
            return gated_softplus(z)
        gate, core = z.chunk(2, dim=1)
        return gate.sigmoid() * self.core_activation(core)


@registry.register_model("cgcnn")
class CGCNN(GradientForces, EdgesMixin, nn.Module, GraphModelMixin):
    """CGCNN with the settings and the state-dict keys of OCP's ``cgcnn``, whose weights load strictly.

    Atoms are a k-hot code of their element and edges Gaussians of the distance; convolutions (:class:`CGCNNConv`), the
    mean over the atoms of a system, and a fully connected head (``conv_to_fc``, ``fcs``, ``fc_out``) give one energy
    per system. It does not grow with the system: two copies of a molecule have the energy of one. It jumps where a
    neighbour enters or leaves the cutoff. In training mode the batch normalizations mix the systems of a batch.

    It takes what every model takes (:mod:`ocp_dc.models`), and:

    Args:
        atom_embedding_size: width of the node states.
        num_graph_conv_layers: number of convolutions.
        fc_feat_size: width of the head.
        num_fc_layers: hidden layers of the head, ``conv_to_fc`` included; at least 1.
        num_gaussians: edge features.
        embeddings: fairchem's table of element codes, ``khot`` (H to Fm) or ``qmof`` (H to Lr).

    Raises:
        InputError: an unknown ``embeddings``, or ``num_fc_layers`` below 1.
    """

    supports_fixed_edges: ClassVar = True

    def __init__(
        self,
        atom_embedding_size: int = 64,
        num_graph_conv_layers: int = 6,
        fc_feat_size: int = 128,
        num_fc_layers: int = 4,
        num_gaussians: int = 50,
        cutoff: float = 6.0,
        embeddings: str = "khot",
        use_pbc: bool = True,
        use_pbc_single: bool = False,
        otf_graph: bool = False,
        max_neighbors: int = 50,
        regress_forces: bool = True,
    ) -> None:
        super().__init__()
        check_choice("CGCNN", "embeddings", embeddings, EMBEDDINGS)
        if num_fc_layers < 1:
            raise InputError(f"model.num_fc_layers is {num_fc_layers}; CGCNN needs at least 1 (conv_to_fc)")
        self.choose_edges(cutoff, max_neighbors, use_pbc, use_pbc_single, otf_graph)
        self.regress_forces = regress_forces

        table = EMBEDDINGS[embeddings]
        codes = torch.tensor([table[number] for number in sorted(table)], dtype=torch.get_default_dtype())
        self.register_buffer("embedding", codes, persistent=False)
        self.embedding_fc = nn.Linear(codes.shape[1], atom_embedding_size)
        self.distance_expansion = GaussianSmearing(0.0, cutoff, num_gaussians)
        self.convs = nn.ModuleList(CGCNNConv(atom_embedding_size, num_gaussians) for _ in range(num_graph_conv_layers))
        self.conv_to_fc = nn.Sequential(nn.Linear(atom_embedding_size, fc_feat_size), nn.Softplus())
        hidden = [(nn.Linear(fc_feat_size, fc_feat_size), nn.Softplus()) for _ in range(num_fc_layers - 1)]
        self.fcs = nn.Sequential(*(layer for pair in hidden for layer in pair))
        self.fc_out = nn.Linear(fc_feat_size, 1)

    def _forward(self, data) -> Tensor:
        graph, paired = self.generate_pairs(data)
        edge_index, within = graph.edge_index, graph.within
        if paired:
            # both directions of a pair are as long
            edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        if within is not None:
            within = torch.cat([within, within]).unsqueeze(1)
        edge_attr = gaussians(graph.edge_distance, self.distance_expansion.offset, self.distance_expansion.coeff)

        x = self.embedding_fc(self.embedding.index_select(0, graph.atomic_numbers_full - 1))
        for conv in self.convs:
            x = conv(x, edge_index, edge_attr, within)

        total = x.new_zeros(len(data.natoms), x.shape[1]).index_add(0, graph.batch_full, x)
        mean = total / data.natoms.unsqueeze(1)
        return self.fc_out(self.fcs(self.conv_to_fc(mean)))

    def against_fixed_edges_at(self, pos: Tensor, structures: int) -> str | None:
        if not any(isinstance(module, nn.BatchNorm1d) for module in self.modules()):
            return None
        if _farthest(pos.detach().view(structures, -1, 3)) <= self.cutoff**2:
            return None
        return (
            f"batch normalization is over edges, and two atoms are farther apart than model.cutoff, {self.cutoff} Å; "
            "model.denormalize batch removes it"
        )


def _farthest(pos: Tensor) -> Tensor:
    """The largest squared distance of two atoms in a structure, of (B, A, 3)."""
    return (pos[:, :, None] - pos[:, None]).square().sum(dim=-1).max()


def _in_head(path: str) -> bool:
    return not path.startswith("convs.")


@registry.register_model("cgcnn_irelu")
class CGCNNIReLU(Variant, CGCNN):
    """``cgcnn`` with its softplus replaced by an integrated one and, on request, less normalization (paper, Sec. 4).

    It takes what :class:`CGCNN` and every model takes (:mod:`ocp_dc.models`), and:

    Args:
        activation_scope: ``paper``, the head (``conv_to_fc`` and ``fcs``); ``all``, also both softplus of each
            convolution. Its sigmoid gate stays in both.
        denormalize: ``none``; ``batch`` removes the BatchNorm of each convolution, as in the paper's published runs;
            ``all`` removes its LayerNorm too, as the paper's text says.
    """

    activation_sites: ClassVar = {"paper": _in_head, "all": None}
