"""The models; importing this package registers them with the host."""

from ocp_dc.models.cgcnn import CGCNN, CGCNNIReLU
from ocp_dc.models.dimenetplusplus import DimeNetPlusPlusIReLU
from ocp_dc.models.forcenet import ForceNet, ForceNetIReLU
from ocp_dc.models.gemnet_t import GemNetTIReLU
from ocp_dc.models.schnet import SchNetIReLU
from ocp_dc.models.wrapper import derivative_constrained

__all__ = [
    "CGCNN",
    "CGCNNIReLU",
    "DimeNetPlusPlusIReLU",
    "ForceNet",
    "ForceNetIReLU",
    "GemNetTIReLU",
    "SchNetIReLU",
    "derivative_constrained",
]
