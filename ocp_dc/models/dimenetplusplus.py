"""DimeNet++ (Gasteiger et al., 2020, arXiv:2011.14115) with the paper's activation, and forces that conserve energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from fairchem.core.common.registry import registry
from fairchem.core.models.dimenet_plus_plus import DimeNetPlusPlusWrap
from numpy.polynomial.legendre import leg2poly
from torch import Tensor

from ocp_dc.edges import EdgesMixin
from ocp_dc.models.forces import GradientForces
from ocp_dc.models.variants import MOLECULE_EDGES, Variant


@registry.register_model("dimenetplusplus_irelu")
class DimeNetPlusPlusIReLU(Variant, GradientForces, EdgesMixin, DimeNetPlusPlusWrap):
    r"""fairchem's ``dimenetplusplus`` with other activations (paper, Sec. 4.1) and, by default, conservative forces.

    fairchem takes the angles from detached positions: its "forces" leave out how the energy changes with the angles, so
    they are not the gradient of its energy, and a simulation with them does not conserve energy. Here ``conservative``
    chooses. It is True by default, since F = −∂E/∂x is what the labels obey and what the paper's argument for IReLU
    assumes; the paper's numbers, and fairchem's, need False. Energies do not depend on it.

    Angles enter through the zonal harmonics alone, which are polynomials in their cosine:

    .. math::
        Y_{l0}(θ) = \sqrt{(2l+1) / 4π} \, P_l(\cos θ)

    They are evaluated on the cosine, so that derivatives of any order exist where three atoms are in line, and equal
    fairchem's, evaluated on the angle, to rounding.

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

    def __init__(self, conservative: bool = True, **settings: Any) -> None:
        super().__init__(**settings)
        self.conservative = conservative
        self.sbf.sph_funcs = [partial(_polynomial, _zonal_harmonic(degree)) for degree in range(self.sbf.num_spherical)]

    def _forward(self, data) -> Tensor:
        graph = self.generate_graph(data)
        sender, receiver = graph.edge_index
        num_atoms = len(graph.atomic_numbers_full)
        *_, idx_kj, idx_ji = self.triplets(graph.edge_index, graph.cell_offsets, num_atoms)

        rbf = self.rbf(graph.edge_distance)
        sbf = self.sbf(graph.edge_distance, self._cosines(graph, idx_kj, idx_ji), idx_kj)
        x = self.emb(graph.atomic_numbers_full, rbf, receiver, sender)
        atom_energy = self.output_blocks[0](x, rbf, receiver, num_atoms)
        for interaction, output in zip(self.interaction_blocks, self.output_blocks[1:], strict=True):
            x = interaction(x, rbf, sbf, idx_kj, idx_ji)
            atom_energy = atom_energy + output(x, rbf, receiver, num_atoms)

        return atom_energy.new_zeros(len(data.natoms), 1).index_add(0, graph.batch_full, atom_energy)

    def _cosines(self, graph, idx_kj: Tensor, idx_ji: Tensor) -> Tensor:
        """Of the angles between the edges k → j and j → i: (T,)."""
        directions = graph.edge_distance_vec / graph.edge_distance[:, None]
        if not self.conservative:
            directions = directions.detach()
        return (directions[idx_kj] * directions[idx_ji]).sum(dim=-1)


def _zonal_harmonic(degree: int) -> list[float]:
    """The coefficients, by rising powers, of √((2l+1)/4π) P_l."""
    return (math.sqrt((2 * degree + 1) / (4 * math.pi)) * leg2poly([0] * degree + [1])).tolist()


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
