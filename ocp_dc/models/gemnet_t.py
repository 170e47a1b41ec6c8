"""GemNet-dT (Gasteiger et al., 2021, arXiv:2106.08903) with the paper's activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from fairchem.core.common.registry import registry
from fairchem.core.models.gemnet.gemnet import GemNetT
from fairchem.core.models.gemnet.layers.atom_update_block import AtomUpdateBlock, OutputBlock
from fairchem.core.models.gemnet.layers.embedding_block import EdgeEmbedding
from fairchem.core.models.gemnet.layers.interaction_block import InteractionBlockTripletsOnly, TripletInteraction
from fairchem.core.models.gemnet.layers.radial_basis import PolynomialEnvelope as FairchemsEnvelope
from fairchem.core.models.gemnet.layers.radial_basis import RadialBasis
from fairchem.core.modules.scaling import ScaleFactor
from torch import Tensor, nn
from torch.nn.functional import linear
from torch_geometric.nn.models.schnet import GaussianSmearing

from ocp_dc.edges import EdgesMixin, Graph, fixed_edge_table
from ocp_dc.errors import InputError
from ocp_dc.models.bases import PolynomialEnvelope, ZonalHarmonics
from ocp_dc.models.closed_form import use_closed_form_silu
from ocp_dc.models.forces import GradientForces
from ocp_dc.models.gaussians import gaussians
from ocp_dc.models.scale_factors import load_scale_factors
from ocp_dc.models.triplets import Slots
from ocp_dc.models.variants import MOLECULE_EDGES, Variant

ATOMS_OF_A_TRIPLET = 3


def _outside_the_bases(path: str) -> bool:
    # the softplus there keeps an exponent of the Bernstein basis positive
    return not path.startswith(("radial_basis.", "cbf_basis3."))


@registry.register_model("gemnet_t_irelu")
class GemNetTIReLU(Variant, GradientForces, EdgesMixin, GemNetT):
    """fairchem's ``gemnet_t`` with its scaled SiLU replaced by an integrated activation (paper, Sec. 4.1).

    Forces are −∂E/∂x by default (``direct_forces: false``). Like fairchem's, this model needs an edge in every
    structure and a triplet in every batch. Where atoms are exactly in line, it may clamp a cosine that rounding puts
    beyond ±1: forces and their gradients by the weights are right there, Hessians can be wrong. It makes edges
    symmetric by keeping those whose sender comes first in the data: where atoms have more neighbours than
    ``max_neighbors``, energies depend on the order of the atoms, and so on the choice of a crystal's cell.

    Results equal fairchem's to rounding. What depends on the distance alone is computed once for each pair of atoms,
    and sums over triplets are products of matrices, one an atom.

    It takes what every model takes (:mod:`ocp_dc.models`), and:

    Args:
        activation: replaces SiLU together with its scale of 1/0.6; ``original`` keeps both.
        activation_scope: ``paper``, the MLPs of the output blocks only; ``all``, also those of the embedding and
            interaction blocks (unstable in the paper's trials, Sec. 5.1.1). No scope touches the basis functions.
        scale_file: the scale factors, as a mapping of their names to values or the path of a JSON file of one (see
            :func:`ocp_dc.scale_factor_fit.fit_scale_factors`). Factors that this model lacks are left out: those
            of the force decoder, with ``direct_forces: false``. None leaves them at 1, or for a checkpoint to set.
        **settings: fairchem's, but its own ``activation``.

    Raises:
        InputError: a ``scale_file`` that cannot be read or lacks factors; in a batch, a structure without edges, or no
            triplet.
    """

    activation_sites: ClassVar = {"paper": "out_blocks.*", "all": _outside_the_bases}
    defaults: ClassVar = MOLECULE_EDGES
    without_normalization: ClassVar = "GemNet"
    supports_fixed_edges: ClassVar = True

    def __init__(self, scale_file: dict[str, float] | str | Path | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        if scale_file is not None:
            load_scale_factors(self, scale_file)
        use_closed_form_silu(self)
        for basis in (self.radial_basis, self.cbf_basis3.radial_basis):
            if isinstance(basis.envelope, FairchemsEnvelope):
                basis.envelope = PolynomialEnvelope(basis.envelope.p)
        self.harmonics = ZonalHarmonics(self.mlp_cbf3.num_spherical)

    def against_fixed_edges(self, data) -> str | None:
        if int(data.natoms[0]) < ATOMS_OF_A_TRIPLET:
            return "GemNet needs a triplet"
        return super().against_fixed_edges(data)

    def forward(self, data) -> dict[str, Tensor]:
        if not (self.regress_forces and self.direct_forces):
            return super().forward(data)
        pairs = self._pairs(data)
        energy, of_edges = self._predict(data, pairs)
        forces = data.pos.new_zeros(data.pos.shape).index_add(0, pairs.edges.receiver, of_edges * pairs.directions)
        return {"energy": energy, "forces": forces}

    def _forward(self, data) -> Tensor:
        return self._predict(data, self._pairs(data))[0]

    def _predict(self, data, pairs: Pairs) -> tuple[Tensor, Tensor | int]:
        """Energies (B, 1) and, if they are predicted, forces along the edges (E, 1)."""
        rbf = _radial(self.radial_basis, pairs.distances)
        of_atoms, of_distance = _split(self.edge_emb, self.atom_emb.emb_size)
        widths = [self.mlp_rbf3, self.mlp_rbf_h, self.mlp_rbf_out]
        weights = [*(mlp.linear.weight for mlp in widths), of_distance]
        rbf3, rbf_h, rbf_out, embedded = linear(rbf, torch.cat(weights)).split([len(each) for each in weights], dim=1)
        filters = self._filters(pairs, rbf)

        h = self.atom_emb(data.atomic_numbers.long())
        m = self.edge_emb.dense._activation(pairs.edges.of_atoms(linear(h, of_atoms)) + embedded.repeat(2, 1))
        atom_energy, force = _output(self.out_blocks[0], m, rbf_out, pairs.edges)
        for interaction, output in zip(self.int_blocks, self.out_blocks[1:], strict=True):
            h, m = _interact(interaction, h, m, rbf3, rbf_h, filters, pairs.edges)
            more_energy, more_force = _output(output, m, rbf_out, pairs.edges)
            atom_energy, force = atom_energy + more_energy, force + more_force

        energy = atom_energy.new_zeros(len(data.natoms), 1).index_add(0, data.batch, atom_energy)
        return energy if self.extensive else energy / data.natoms[:, None], force

    def _filters(self, pairs: Pairs, rbf: Tensor) -> Tensor:
        """The circular basis, projected down, for each edge c → a and each b → a: (N, K, K * emb_size_cbf)."""
        if next(self.cbf_basis3.radial_basis.parameters(), None) is not None:
            rbf = _radial(self.cbf_basis3.radial_basis, pairs.distances)
        incoming = pairs.edges.incoming
        weight = self.mlp_cbf3.weight
        of_edges = rbf @ weight.transpose(0, 1).flatten(1)
        of_edges = incoming.spread(of_edges.repeat(2, 1)).flatten(0, 1).unflatten(1, weight[:, 0].shape)

        directions = incoming.spread(pairs.directions)
        cosines = (directions @ directions.mT).clamp(min=-1, max=1)
        return torch.bmm(self._of_angles(cosines, pairs.mask).flatten(0, 1), of_edges).view(*cosines.shape[:2], -1)

    def _of_angles(self, cosines: Tensor, mask: Tensor) -> Tensor:
        """Basis functions (N, K, K, S) of cosines (N, K, K)."""
        if isinstance(self.cbf_basis3.cosφ_basis, nn.Module):
            return self.cbf_basis3.cosφ_basis(cosines).view(*cosines.shape, -1) * mask[..., None]
        return self.harmonics(cosines, mask)

    def generate_graph(self, data) -> Graph:
        graph = super().generate_graph(data)
        if graph.within is not None:
            return graph
        if not graph.neighbors.all():
            index = int((graph.neighbors == 0).nonzero()[0])
            name = f"{index} of the batch" + (f" (sid {data.sid[index]})" if "sid" in data else "")
            raise InputError(
                f"structure {name} has no two atoms within model.cutoff, {self.cutoff} Å; GemNet needs an edge in each"
            )
        if graph.edge_index[1].bincount().max() < 2:
            raise InputError(
                f"no atom of the batch has two neighbours within model.cutoff, {self.cutoff} Å; GemNet needs a triplet"
            )
        return graph

    @contextmanager
    def fixed_edges(self, data) -> Iterator[None]:
        with super().fixed_edges(data):
            # made now: a trace of the model is to find them made
            _fixed_edges(len(data.natoms), len(data.pos) // len(data.natoms), data.pos.device)
            yield

    def _pairs(self, data) -> Pairs:
        """GemNet makes edges symmetric: it keeps those whose sender comes first, and adds their reverses."""
        if self._fixed is not None:
            graph, _ = self.generate_pairs(data)
            edges = _fixed_edges(len(data.natoms), len(data.pos) // len(data.natoms), data.pos.device)
            return Pairs(edges, graph.edge_distance, graph.edge_distance_vec, graph.within)
        graph = self.generate_graph(data)
        (kept,) = self._come_first(graph).nonzero(as_tuple=True)
        edges = EdgesBothWays(graph.edge_index[:, kept], len(data.pos))
        return Pairs(edges, graph.edge_distance[kept], graph.edge_distance_vec[kept])

    def _come_first(self, graph: Graph) -> Tensor:
        sender, receiver = graph.edge_index
        first = sender < receiver
        if self.use_pbc:
            # of an atom's edges to its own images, those whose first offset other than 0 is negative
            sign = (graph.cell_offsets.sign() * graph.cell_offsets.new_tensor([9, 3, 1])).sum(dim=1)
            first = first | ((sender == receiver) & (sign < 0))
        # fairchem's rule for edges that the data brings along
        if not self.otf_graph and not np.isclose(self.cutoff, 6):
            first = first & (graph.edge_distance <= self.cutoff)
        return first


class EdgesBothWays:
    """The edges of P pairs of atoms, and then their reverses: E = 2 P.

    Args:
        pairs: (2, P), sender and receiver.
        num_atoms: N.

    Attributes:
        sender, receiver: (E,).
        incoming: the edges to each atom, K slots an atom.
        kept: (N, K, K), whether two of them make a triplet.
    """

    def __init__(self, pairs: Tensor, num_atoms: int) -> None:
        self.sender, self.receiver = pairs.flatten(), pairs.flip(0).flatten()
        self.num_atoms = num_atoms
        self.incoming = Slots(self.receiver, num_atoms)
        filled = self.incoming.filled
        self.kept = filled[:, :, None] & filled[:, None] & ~torch.eye(filled.shape[1], device=filled.device).bool()

    def of_atoms(self, x: Tensor) -> Tensor:
        """What edges receive from their atoms: x (N, 2 F) of senders and receivers, (E, F)."""
        of_sender, of_receiver = x.chunk(2, dim=1)
        return of_sender.index_select(0, self.sender) + of_receiver.index_select(0, self.receiver)

    def to_atoms(self, x: Tensor) -> Tensor:
        """The sum over the edges to each atom."""
        return x.new_zeros(self.num_atoms, x.shape[1]).index_add(0, self.receiver, x)

    def reversed(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (2, -1)).flip(0).flatten(0, 1)


@lru_cache(maxsize=32)
def _fixed_edges(structures: int, atoms: int, device: torch.device) -> EdgesBothWays:
    return EdgesBothWays(fixed_edge_table(structures, atoms, device).pair_index, structures * atoms)


@dataclass
class Pairs:
    """Pairs of atoms: ``distances`` (P,), ``vectors`` (P, 3), and ``within`` (P,), 1 or 0, if not all are."""

    edges: EdgesBothWays
    distances: Tensor
    vectors: Tensor
    within: Tensor | None = None

    @property
    def directions(self) -> Tensor:
        """(E, 3), from sender to receiver."""
        directions = -self.vectors / self.distances.unsqueeze(1)
        return torch.cat([directions, -directions])

    @property
    def mask(self) -> Tensor:
        """(N, K, K), 1 for a triplet: where both its edges are within the cutoff."""
        kept = self.edges.kept.to(self.distances.dtype)
        if self.within is None:
            return kept
        within = self.edges.incoming.spread(self.within.repeat(2))
        return kept * within[:, None]


def _radial(basis: RadialBasis, distances: Tensor) -> Tensor:
    """fairchem's radial basis (P, num_radial)."""
    x = distances * basis.inv_cutoff
    smeared = isinstance(basis.rbf, GaussianSmearing)
    return basis.envelope(x).unsqueeze(1) * (
        gaussians(x, basis.rbf.offset, basis.rbf.coeff) if smeared else basis.rbf(x)
    )


def _split(embedding: EdgeEmbedding, atom_width: int) -> tuple[Tensor, Tensor]:
    """The weights of an edge embedding's layer: for its two atoms, (2 F, D), and for what it has itself, (F, G)."""
    weight = embedding.dense.linear.weight
    of_sender, of_receiver, of_edge = weight.split([atom_width, atom_width, weight.shape[1] - 2 * atom_width], dim=1)
    return torch.cat([of_sender, of_receiver]), of_edge


def _times(x: Tensor, of_pairs: Tensor) -> Tensor:
    """Edges (E, F) times pairs (P, F)."""
    return (x.unflatten(0, (2, -1)) * of_pairs).flatten(0, 1)


def _interact(
    block: InteractionBlockTripletsOnly,
    h: Tensor,
    m: Tensor,
    rbf3: Tensor,
    rbf_h: Tensor,
    filters: Tensor,
    edges: EdgesBothWays,
) -> tuple[Tensor, Tensor]:
    """fairchem's interaction block."""
    x = (block.dense_ca(m) + _sum_triplets(block.trip_interaction, m, rbf3, filters, edges)) * block.inv_sqrt_2
    for layer in block.layers_before_skip:
        x = layer(x)
    m = (m + x) * block.inv_sqrt_2
    for layer in block.layers_after_skip:
        m = layer(m)

    h = (h + _update_atoms(block.atom_update, m, rbf_h, edges)) * block.inv_sqrt_2

    of_atoms, of_edge = _split(block.concat_layer, h.shape[1])
    x = block.concat_layer.dense._activation(edges.of_atoms(linear(h, of_atoms)) + linear(m, of_edge))
    for layer in block.residual_m:
        x = layer(x)
    return h, (m + x) * block.inv_sqrt_2


def _sum_triplets(block: TripletInteraction, m: Tensor, rbf3: Tensor, filters: Tensor, edges: EdgesBothWays) -> Tensor:
    """fairchem's triplet interaction. Its bilinear layer comes first, for each edge; then the sum over neighbours."""
    of_edges = block.dense_ba(m)
    scaled = _scaled(block.scale_rbf, _times(of_edges, block.mlp_rbf(rbf3)), lambda: of_edges)
    incoming = edges.incoming.spread(block.down_projection(scaled))
    weight = block.mlp_cbf.weight
    projected = incoming.flatten(0, 1) @ weight.flatten(1)
    x = torch.bmm(filters, projected.view(len(filters), -1, weight.shape[2]))
    x = _scaled(
        block.scale_cbf_sum,
        edges.incoming.collect(x),
        lambda: incoming[:, None].expand(*edges.kept.shape, -1)[edges.kept],
    )
    return (block.up_projection_ca(x) + block.up_projection_ac(edges.reversed(x))) * block.inv_sqrt_2


def _update_atoms(block: AtomUpdateBlock, m: Tensor, rbf: Tensor, edges: EdgesBothWays) -> Tensor:
    """fairchem's atom update: (N, D)."""
    x = _scaled(block.scale_sum, edges.to_atoms(_times(m, block.dense_rbf(rbf))), lambda: m)
    for layer in block.layers:
        x = layer(x)
    return x


def _output(block: OutputBlock, m: Tensor, rbf: Tensor, edges: EdgesBothWays) -> tuple[Tensor, Tensor | int]:
    """fairchem's output block: energies of atoms (N, 1) and, if they are predicted, forces along edges (E, 1)."""
    energy = block.out_energy(_update_atoms(block, m, rbf, edges))
    if not block.direct_forces:
        return energy, 0
    x = m
    for layer in block.seq_forces:
        x = layer(x)
    return energy, block.out_forces(_scaled(block.scale_rbf_F, _times(x, block.dense_rbf_F(rbf)), lambda: x))


def _scaled(scale: ScaleFactor, x: Tensor, reference: Callable[[], Tensor]) -> Tensor:
    """What ``scale`` makes of x; without reading the factor on the host, unless it is being fitted or observed."""
    if scale.stats is not None or scale.index_fn is not None or scale._forward_hooks:
        return scale(x, ref=reference())
    factor = scale.scale_factor
    return x * factor.where(factor != 0, 1)
