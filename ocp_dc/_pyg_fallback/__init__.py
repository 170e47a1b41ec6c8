"""Plain-PyTorch stand-ins for the parts of `torch_scatter` and `torch_sparse` that fairchem 1.x imports.

PyPI has only source distributions of the real packages; with these, no compiler is needed. They are differentiable
twice, so forces can be trained through them.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def install() -> list[str]:
    """Make `import torch_scatter` and `import torch_sparse` work, by a stand-in where the real one is not installed.

    Real packages are never shadowed, and further calls change nothing.

    Returns:
        The names, out of `torch_scatter` and `torch_sparse`, that stand-ins serve in this process.
    """
    # torch_geometric looks for both packages as it is imported. It must not find the stand-ins: they have only what
    # fairchem needs, and torch_geometric's own fallbacks serve it better.
    import_module("torch_geometric")
    return [name for name in ("torch_scatter", "torch_sparse") if _served_by_stand_in(name)]


def _served_by_stand_in(name: str) -> bool:
    if find_spec(name) is None:
        sys.modules[name] = import_module(f"{__name__}.{name}")
        if name == "torch_scatter":
            _supply_scatter_utils(sys.modules[name])
    return find_spec(name).name == f"{__name__}.{name}"


def _supply_scatter_utils(torch_scatter: ModuleType) -> None:
    utils = ModuleType("torch_scatter.utils")
    utils.__spec__ = ModuleSpec("torch_scatter.utils", loader=None)
    utils.broadcast = torch_scatter.broadcast
    torch_scatter.utils = sys.modules["torch_scatter.utils"] = utils
