"""Checkpoints of the code before units were kept in them (3e2aeaf) give the predictions that they gave then.

``<name>.npz`` holds conformations of the embedded sample (kcal/mol, Å) and what that code predicted for them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fairchem.core.datasets import data_list_collater
from test_schnet import by_edges
from torch_geometric.data import Data

from ocp_dc.evaluation import load_trainer
from ocp_dc.models import SchNetIReLU

CHECKPOINTS = Path(__file__).parent.parent / "data" / "checkpoints"


# a few of the last places of float32, in which the networks compute; C and reference energies are added in float64
ROUNDING = 4e-7


@pytest.mark.parametrize("name", ["schnet_dc", "cgcnn_irelu_recommended"])
def test_predictions_of_an_old_checkpoint_stay(name, monkeypatch):
    # as that code computed them: every directed edge by itself
    by_edges(monkeypatch, SchNetIReLU)
    assert_predictions_stay(name, rtol=1e-9)


def test_predictions_of_an_old_checkpoint_stay_by_pairs():
    assert_predictions_stay("schnet_dc", rtol=ROUNDING)


def assert_predictions_stay(name: str, rtol: float) -> None:
    before = np.load(CHECKPOINTS / f"{name}.npz")
    graphs = [conformation(before["atomic_numbers"], positions) for positions in before["positions"]]
    trainer = load_trainer(CHECKPOINTS / f"{name}.pt", cpu=True)
    now = trainer.predict_batch(data_list_collater(graphs, otf_graph=True))
    np.testing.assert_allclose(now["energy"].flatten(), before["energy"], rtol=rtol)
    largest = np.abs(before["forces"]).max()
    np.testing.assert_allclose(now["forces"].reshape(before["forces"].shape), before["forces"], atol=1e-5 * largest)


def conformation(atomic_numbers: np.ndarray, positions: np.ndarray) -> Data:
    return Data(
        atomic_numbers=torch.from_numpy(atomic_numbers),
        pos=torch.from_numpy(positions),
        natoms=len(atomic_numbers),
        fixed=torch.zeros(len(atomic_numbers)),
        cell=torch.zeros(1, 3, 3),
        pbc=torch.zeros(1, 3, dtype=torch.bool),
    )
