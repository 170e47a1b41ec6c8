"""ForceNet (Hu et al., 2021, arXiv:2103.01436), which fairchem no longer has, and its derivative-constrained form."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import conditional_grad
from fairchem.core.datasets.embeddings import ATOMIC_RADII, CONTINUOUS_EMBEDDINGS
from fairchem.core.models.base import GraphModelMixin
from fairchem.core.models.utils.activations import Act
from fairchem.core.models.utils.basis import Basis
from torch import Tensor, nn

from ocp_dc import activations
from ocp_dc.edges import EdgesMixin, Graph
from ocp_dc.errors import InputError
from ocp_dc.models.batch_norm import BatchNorm1d
from ocp_dc.models.closed_form import SILU
from ocp_dc.models.forcenet_basis import DifferentiableSphericalSmearing, ReversibleGaussians
from ocp_dc.models.forces import negative_gradient
from ocp_dc.models.variants import Variant, check_choice
from ocp_dc.transforms import ReplacedSite

ABLATIONS = ("none", "nofilter", "nocond", "nodistlist", "onlydist", "nodelinear", "edgelinear", "noself")
SPHERICAL_BASES = {
    f"sph{option}{combination}": option
    for option in ("all", "sine", "cosine")
    for combination in ("cat", "mul", "m40", "nosine")
}
BASES = ("powersine", "powercosine", "fouriersine", "gauss", "linact", "raw", "rawcat", *SPHERICAL_BASES)
SMALLEST_DISTANCE = 1e-3
NUM_ELEMENTS = 101


class Activation(Act):
    """fairchem's, with the derivatives of its swish in closed form."""

    def forward(self, x: Tensor) -> Tensor:
        return SILU(x) if self.act == "swish" else super().forward(x)


