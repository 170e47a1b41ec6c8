"""The models; importing this package registers them with the host."""

from ocp_dc.models.schnet import SchNetIReLU

__all__ = ["SchNetIReLU"]
