"""What the benchmarks measure with; how long anything takes is not tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def sides():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        import benchmark_sides

        yield benchmark_sides
    sys.modules.pop("benchmark_sides")


@pytest.fixture(scope="module")
def training(sides):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        import benchmark_training

        yield benchmark_training
    sys.modules.pop("benchmark_training")


@pytest.mark.parametrize("atoms", [9, 80])
def test_made_up_molecules(sides, tmp_path, atoms):
    sides.write_molecule(tmp_path / "molecule.npz", atoms, 2)
    made = dict(np.load(tmp_path / "molecule.npz"))
    assert made["R"].shape == made["F"].shape == (2, atoms, 3)
    assert made["E"].shape == (2, 1)
    assert set(made["z"]) <= {1, 6}
    distances = np.linalg.norm(made["R"][0, :, None] - made["R"][0], axis=-1)
    assert (distances + np.eye(atoms)).min() > 0.7
    assert distances.max() < 3 * atoms**0.5


def test_their_forces_are_the_negative_gradient_of_their_energies(sides):
    rest, positions = np.random.default_rng(0).normal(size=(2, 6, 3))
    step = np.zeros((6, 3))
    step[3, 1] = 1e-5
    difference = sides.springs(rest, positions + step)[0] - sides.springs(rest, positions - step)[0]
    assert -difference / 2e-5 == pytest.approx(sides.springs(rest, positions)[1][3, 1], rel=1e-6)


def test_ratio_is_above_one_where_ours_is_faster(sides):
    assert sides.ratio([1.0, 2.0, 2.0], [4.0, 4.0, 6.0]) == "2.00 (2.00 to 4.00)"


def test_peak_is_the_most_that_is_there_at_once(training):
    with training.PeakMemory(torch.device("cpu")) as memory:
        first = torch.empty(1 << 20, dtype=torch.uint8)
        second = torch.empty(1 << 21, dtype=torch.uint8)
        del first, second
        torch.empty(1 << 20, dtype=torch.uint8)
    assert memory.peak == pytest.approx(3 << 20, rel=0.01)


def test_one_step_of_an_epoch_is_watched(training):
    loader = training.ClockedLoader(range(4), iter(range(10)).__next__)
    loader.watching = training.RecordedOperations()
    for step in loader:
        torch.zeros(1).add(step)
    assert loader.asked == [0, 1, 2, 3]
    assert loader.watching.count == 2


def test_operations_and_matrix_products_are_counted(training):
    a, b = torch.rand(3, 4), torch.rand(4, 5)
    with training.RecordedOperations() as recorded:
        (a @ b).relu()
    assert recorded.count == 2
    ((func, (left, right), _),) = recorded.products
    assert func is torch.ops.aten.mm.default
    assert (left.shape, right.shape, left.device.type) == (a.shape, b.shape, "meta")


def test_steps_of_both_sides_are_measured():
    """In a process of its own, as both trainers need fairchem's process group."""
    command = [sys.executable, SCRIPTS / "benchmark_training.py", "--width=narrow", "--steps=3", "--repeats=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    header, ours, stock = (line.split() for line in done.stdout.splitlines()[-3:])
    assert header[:2] == ["model", "side"]
    assert (ours[:2], stock[:2]) == (["schnet", "ours"], ["schnet", "stock"])
    milliseconds = float(ours[2]), float(stock[2])
    assert min(milliseconds) > 0
    # of the table's rounded times
    assert float(stock[-4]) == pytest.approx(milliseconds[1] / milliseconds[0], rel=0.1)
