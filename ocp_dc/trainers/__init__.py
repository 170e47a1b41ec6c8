"""The rescaled-label energy/force trainer."""

from ocp_dc.trainers.derivative_constrained import DerivativeConstrainedTrainer

__all__ = ["DerivativeConstrainedTrainer"]
