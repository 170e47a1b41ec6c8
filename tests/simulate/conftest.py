"""Checkpoints of models that are trained for a moment, and atoms that touch nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from ocp_dc.experiments.scales import WIDTHS
from ocp_dc.launch import run_fairchem


@pytest.fixture
def cluster() -> Atoms:
    """Six atoms that touch nothing."""
    positions = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3], [3, 3, 0], [3, 0, 3]], float)
    return Atoms("CCOOHH", positions)


def _trained(folder: Path, data: Path, model: str, config: str, *overrides: str) -> Path:
    widths = [f"--model.{key}={value}" for key, value in WIDTHS["narrow"][model].items()]
    where = [f"--run-dir={folder}", f"--dataset.train.src={data / 'train'}", f"--dataset.val.src={data / 'val'}"]
    usual = ["--timestamp-id=run", "--optim.num_workers=0", "--hide_eval_progressbar=True"]
    run_fairchem("train", ["--config-yml", f"md17/{config}", *where, *usual, *widths, *overrides])
    return folder / "checkpoints" / "run" / "checkpoint.pt"


@pytest.fixture(scope="session")
def schnet(sample_data, tmp_path_factory) -> Path:
    """Of a small SchNet, whose forces are the gradient of its energy."""
    overrides = ("--model.activation=original", "--optim.max_epochs=20")
    return _trained(tmp_path_factory.mktemp("schnet"), sample_data, "schnet", "schnet_irelu_recommended", *overrides)


@pytest.fixture(scope="session")
def dimenetplusplus(sample_data, tmp_path_factory) -> Path:
    """Of a small DimeNet++, whose forces are not."""
    folder, overrides = tmp_path_factory.mktemp("dimenet"), ("--model.conservative=False", "--optim.max_epochs=20")
    return _trained(folder, sample_data, "dimenetplusplus", "dimenetplusplus_recommended", *overrides)
