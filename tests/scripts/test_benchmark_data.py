"""What scripts/benchmark_data.py compares is the same work; how long it takes is not tested."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ocp_dc.datasets.lmdb import RecordFile

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_data.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_conversions_hold_the_same_conformations(script, tmp_path):
    script.write_md17(tmp_path / "md17.npz", 12)
    script.convert_ours(tmp_path / "md17.npz", tmp_path / "ours")
    script.convert_by_fairchem(tmp_path / "md17.npz", tmp_path / "fairchem")
    with (
        RecordFile(tmp_path / "ours" / "train" / "data.lmdb") as ours,
        RecordFile(tmp_path / "fairchem" / "data.lmdb") as theirs,
    ):
        assert (len(ours), len(theirs)) == (10, 12)
        for record in (ours[row] for row in range(10)):
            same = theirs[record.fid]
            assert record.y.item() == same.energy
            assert torch.equal(record.pos, same.pos)
            assert torch.equal(record.force, same.forces)


def test_tables_have_a_ratio_above_one_where_ours_is_better(script):
    ours, stock = script.np.array([100.0, 110.0]), script.np.array([4000.0, 4400.0])
    assert script.compared(ours, stock, stock / ours) == ["105", "4,200", "40.0", "40.0 to 40.0"]
