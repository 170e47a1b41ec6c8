"""Checkpoints of the code before units were kept in them (3e2aeaf) give the predictions that they gave then.

``<name>.npz`` holds conformations of the embedded sample (kcal/mol, Å) and what that code predicted for them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fairchem.core.datasets import data_list_collater
from torch_geometric.data import Data

from ocp_dc.evaluation import load_trainer

CHECKPOINTS = Path(__file__).parent.parent / "data" / "checkpoints"


@pytest.mark.parametrize("name", ["schnet_dc", "cgcnn_irelu_recommended"])
def test_predictions_of_an_old_checkpoint_stay(name):
    before = np.load(CHECKPOINTS / f"{name}.npz")
    graphs = [conformation(before["atomic_numbers"], positions) for positions in before["positions"]]
    trainer = load_trainer(CHECKPOINTS / f"{name}.pt", cpu=True)
    now = trainer.predict(data_list_collater(graphs, otf_graph=True), per_image=False, disable_tqdm=True)
    np.testing.assert_allclose(now["energy"].flatten(), before["energy"], rtol=1e-9)
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
