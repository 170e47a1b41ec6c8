"""The finite volumes of the diffusion-reaction equations."""

from __future__ import annotations

import numpy as np
import pytest

from ocp_dc.pinn import diffusion_reaction
from ocp_dc.pinn.equations import REACTION

LENGTH = 2.0


def smooth(cells: int) -> np.ndarray:
    """No flow through the boundary; (Y, X, 2)."""
    x = LENGTH / cells * (np.arange(cells) + 0.5)
    wave = np.cos(np.pi * x / LENGTH) * np.cos(2 * np.pi * x / LENGTH)[:, None]
    return np.stack([wave, 0.5 - wave], axis=-1)


def test_laplacian_of_a_cosine():
    values = smooth(128)
    found = diffusion_reaction.laplacian(values, LENGTH / 128)[..., 0]
    expected = -((np.pi / LENGTH) ** 2 + (2 * np.pi / LENGTH) ** 2) * values[..., 0]
    assert found == pytest.approx(expected, abs=0.01)


def test_second_order_by_halving_the_grid():
    def solution(cells: int) -> np.ndarray:
        solved = diffusion_reaction.solve(smooth(cells), LENGTH / cells, [0.0, 1.0], tolerance=1e-9)[-1]
        return solved.reshape(16, cells // 16, 16, cells // 16, 2).mean(axis=(1, 3))

    coarse, middle, fine = (solution(cells) for cells in (16, 32, 64))
    assert np.log2(np.abs(coarse - middle).max() / np.abs(middle - fine).max()) == pytest.approx(2, abs=0.15)


def test_diffusion_alone_conserves_both_components():
    initial = np.random.default_rng(0).standard_normal((24, 24, 2))
    solved = diffusion_reaction.solve(initial, LENGTH / 24, [0.0, 0.5], reaction=np.zeros_like)
    assert solved.sum(axis=(1, 2)) == pytest.approx(np.broadcast_to(initial.sum(axis=(0, 1)), (2, 2)), abs=1e-10)
    assert solved[-1].std() < initial.std()


def test_reaction_alone_where_all_is_equal():
    """u' = u − u³ − k − v, v' = u − v, by small steps of Euler's method."""
    u, v = 0.7, -0.2
    for _ in range(20_000):
        u, v = u + 5e-5 * (u - u**3 - REACTION - v), v + 5e-5 * (u - v)
    initial = np.tile([0.7, -0.2], (8, 8, 1))
    solved = diffusion_reaction.solve(initial, LENGTH / 8, [0.0, 1.0])[-1]
    assert solved == pytest.approx(np.tile([u, v], (8, 8, 1)), abs=1e-4)
