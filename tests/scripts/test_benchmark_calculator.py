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
    table = capsys.readouterr().out.splitlines()[-6:]
    assert [line.split()[:3] for line in table] == [
        [model, *structure]
        for model in ("schnet", "cgcnn")
        for structure in (["molecule", "9"], ["molecule", "12"], ["slab", "15"])
    ]
    for line in table[:3]:
        assert float(line.split()[-1]) < 1e-3
