"""Derivative-constrained training for the Open Catalyst Project's models (fairchem-core 1.x).

Importing this package registers its models and trainer with the host.
"""

from ocp_dc import _pyg_fallback

# fairchem imports torch_scatter and torch_sparse at import time and declares neither.
_pyg_fallback.install()

from ocp_dc import models, trainers  # noqa: E402

__all__ = ["models", "trainers"]
__version__ = "0.1.0"
