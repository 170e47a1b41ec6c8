"""The rescaled-label energy/force trainer."""

import ocp_dc.models  # noqa: F401  registers them: a config names the trainer by its path, and its model by name
from ocp_dc.trainers.dc_forces import DerivativeConstrainedTrainer

__all__ = ["DerivativeConstrainedTrainer"]
