import pytest
import torch
from fairchem.core.common.utils import radius_graph_pbc
from torch_geometric.data import Batch, Data

from ocp_dc.models.graph import molecule_edges


def edge_set(edge_index):
    return set(map(tuple, edge_index.T.tolist()))


@pytest.fixture
def positions():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(count, 3, generator=generator, dtype=torch.float64) * 6 for count in (9, 1, 21, 2)]


def test_edges_are_the_pairs_within_the_cutoff(positions):
    natoms = torch.tensor([len(p) for p in positions])
    edge_index, neighbors = molecule_edges(torch.cat(positions), natoms, cutoff=3.0, max_neighbors=50)
    expected, start = set(), 0
    for molecule in positions:
        for i in range(len(molecule)):
            expected |= {
                (start + j, start + i)
                for j in range(len(molecule))
                if i != j and (molecule[i] - molecule[j]).norm() <= 3.0
            }
        start += len(molecule)
    assert edge_set(edge_index) == expected
    assert len(expected) == edge_index.shape[1] == neighbors.sum()
    assert neighbors[1] == 0


@pytest.mark.parametrize("max_neighbors", [3, 50])
def test_same_edges_as_the_host_without_images(positions, max_neighbors):
    molecules = [
        Data(pos=p, natoms=len(p), cell=100 * torch.eye(3).double()[None], pbc=torch.zeros(1, 3, dtype=torch.bool))
        for p in (positions[0].float(), positions[2].float())
    ]
    batch = Batch.from_data_list(molecules)
    batch.cell = batch.cell.float()
    host_edges, _, host_neighbors = radius_graph_pbc(batch, 4.0, max_neighbors, enforce_max_neighbors_strictly=True)
    edges, neighbors = molecule_edges(batch.pos, batch.natoms, 4.0, max_neighbors)
    assert edge_set(edges) == edge_set(host_edges)
    assert neighbors.tolist() == host_neighbors.tolist()
    if max_neighbors == 3:
        assert edges[1].bincount().max() == 3
