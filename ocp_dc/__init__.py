"""Derivative-constrained training for the Open Catalyst Project's models (fairchem-core 1.x).

`ocp_dc.models` and `ocp_dc.trainers` register themselves with fairchem as they are imported.
"""

from importlib import import_module
from types import ModuleType

from ocp_dc._pyg_fallback import finder as _finder  # noqa: F401  supplies what fairchem imports and does not declare

__all__ = ["models", "trainers"]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
