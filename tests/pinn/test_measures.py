from __future__ import annotations

import numpy as np
import pytest

from ocp_dc.pinn.measures import field_errors
from ocp_dc.pinn.protocols import MSE, NRMSE, RMSE


def test_errors_by_hand():
    """Two times, two cells, two components."""
    true = np.array([[[1.0, 10.0], [1.0, 10.0]], [[2.0, 20.0], [2.0, 20.0]]])
    predicted = true + np.array([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 6.0], [0.0, 8.0]]])
    errors = field_errors(predicted, true)
    assert errors[MSE] == pytest.approx((1 + 1 + 36 + 64) / 8)
    roots = np.array([1, 0, 0, np.sqrt(50)])
    assert errors[RMSE] == pytest.approx(roots.mean())
    assert errors[NRMSE] == pytest.approx((roots / [1, 10, 2, 20]).mean())


def test_a_constant_zero_has_nrmse_1():
    true = np.random.default_rng(0).standard_normal((20, 8, 8, 2)).astype(np.float32)
    assert field_errors(np.zeros_like(true), true)[NRMSE] == pytest.approx(1)