class InteractionBlock(nn.Module):
    r"""One message passing step (Hu et al., Sec. 3.2).

    .. math::
        m_i = c ⊙ W h_i + \sum_j w_{ij} \, F(e_{ij}, h_j, h_i) ⊙ W h_j, \qquad out_i = G(m_i)

    with W ``lin``, F ``mlp_edge`` on the concatenation of ``lin_basis(e_ij)``, h_j and h_i, c ``center_W``, and G
    ``mlp_trans``; ablations leave parts of it out (see :class:`ForceNet`).

    Args:
        hidden_channels: H.
        edge_channels: D, the dimension of the edges' basis functions.
        basis: ``rawcat`` has no ``lin_basis``.
        depth_mlp_edge: activations in F; 0 makes it linear, with a BatchNorm.
        depth_mlp_node: activations in G; 0 makes it linear, with a BatchNorm.
        activation_str: a name of fairchem's ``Act``.
        ablation: one of ``ABLATIONS``.
    """

    def __init__(
        self,
        hidden_channels: int,
        edge_channels: int,
        basis: str,
        depth_mlp_edge: int,
        depth_mlp_node: int,
        activation_str: str,
        ablation: str,
    ) -> None:
        super().__init__()
        self.ablation = ablation
        self.lin_basis = None if basis == "rawcat" else nn.Linear(edge_channels, hidden_channels)
        self.edge_inputs = [edge_channels if basis == "rawcat" else hidden_channels]
        if ablation != "nocond":
            self.edge_inputs += [hidden_channels, hidden_channels]

        edge_layers = [nn.Linear(sum(self.edge_inputs), hidden_channels)]
        for _ in range(depth_mlp_edge):
            edge_layers += [Activation(activation_str), nn.Linear(hidden_channels, hidden_channels)]
        self.mlp_edge = nn.Sequential(*edge_layers, *_norm_if(depth_mlp_edge == 0, hidden_channels))

        self.lin = None if ablation == "nofilter" else nn.Linear(hidden_channels, hidden_channels)

        node_layers = [nn.Linear(hidden_channels, hidden_channels)]
        for _ in range(depth_mlp_node):
            node_layers += [
                BatchNorm1d(hidden_channels),
                Activation(activation_str),
                nn.Linear(hidden_channels, hidden_channels),
            ]
        self.mlp_trans = nn.Sequential(*node_layers, *_norm_if(depth_mlp_node == 0, hidden_channels))

        _reset_linear_layers(self)
        self.center_W = None
        if ablation != "noself":
            self.center_W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, hidden_channels)))

    def first_edge_layer(self) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The first layer of F, one input at a time: what it does to edges is apart, and products with h are per atom.

        Returns:
            the factor (D, H) of an edge's basis functions, into which ``lin_basis``, which nothing separates from that
            layer, is multiplied; the constant (H,); and the factors (H, H) of h_j and h_i, unless they are left out.
        """
        layer = self.mlp_edge[0]
        of_edges, *of_atoms = (weight.T for weight in layer.weight.split(self.edge_inputs, dim=1))
        if self.lin_basis is None:
            return of_edges, layer.bias, (*of_atoms,)
        return self.lin_basis.weight.T @ of_edges, layer.bias + self.lin_basis.bias @ of_edges, (*of_atoms,)

    def forward(
        self, h: Tensor, edge_index: Tensor, of_edges: Tensor, of_atoms: tuple[Tensor, ...], edge_weight: Tensor
    ) -> Tensor:
        """The update (N, H) of node states ``h`` (N, H).

        Args:
            edge_index: (2, E), rows sender j and receiver i.
            of_edges: (E, H), the first layer of F as far as it is of the edges alone.
            of_atoms: its factors of h_j and h_i.
            edge_weight: (E, 1) w.
        """
        sender, receiver = edge_index
        for atoms, factor in zip(edge_index, of_atoms, strict=False):
            of_edges = of_edges + (h @ factor).index_select(0, atoms)
        filters = self.mlp_edge[1:](of_edges) * edge_weight
        if self.ablation == "nofilter":
            return self.mlp_trans(self.center_W.expand_as(h).index_add(0, receiver, filters))
        h = self.lin(h)
        own = torch.zeros_like(h) if self.center_W is None else self.center_W * h
        return self.mlp_trans(own.index_add(0, receiver, h.index_select(0, sender) * filters))


class ForceDecoder(nn.Module):
    """Forces directly from the node states (Hu et al., Sec. 3.3), without an energy they derive from.

    Args:
        decoder_type: ``mlp`` (one hidden layer, with BatchNorm) or ``linear``.
        decoder_activation_str: a name of fairchem's ``Act``.
        channels: of the node states.

    Shapes:
        in: (N, ``channels``); out: (N, 3).
    """

    def __init__(self, decoder_type: str, decoder_activation_str: str, channels: int) -> None:
        super().__init__()
        check_choice("ForceNet", "decoder_type", decoder_type, ("mlp", "linear"))
        hidden = []
        if decoder_type == "mlp":
            hidden = [nn.Linear(channels, channels), BatchNorm1d(channels), Activation(decoder_activation_str)]
        self.decoder = nn.Sequential(*hidden, nn.Linear(channels, 3))
        _reset_linear_layers(self)

    def forward(self, h: Tensor) -> Tensor:
        return self.decoder(h)


@registry.register_model("forcenet")
class ForceNet(EdgesMixin, nn.Module, GraphModelMixin):
    r"""ForceNet with the settings and the state-dict keys of OCP's ``forcenet``, whose weights load strictly.

    Edges carry the unit vector to the neighbour and the distance, as such and less one or both atomic radii, in units
    of the cutoff, expanded in a basis; their messages fade as :math:`\cos(π d / 2 r_{cut})`. The energy is linear in
    the sum over the atoms of their final states, :math:`E = w · \sum_i σ(L h_i) + b`.

    The model sees absolute directions: it is invariant to translation and to the order of atoms, NOT to rotation, and
    relies on rotated training data. Gradients are continuous except where a neighbour enters or leaves the cutoff, or
    a distance less the radii falls below 1e-3 of the cutoff.

    It takes what every model takes (:mod:`ocp_dc.models`), and:

    Args:
        hidden_channels: width of the node states.
        num_interactions: message passing steps.
        feat: node input, ``full`` (nine properties of the element, scaled to [0, 1] and expanded in the basis) or
            ``simple`` (a learned embedding per element).
        num_freqs: basis functions per feature.
        max_n: spherical harmonics of degrees below this; the odd ones need 2.
        basis: ``powersine``, ``powercosine``, ``fouriersine``, ``gauss``, ``linact`` (learned), ``raw`` (the features
            as they are), ``rawcat`` (the same, without a linear layer of their own), or spherical harmonics of the
            direction, ``sph{all,sine,cosine}{cat,mul,m40,nosine}``: all, odd or even degrees, concatenated with the
            sines of the distances (``cat``), or multiplied by learned combinations of these (``mul``, as many as
            distances, or ``m40``) or by the distances as they are (``nosine``).
        depth_mlp_edge: activations in each edge MLP.
        depth_mlp_node: activations in each node MLP.
        activation_str: a name of fairchem's ``Act``, such as ``swish``, ``ssp`` or ``relu``.
        ablation: ``none``; ``nofilter`` (the message is the filter alone), ``nocond`` (filters do not see the node
            states), ``nodistlist`` (no atomic radii), ``onlydist`` (no directions), ``nodelinear`` and ``edgelinear``
            (node or edge MLPs linear with BatchNorm), ``noself`` (no message from an atom to itself).
        decoder_hidden_channels: width of the final node states.
        decoder_type: ``mlp`` or ``linear``.
        decoder_activation_str: a name of fairchem's ``Act``.
        training: start in training mode.
        direct_forces: forces from the decoder, as in OCP; by default they are the energy's gradient, as in the paper
            of derivative-constrained training, and the decoder's parameters are frozen.

    Energies and forces are NaN for elements without a tabulated radius or, with ``feat: full``, without tabulated
    properties (Kr, Xe, At, Rn, Fr, Cm and beyond).

    Raises:
        InputError: an unknown ``feat``, ``basis``, ``ablation``, ``decoder_type`` or activation, or no spherical
            harmonics below ``max_n``.
    """

    supports_fixed_edges: ClassVar = True

    def __init__(
        self,
        hidden_channels: int = 512,
        num_interactions: int = 5,
        cutoff: float = 6.0,
        feat: str = "full",
        num_freqs: int = 50,
        max_n: int = 3,
        basis: str = "sphallmul",
        depth_mlp_edge: int = 2,
        depth_mlp_node: int = 1,
        activation_str: str = "swish",
        ablation: str = "none",
        decoder_hidden_channels: int = 512,
        decoder_type: str = "mlp",
        decoder_activation_str: str = "swish",
        training: bool = True,
        otf_graph: bool = False,
        use_pbc: bool = True,
        use_pbc_single: bool = False,
        max_neighbors: int = 50,
        regress_forces: bool = True,
        direct_forces: bool = False,
    ) -> None:
        super().__init__()
        check_choice("ForceNet", "feat", feat, ("full", "simple"))
        check_choice("ForceNet", "basis", basis, BASES)
        check_choice("ForceNet", "ablation", ablation, ABLATIONS)
        _check_activation("activation_str", activation_str)
        _check_activation("decoder_activation_str", decoder_activation_str)
        self.choose_edges(cutoff, max_neighbors, use_pbc, use_pbc_single, otf_graph)
        self.feat = feat
        self.ablation = ablation
        self.regress_forces = regress_forces
        self.direct_forces = direct_forces

        node_basis = edge_basis = basis
        if basis in SPHERICAL_BASES:
            node_basis = "powersine"
            edge_basis = "powersine" if ablation == "onlydist" else basis
        self.edge_basis = edge_basis

        radii = torch.tensor([ATOMIC_RADII[number] for number in range(NUM_ELEMENTS)])
        self.atom_radii = nn.Parameter(radii / 100, requires_grad=False)
        self.atom_map = nn.Parameter(element_features(feat), requires_grad=False)
        if feat == "simple":
            self.embedding = nn.Embedding(NUM_ELEMENTS - 1, hidden_channels)
        else:
            expand = Basis(self.atom_map.shape[1], num_freqs, node_basis, activation_str)
            self.embedding = nn.Sequential(expand, nn.Linear(expand.out_dim, hidden_channels))

        self.spherical = None
        if edge_basis in SPHERICAL_BASES:
            self.spherical = DifferentiableSphericalSmearing(max_n, SPHERICAL_BASES[edge_basis])
            if self.spherical.out_dim == 0:
                raise InputError(f"model.max_n is {max_n}, which leaves basis {basis} no spherical harmonics; raise it")
        num_edge_features = 4 if ablation in ("nodistlist", "onlydist") else 7
        self.basis_fun = Basis(num_edge_features, num_freqs, edge_basis, activation_str, sph=self.spherical)

        self.both_directions = None
        if edge_basis == "gauss":
            directions = [] if ablation == "onlydist" else [0, 1, 2]
            distances = [0] if ablation == "nodistlist" else [0, 2, 1, 3]
            reverse = directions + [len(directions) + distance for distance in distances]
            self.both_directions = ReversibleGaussians(reverse, len(directions), num_freqs)
        self.interactions = nn.ModuleList(
            InteractionBlock(
                hidden_channels,
                self.basis_fun.out_dim,
                edge_basis,
                depth_mlp_edge=0 if ablation == "edgelinear" else depth_mlp_edge,
                depth_mlp_node=0 if ablation == "nodelinear" else depth_mlp_node,
                activation_str=activation_str,
                ablation=ablation,
            )
            for _ in range(num_interactions)
        )
        self.lin = nn.Linear(hidden_channels, decoder_hidden_channels)
        self.activation = Activation(activation_str)
        self.decoder = ForceDecoder(decoder_type, decoder_activation_str, decoder_hidden_channels)
        # distributed training refuses parameters that get no gradient
        self.decoder.requires_grad_(regress_forces and direct_forces)
        self.energy_mlp = nn.Linear(decoder_hidden_channels, 1)
        self.train(training)

    def forward(self, data) -> dict[str, Tensor]:
        """Energies (B, 1) and, with ``regress_forces``, forces (N, 3), in the units of the rescaled labels."""
        if self.regress_forces and not self.direct_forces:
            data.pos.requires_grad_(True)
        energy, states = self._forward(data)
        if not self.regress_forces:
            return {"energy": energy}
        if self.direct_forces:
            return {"energy": energy, "forces": self.decoder(states)}
        return {"energy": energy, "forces": negative_gradient(energy, data.pos, differentiable=self.training)}

    @conditional_grad(torch.enable_grad())
    def _forward(self, data) -> tuple[Tensor, Tensor]:
        graph, paired = self.generate_pairs(data) if self.both_directions else (self.generate_graph(data), False)
        factors, constants, of_atoms = zip(*(block.first_edge_layer() for block in self.interactions), strict=True)
        of_edges = self._of_edges(graph, paired, torch.cat(factors, dim=1), torch.cat(constants))
        edge_index = graph.edge_index
        edge_weight = torch.cos((0.5 * math.pi / self.cutoff) * graph.edge_distance)
        if graph.within is not None:
            edge_weight = edge_weight * graph.within
        if paired:
            edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
            edge_weight = torch.cat([edge_weight, edge_weight])
        edge_weight = edge_weight.unsqueeze(1)

        elements = graph.atomic_numbers_full
        h = self.embedding(elements if self.feat == "simple" else self.atom_map[elements])
        for block, *first_layer in zip(self.interactions, of_edges.chunk(len(factors), 1), of_atoms, strict=True):
            h = h + block(h, edge_index, *first_layer, edge_weight)
        h = self.activation(self.lin(h))

        total = h.new_zeros(len(data.natoms), h.shape[1]).index_add(0, graph.batch_full, h)
        return self.energy_mlp(total), h

    def _of_edges(self, graph: Graph, paired: bool, factor: Tensor, constant: Tensor) -> Tensor:
        """Basis functions times ``factor`` (D, O) plus ``constant``; with ``paired``, of both directions."""
        if paired:
            return self.both_directions(self._edge_features(graph), self.basis_fun.smearing, factor, constant)
        return torch.addmm(constant, self._edge_attributes(graph), factor)

    def _edge_attributes(self, graph: Graph) -> Tensor:
        """(E, D) basis functions."""
        features = self._edge_features(graph)
        if self.spherical is None:
            return self.basis_fun(features)
        return self.basis_fun(features, self.spherical(features.narrow(1, 0, 3)))

    def _edge_features(self, graph: Graph) -> Tensor:
        """Directions and, in units of the cutoff, distances: what the basis functions are of."""
        distance = graph.edge_distance.unsqueeze(1)
        distances = distance
        if self.ablation != "nodistlist":
            sender_radius, receiver_radius = self.atom_radii[graph.atomic_numbers_full][graph.edge_index]
            less = [torch.zeros_like(sender_radius), sender_radius, receiver_radius, sender_radius + receiver_radius]
            distances = distances - torch.stack(less, dim=1)
        distances = (distances / self.cutoff).clamp(min=SMALLEST_DISTANCE)
        if self.ablation == "onlydist":
            return distances
        direction = graph.edge_distance_vec / distance
        if self.edge_basis == "gauss":
            # the Gaussians are centred on [0, 1]
            direction = (direction + 1) / 2
        return torch.cat([direction, distances], dim=1)


@registry.register_model("forcenet_irelu")
class ForceNetIReLU(Variant, ForceNet):
    """ForceNet with its activations replaced by an integrated one and, if asked, without normalization (paper, Sec. 4).

    It takes what :class:`ForceNet` and every model takes (:mod:`ocp_dc.models`), and:

    Args:
        activation: ``original`` keeps ``activation_str``.
        activation_scope: ``paper`` (the MLPs of every interaction and the final activation) or ``all`` (also the force
            decoder and, for the basis ``linact``, the activations of the basis).
        denormalize: ``batch`` or ``all`` remove every BatchNorm, the only normalization there is; ``none`` keeps them.
        replaced_by_position: replace the layer that stands where the activation did before BatchNorm was removed: the
            last one of each node MLP, which is then linear, SiLU, IReLU. The paper's records of ForceNet without
            BatchNorm come from that network. Needs ``activation_scope: paper``, ``depth_mlp_node: 1``, ``denormalize``.

    Raises:
        InputError: settings that leave the scope without a site, or that ``replaced_by_position`` cannot be with.
    """

    activation_sites: ClassVar = {"paper": ("interactions.*", "activation"), "all": None}

    def __init__(
        self,
        activation: str = "irelu",
        denormalize: str = "none",
        replaced_by_position: bool = False,
        **settings: Any,
    ) -> None:
        if replaced_by_position:
            self.activation_sites = {"paper": ("interactions.*.mlp_edge.*", "activation")}
        super().__init__(activation=activation, denormalize=denormalize, **settings)
        if replaced_by_position:
            self._check_positions(activation, denormalize)
            self.replaced_activations += self._replace_last_node_layers(activation)

    def _check_positions(self, activation: str, denormalize: str) -> None:
        one_activation = all(len(block.mlp_trans) == 4 for block in self.interactions)
        if activation == activations.ORIGINAL or denormalize == "none" or not one_activation:
            raise InputError(
                "model.replaced_by_position is true, which needs model.activation other than original, "
                "model.denormalize batch or all, and model.depth_mlp_node 1 without the ablation nodelinear"
            )

    def _replace_last_node_layers(self, activation: str) -> list[ReplacedSite]:
        records = []
        for index, block in enumerate(self.interactions):
            old, new = block.mlp_trans[-1], activations.activation(activation)
            block.mlp_trans[-1] = new.train(block.training)
            records.append(ReplacedSite(f"interactions.{index}.mlp_trans.3", type(old).__name__, type(new).__name__))
        return records


def _norm_if(needed: bool, channels: int) -> list[nn.Module]:
    return [BatchNorm1d(channels)] if needed else []


def _reset_linear_layers(module: nn.Module) -> None:
    """Xavier-uniform weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def element_features(feat: str) -> Tensor:
    """(101, 9): the elements' properties scaled to [0, 1] (NaN where unknown); for ``simple``, their rank (unused)."""
    if feat == "simple":
        return torch.linspace(0, 1, NUM_ELEMENTS)[:, None].repeat(1, 9)
    properties = torch.tensor([CONTINUOUS_EMBEDDINGS[number] for number in range(NUM_ELEMENTS)])
    known = properties[~properties[:, 0].isnan()]
    lowest, highest = known.amin(dim=0), known.amax(dim=0)
    return (properties - lowest) / (highest - lowest)


def _check_activation(key: str, name: str) -> None:
    try:
        Act(name)(torch.zeros(1))
    except RuntimeError as error:
        raise InputError(
            f"model.{key} is {name!r}, which fairchem's Act does not know; swish is the default"
        ) from error
