"""DeepXDE for the tests, if it is installed."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ocp_dc.pinn.equations import EQUATIONS, Equation
from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.fields import Field
from ocp_dc.pinn.generation import generate

MISSING = [name for name in ("h5py", "deepxde") if find_spec(name) is None]
WITHOUT_EXTRA = {
    "test_euler.py",
    "test_diffusion_reaction.py",
    "test_generation.py",
    "test_measures.py",
    "test_extra.py",
    "test_study.py",
}

if not MISSING:
    import_deepxde()
    # it has made the GPU the default, if there is one, for all tests
    torch.set_default_device("cpu")


def pytest_collection_modifyitems(items) -> None:
    skip = pytest.mark.skip(reason=f'{", ".join(MISSING)} not installed: pip install ".[pinn]"')
    for item in items:
        if MISSING and item.path.parent.name == "pinn" and item.path.name not in WITHOUT_EXTRA:
            item.add_marker(skip)


@pytest.fixture
def double():
    """DeepXDE and PyTorch in float64."""
    dde = import_deepxde()
    dde.config.set_default_float("float64")
    yield
    dde.config.set_default_float("float32")


@pytest.fixture
def small_field():
    """A function that generates data of an equation on a coarse grid, float32 as files have them."""

    def make(equation: Equation) -> Field:
        field = generate(equation, sample=0, cells=16, times=21)
        return Field(field.space, field.t, field.values.astype(np.float32))

    return make


@pytest.fixture(params=list(EQUATIONS))
def equation(request) -> Equation:
    return EQUATIONS[request.param]
