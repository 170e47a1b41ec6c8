"""The models; importing this package registers them with fairchem.

Every model takes, besides what its docstring names:

- ``cutoff``: Å.
- ``use_pbc``: edges to periodic images, in the directions in which each structure has ``pbc``; or none, the default of
  SchNet, DimeNet++ and GemNet.
- ``use_pbc_single``: build the periodic edges of one structure at a time, to save memory.
- ``otf_graph``: build edges at every step, the default of these three, rather than read them from the data; without
  images they always are.
- ``max_neighbors``: edges per receiving atom, the nearest ones; fixed at 50 in SchNet and DimeNet++.
- ``regress_forces``: predict forces.

The derivative-constrained ones, ``…_irelu``, moreover:

- ``activation``: a name of :func:`ocp_dc.activations.known_activations`; or ``original``, which keeps the model's own.
- ``activation_scope``: which activations are replaced, ``paper`` (as in the paper) or ``all``.
- ``denormalize``: which normalization layers are removed, ``none``, ``batch`` (BatchNorm) or ``all``.

With ``original``, ``none`` (DimeNet++: ``conservative: false``) and the same weights, energies, forces and
parameter gradients are those of the model without ``_irelu``. They have lists ``replaced_activations`` and
``removed_normalizations`` of :class:`ocp_dc.transforms.ReplacedSite`. An unknown value is an InputError that names the
key and the known values.

Shapes:
    in: a batch with ``pos`` (N, 3) Å, ``atomic_numbers`` (N,), ``batch`` (N,), ``natoms`` (B,), and if periodic
    ``cell`` (B, 3, 3) and ``pbc`` (B, 3);
    out: ``energy`` (B, 1) and ``forces`` (N, 3) = −∂(ΣE)/∂pos, in the units of the rescaled labels.
"""

from ocp_dc.models.cgcnn import CGCNN, CGCNNIReLU
from ocp_dc.models.dimenetplusplus import DimeNetPlusPlusIReLU
from ocp_dc.models.forcenet import ForceNet, ForceNetIReLU
from ocp_dc.models.gemnet_t import GemNetTIReLU
from ocp_dc.models.schnet import SchNetIReLU
from ocp_dc.models.wrapper import build_model, derivative_constrained

__all__ = [
    "CGCNN",
    "CGCNNIReLU",
    "DimeNetPlusPlusIReLU",
    "ForceNet",
    "ForceNetIReLU",
    "GemNetTIReLU",
    "SchNetIReLU",
    "build_model",
    "derivative_constrained",
]
