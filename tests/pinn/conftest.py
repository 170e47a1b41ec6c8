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

if find_spec("deepxde"):
    import_deepxde()
    # it has made the GPU the default, if there is one, for all tests
    torch.set_default_device("cpu")


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
