"""The finder by which fairchem's `import torch_scatter` comes to a stand-in where nothing else offers that package.

setup.py puts the text of this file into a `.pth` file that is installed beside the package and runs whenever Python
starts. So it stands alone, does next to nothing until one of the names is asked for, and holds when the rest is gone.
"""

import sys


class StandInFinder:
    """Finds the stand-ins for `torch_scatter` and `torch_sparse` after every other finder has found nothing."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in ("torch_scatter", "torch_sparse"):
            return None
        for finder in sys.meta_path[sys.meta_path.index(cls) + 1 :]:
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                return spec
        try:
            from ocp_dc._pyg_fallback import stand_in_spec
        except ImportError:
            return None
        return stand_in_spec(name)


if not any(getattr(finder, "__module__", None) == __name__ for finder in sys.meta_path):
    sys.meta_path.append(StandInFinder)
