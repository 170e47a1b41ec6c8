"""Errors of a predicted field, each named for what it is."""

from __future__ import annotations

import numpy as np

from ocp_dc.pinn.protocols import MSE, NRMSE, RMSE


def field_errors(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Errors over the times T and cells of a grid, for the components C together.

    ``MSE`` is the mean square. ``RMSE`` and ``nRMSE`` are PDEBench's: the root is taken of the mean over the cells,
    then the mean over times and components; for nRMSE each root is first divided by that of the true values. What
    the paper prints as MSE is nRMSE. A prediction of 0 everywhere has an nRMSE of 1.

    Args:
        predicted, true: (T, …, C).
    """
    square = np.square(predicted.astype(np.float64) - true)
    cells = tuple(range(1, true.ndim - 1))
    roots = np.sqrt(square.mean(axis=cells))
    sizes = np.sqrt(np.square(true, dtype=np.float64).mean(axis=cells))
    return {MSE: float(square.mean()), RMSE: float(roots.mean()), NRMSE: float((roots / sizes).mean())}
