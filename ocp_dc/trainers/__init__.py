"""The rescaled-label energy/force trainer."""

from ocp_dc.trainers.dc_forces import DerivativeConstrainedTrainer

__all__ = ["DerivativeConstrainedTrainer"]
