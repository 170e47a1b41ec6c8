"""A solution on a grid: what a network is trained for and held against."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

# the errors are taken over so many of the last times
TEST_TIMES = 20


@dataclass(frozen=True)
class Field:
    """Values of all components at the cells of a grid, over time.

    Attributes:
        space: x (X,), or x (X,) and y (Y,): the centres of the cells.
        t: (T,), from 0.
        values: (T, X, C), or (T, Y, X, C).
    """

    space: tuple[np.ndarray, ...]
    t: np.ndarray
    values: np.ndarray

    def points(self, times: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """The network's inputs (…, D), x first and t last, and the values (…, C) there, on the grid of some times."""
        grids = np.meshgrid(self.t[times], *reversed(self.space), indexing="ij")
        return np.stack([*reversed(grids[1:]), grids[0]], axis=-1), self.values[times]

    def initial(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (N, D) and values (N, C) at time 0, x running fastest."""
        points, values = self.points(slice(1))
        return points.reshape(-1, points.shape[-1]), values.reshape(-1, values.shape[-1])

    def last(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and values at the times that errors are taken over."""
        return self.points(slice(-TEST_TIMES, None))

    def with_x_and_y_exchanged(self) -> Field:
        """What a reader has who takes the array's y for x."""
        return replace(self, space=self.space[::-1], values=self.values.swapaxes(1, 2))
