"""The calculator's benchmark runs, of one and the same network on both sides; how long anything takes is not tested."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import benchmark_calculator

    yield benchmark_calculator
    logging.disable(logging.NOTSET)
    for name in ("benchmark_calculator", "benchmark_sides"):
        sys.modules.pop(name)


def test_both_sides_give_the_same_forces(benchmark, capsys):
    small = ["--models", "schnet", "cgcnn", "--width", "narrow", "--atoms", "9", "12", "--slabs", "1"]
    benchmark.main([*small, "--steps", "1", "--repeats", "1"])
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("| schnet", "| cgcnn"))
    ]
    structures = [["molecule", "9"], ["molecule", "12"], ["slab", "15"]]
    assert [cells[:3] for cells in table] == [[model, *each] for model in ("schnet", "cgcnn") for each in structures]
    for cells in table[:3]:
        assert float(cells[-1]) < 1e-3
