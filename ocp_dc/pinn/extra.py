"""What the extra ``pinn`` brings, imported where it is needed."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ocp_dc.errors import InputError

# as in setup.cfg; of a clone, pip install ".[pinn]" does the same
INSTALL = 'pip install "deepxde>=1.15,<1.16" "h5py>=3.8"'


def require_extra() -> None:
    """Raises InputError, with the line that installs it, if a package of the extra is missing. Imports nothing."""
    for name in ("h5py", "deepxde"):
        if find_spec(name) is None:
            raise _missing(name)


def import_h5py() -> ModuleType:
    """Raises InputError if it is missing."""
    return _import("h5py")


def import_deepxde() -> ModuleType:
    """DeepXDE with its PyTorch backend, which makes CUDA the default device of this process where there is one.

    Raises:
        InputError: it is missing.
    """
    # otherwise DeepXDE asks, or writes a file into the home folder
    os.environ["DDE_BACKEND"] = "pytorch"
    return _import("deepxde")


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(error.name or name) from error


def _missing(name: str) -> InputError:
    return InputError(f"{name} is not installed, which physics-informed networks need; run: {INSTALL}")
