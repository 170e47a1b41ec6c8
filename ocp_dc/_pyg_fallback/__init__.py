"""Plain-PyTorch stand-ins for the parts of `torch_scatter` and `torch_sparse` that fairchem 1.x imports.

fairchem imports both packages and declares neither, and PyPI has only their sources; with the stand-ins, no compiler is
needed. They are differentiable twice, so forces can be trained through them. They are found by `finder.py`, under the
names of the real packages, and only where those are not installed.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

FILES = {
    "torch_scatter": Path(__file__).parent / "torch_scatter" / "__init__.py",
    "torch_sparse": Path(__file__).parent / "torch_sparse.py",
}


class StandInLoader(SourceFileLoader):
    """Loads a stand-in, once torch_geometric is there.

    torch_geometric looks for both packages as it is imported. It must not find the stand-ins: they have only what
    fairchem needs, and torch_geometric's own fallbacks serve it better.
    """

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        import_module("torch_geometric")
        return super().create_module(spec)


def stand_in_spec(name: str) -> ModuleSpec | None:
    """What `import torch_scatter` or `import torch_sparse` is to load; None while torch_geometric is being imported."""
    torch_geometric = sys.modules.get("torch_geometric")
    if torch_geometric is not None and torch_geometric.__spec__._initializing:
        return None
    return spec_from_file_location(name, FILES[name], loader=StandInLoader(name, str(FILES[name])))


def served() -> list[str]:
    """The names, out of `torch_scatter` and `torch_sparse`, that stand-ins serve; neither is imported to know it."""
    return [name for name in FILES if isinstance(find_spec(name).loader, StandInLoader)]
