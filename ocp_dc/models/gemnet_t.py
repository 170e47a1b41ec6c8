"""GemNet-dT (Gasteiger et al., 2021, arXiv:2106.08903) with the paper's activation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from fairchem.core.common.registry import registry
from fairchem.core.models.base import GraphData
from fairchem.core.models.gemnet.gemnet import GemNetT

from ocp_dc.edges import EdgesMixin
from ocp_dc.errors import InputError
from ocp_dc.models.scale_factors import load_scale_factors
from ocp_dc.models.variants import MOLECULE_EDGES, Variant


def _outside_the_bases(path: str) -> bool:
    # the softplus there keeps an exponent of the Bernstein basis positive
    return not path.startswith(("radial_basis.", "cbf_basis3."))


@registry.register_model("gemnet_t_irelu")
class GemNetTIReLU(Variant, EdgesMixin, GemNetT):
    """fairchem's ``gemnet_t`` with its scaled SiLU replaced by an integrated activation (paper, Sec. 4.1).

    Forces are −∂E/∂x by default (``direct_forces: false``). Like fairchem's, this model needs an edge in every
    structure and a triplet in every batch. Where atoms are exactly in line, it may clamp a cosine that rounding puts
    beyond ±1: forces and their gradients by the weights are right there, Hessians can be wrong. It makes edges
    symmetric by keeping those whose sender comes first in the data: where atoms have more neighbours than
    ``max_neighbors``, energies depend on the order of the atoms, and so on the choice of a crystal's cell.

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

    def __init__(self, scale_file: dict[str, float] | str | Path | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        if scale_file is not None:
            load_scale_factors(self, scale_file)

    def generate_graph(self, data) -> GraphData:
        graph = super().generate_graph(data)
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
