"""Shared fixtures: the embedded sample as LMDBs, and small batches of molecules."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

import ocp_dc  # noqa: F401  registers models and trainer, supplies torch_scatter
from ocp_dc.datasets.md17 import convert, sample_path

# the imported modules' objects need not be looked at again by each gc.collect() below
gc.freeze()

CONFIGS = Path(__file__).parent.parent / "configs" / "md17"
SMALL_SCHNET = [
    *("--model.hidden_channels=32", "--model.num_filters=16", "--model.num_interactions=2"),
    "--model.num_gaussians=10",
]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    yield
    # an LMDB that a test's exception still holds open cannot be opened by the next test
    gc.collect()


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory) -> Path:
    """A folder with train (100), val (20) and test (20) conformations of the embedded sample."""
    out = tmp_path_factory.mktemp("sample") / "data"
    convert(sample_path(), out, sizes={"train": 100, "val": 20, "test": 20}, seed=0, show_progress=False)
    return out


@pytest.fixture
def train_arguments(sample_data, tmp_path):
    """Arguments of `ocp-dc train` for a config of configs/md17, at small widths, on the embedded sample."""

    def arguments(config: str, *overrides: str, run_dir: Path = tmp_path) -> list[str]:
        return [
            *("--config-yml", str(CONFIGS / f"{config}.yml"), "--run-dir", str(run_dir), "--print-every", "1"),
            *(f"--dataset.train.src={sample_data / 'train'}", f"--dataset.val.src={sample_data / 'val'}"),
            *("--optim.num_workers=0", "--hide_eval_progressbar=True"),
            *(SMALL_SCHNET if "schnet" in config else []),
            *overrides,
        ]

    return arguments
