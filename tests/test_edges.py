from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal
from fairchem.core.common.utils import radius_graph_pbc
from molecules import CRYSTALS, MOLECULES, SLAB, THIN, TRICLINIC, WIRE, batch_of, structure
from small_models import SCHNET
from torch_geometric.data import Batch, Data

from ocp_dc import edges
from ocp_dc.edges import molecule_edges, one_of_each_pair, one_of_each_pair_or_lone, periodic_edges
from ocp_dc.errors import InputError


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
    for atoms in positions:
        for i in range(len(atoms)):
            expected |= {
                (start + j, start + i) for j in range(len(atoms)) if i != j and (atoms[i] - atoms[j]).norm() <= 3.0
            }
        start += len(atoms)
    assert edge_set(edge_index) == expected
    assert len(expected) == edge_index.shape[1] == neighbors.sum()
    assert neighbors[1] == 0


@pytest.mark.parametrize("max_neighbors", [3, 50])
def test_same_edges_as_fairchem_without_images(positions, max_neighbors):
    molecules = [
        Data(pos=p, natoms=len(p), cell=100 * torch.eye(3).double()[None], pbc=torch.zeros(1, 3, dtype=torch.bool))
        for p in (positions[0].float(), positions[2].float())
    ]
    batch = Batch.from_data_list(molecules)
    batch.cell = batch.cell.float()
    fairchem_edges, _, fairchem_neighbors = radius_graph_pbc(
        batch, 4.0, max_neighbors, enforce_max_neighbors_strictly=True
    )
    edges, neighbors = molecule_edges(batch.pos, batch.natoms, 4.0, max_neighbors)
    assert edge_set(edges) == edge_set(fairchem_edges)
    assert neighbors.tolist() == fairchem_neighbors.tolist()
    if max_neighbors == 3:
        assert edges[1].bincount().max() == 3


def scattered(natoms, cell, pbc, spread=1.0):
    """Atoms over ``spread`` cells in each direction, or Å where there is no lattice vector."""
    atoms = Atoms(f"O{natoms}", cell=cell, pbc=pbc)
    fractional = spread * (np.random.default_rng(natoms).random((natoms, 3)) - 0.5)
    atoms.positions = fractional @ atoms.cell.complete()
    return atoms


STRUCTURES = {
    "fcc": bulk("Cu", "fcc", a=3.6),
    "rutile": crystal(
        ["Ti", "O"], [(0, 0, 0), (0.3, 0.3, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90], pbc=True
    ),
    "slab": fcc111("Pt", (2, 2, 3), a=3.9, vacuum=7.0),
    "slab_without_third_vector": scattered(7, [[4, 0, 0], [1, 5, 0], [0, 0, 0]], (True, True, False), spread=5),
    "upright_slab": scattered(7, [[4, 0, 0], [1, 0, 5], [0, 0, 0]], (True, True, False), spread=5),
    "triclinic": scattered(5, [[4, 0, 0], [1.3, 5, 0], [-2.1, 0.7, 6]], True),
    "thin": scattered(4, [[2.5, 0, 0], [0.4, 6, 0], [1, 1, 7]], True),
    "one_atom": scattered(1, 2.3 * np.eye(3), True),
    "wire": scattered(6, [[0, 0, 0], [0, 0, 0], [0, 1, 4]], (False, False, True), spread=6),
    "molecule": molecule("CH3CH2OH"),
    "atoms_outside": scattered(8, [[4, 0, 0], [1, 5, 0], [0.5, -1, 6]], (True, False, True), spread=7),
    "short_vector": scattered(6, [[0.5, 0, 0], [3, 5, 0], [-4, 0.7, 6]], (False, True, True), spread=2),
    "anisotropic": scattered(12, [[2.9, 0, 0], [0, 21, 0], [7, 0, 33]], True),
}
CUTOFF = 4.7


def fields(*structures, dtype=torch.float64):
    return {
        "pos": torch.tensor(np.concatenate([atoms.positions for atoms in structures]), dtype=dtype),
        "cell": torch.tensor(np.stack([atoms.cell[:] for atoms in structures]), dtype=dtype),
        "pbc": torch.tensor(np.stack([atoms.pbc for atoms in structures])),
        "natoms": torch.tensor([len(atoms) for atoms in structures]),
    }


def edges_of(edge_index, cell_offsets):
    """Sorted (i, j, offset)."""
    sender, receiver = edge_index
    assert torch.equal(cell_offsets, cell_offsets.round())
    return sorted(zip(receiver.tolist(), sender.tolist(), map(tuple, cell_offsets.int().tolist()), strict=True))


def ases_edges(*structures):
    edges, start = [], 0
    for atoms in structures:
        i, j, offsets = neighbor_list("ijS", atoms, CUTOFF)
        edges += zip((i + start).tolist(), (j + start).tolist(), map(tuple, offsets.tolist()), strict=True)
        start += len(atoms)
    return sorted(edges)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", STRUCTURES)
def test_same_edges_as_ase(name, dtype):
    edge_index, cell_offsets, neighbors = periodic_edges(
        **fields(STRUCTURES[name], dtype=dtype), cutoff=CUTOFF, max_neighbors=500
    )
    edges = edges_of(edge_index, cell_offsets)
    assert edges == ases_edges(STRUCTURES[name])
    assert neighbors.tolist() == [len(edges)]
    assert len(edges) > 0


def test_atoms_of_a_thin_cell_see_several_images():
    sender, receiver = periodic_edges(**fields(STRUCTURES["thin"]), cutoff=CUTOFF, max_neighbors=500)[0]
    images_of_others = torch.bincount((4 * receiver + sender)[sender != receiver])
    assert images_of_others.max() >= 3
    assert (sender == receiver).sum() >= 4 * 2


def test_one_batch_of_every_periodicity():
    structures = list(STRUCTURES.values())
    edge_index, cell_offsets, neighbors = periodic_edges(**fields(*structures), cutoff=CUTOFF, max_neighbors=500)
    assert edges_of(edge_index, cell_offsets) == ases_edges(*structures)
    assert neighbors.tolist() == [len(ases_edges(atoms)) for atoms in structures]
    periodic = torch.tensor(np.stack([atoms.pbc for atoms in structures])).repeat_interleave(neighbors, dim=0)
    assert not cell_offsets[~periodic].any()


UNIFORM = {
    "bulks": ("fcc", "rutile", "triclinic", "thin", "one_atom", "anisotropic"),
    "slabs": ("slab",),
    "molecules": ("molecule",),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("max_neighbors", [7, 500])
@pytest.mark.parametrize("kind", UNIFORM)
def test_fairchems_edges_in_fairchems_order(kind, max_neighbors, strict):
    structures = [STRUCTURES[name].copy() for name in UNIFORM[kind]]
    for atoms in structures:
        atoms.cell = atoms.cell.complete()
        atoms.wrap()
    batch = fields(*structures, dtype=torch.float32)
    expected = radius_graph_pbc(SimpleNamespace(**batch), CUTOFF, max_neighbors, enforce_max_neighbors_strictly=strict)
    for ours, fairchems in zip(
        periodic_edges(**batch, cutoff=CUTOFF, max_neighbors=max_neighbors, strict=strict), expected, strict=True
    ):
        assert torch.equal(ours, fairchems)
    most = expected[0][1].bincount().max()
    assert most == 7 if max_neighbors == 7 and strict else most > 7


@pytest.mark.parametrize("max_neighbors", [7, 500])
def test_both_searches_find_the_same(monkeypatch, max_neighbors):
    # off the lattice: which of several as near the limit keeps is arbitrary
    structures = [atoms.copy() for atoms in STRUCTURES.values()]
    for atoms in structures:
        atoms.rattle(0.05)
    batch = fields(*structures)
    with monkeypatch.context() as patch:
        patch.delattr(edges, "_found_by_fairchem")
        by_vesin = periodic_edges(**batch, cutoff=CUTOFF, max_neighbors=max_neighbors)
    monkeypatch.setattr(edges, "_found_by_vesin", edges._found_by_fairchem)
    by_fairchem = periodic_edges(**batch, cutoff=CUTOFF, max_neighbors=max_neighbors)
    assert edges_of(*by_vesin[:2]) == edges_of(*by_fairchem[:2])
    assert torch.equal(by_vesin[2], by_fairchem[2].to(by_vesin[2].dtype))


def neighbor_distances(atoms, **limits):
    """(N, neighbors), sorted, of a crystal whose atoms have the same number of them."""
    (sender, receiver), offsets, _ = periodic_edges(**fields(atoms), cutoff=CUTOFF, **limits)
    vectors = atoms.positions[sender] - atoms.positions[receiver] + offsets.numpy() @ atoms.cell[:]
    return np.sort(np.linalg.norm(vectors, axis=1).reshape(len(atoms), -1))


def test_a_limit_that_is_not_strict_keeps_whole_shells():
    # fcc has shells of 12, 6, 24, ...; the first beyond the limit is kept too
    expected = np.array(3.6 * np.sqrt([0.5] * 12 + [1.0] * 6))
    for repeats in ((1, 1, 1), (2, 1, 1), (1, 2, 2)):
        copper = STRUCTURES["fcc"] * repeats
        np.testing.assert_allclose(
            neighbor_distances(copper, max_neighbors=15, strict=False), np.tile(expected, (len(copper), 1))
        )
        for limits in ({}, {"strict": True}):
            assert neighbor_distances(copper, max_neighbors=15, **limits).shape == (len(copper), 15)


@pytest.mark.parametrize("nowhere", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["triclinic", "molecule"])
def test_atoms_that_are_nowhere_have_no_edges(name, nowhere):
    lost = STRUCTURES[name].copy()
    lost.positions[2, 1] = nowhere
    found = periodic_edges(**fields(lost), cutoff=CUTOFF, max_neighbors=500)
    expected = [edge for edge in ases_edges(STRUCTURES[name]) if 2 not in edge[:2]]
    assert edges_of(*found[:2]) == expected


def test_edges_have_no_gradient():
    batch = fields(STRUCTURES["triclinic"])
    expected = periodic_edges(**batch, cutoff=CUTOFF, max_neighbors=50)
    batch["pos"].requires_grad_()
    found = periodic_edges(**batch, cutoff=CUTOFF, max_neighbors=50)
    assert all(torch.equal(one, other) and not one.requires_grad for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("distance", "edges"), [(0.009, 0), (0.012, 2), (3.0, 2), (3.0005, 0)])
def test_from_which_distance_to_which_there_are_edges(distance, edges):
    two = fields(Atoms("O2", [(0, 0, 0), (distance, 0, 0)], cell=20 * np.eye(3), pbc=True))
    assert periodic_edges(**two, cutoff=3.0, max_neighbors=50)[2].tolist() == [edges]
    assert distance < 0.01 or molecule_edges(two["pos"], two["natoms"], 3.0, max_neighbors=50)[1].tolist() == [edges]


def test_how_flat_a_cell_may_be():
    flat = fields(Atoms("O", cell=[[3, 0, 0], [3, 4.5e-6, 0], [0, 0, 10]]))
    assert periodic_edges(**flat, cutoff=CUTOFF, max_neighbors=50)[2].tolist() == [0]
    flat["cell"][0, 1, 1] = 2.7e-6
    with pytest.raises(InputError, match="has no volume"):
        periodic_edges(**flat, cutoff=CUTOFF, max_neighbors=50)


def test_cells_that_cannot_be_used():
    molecule_and_slab = fields(STRUCTURES["molecule"], STRUCTURES["slab_without_third_vector"])
    molecule_and_slab["pbc"][1, 2] = True
    with pytest.raises(InputError, match="structure 1 of the batch is periodic along lattice vector 3, which is zero"):
        periodic_edges(**molecule_and_slab, cutoff=CUTOFF, max_neighbors=50)
    flat = fields(STRUCTURES["triclinic"])
    flat["cell"][0, 2] = flat["cell"][0, 0] - flat["cell"][0, 1]
    with pytest.raises(InputError, match="structure 0 of the batch has no volume"):
        periodic_edges(**flat, cutoff=CUTOFF, max_neighbors=50)


class TestGraphOfAModel:
    def test_data_without_pbc_is_periodic(self):
        model, batch = SCHNET.build(use_pbc=True), batch_of(*CRYSTALS)
        expected = model.generate_graph(batch)
        del batch.pbc
        graph = model.generate_graph(batch)
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert graph.cell_offsets.any()

    def test_one_structure_at_a_time(self, monkeypatch):
        batch, at_once = batch_of(TRICLINIC, SLAB, WIRE, THIN), []
        monkeypatch.setattr(
            edges, "periodic_edges", lambda *given: at_once.append(len(given[3])) or periodic_edges(*given)
        )
        together, single = (
            SCHNET.build(use_pbc=True, use_pbc_single=each).generate_graph(batch) for each in (False, True)
        )
        assert edges_of(single.edge_index, single.cell_offsets) == edges_of(together.edge_index, together.cell_offsets)
        assert torch.equal(single.neighbors, together.neighbors)
        assert at_once == [4, 1, 1, 1, 1]

    def test_stored_edges_are_taken_as_they_are(self):
        model, batch = SCHNET.build(use_pbc=True, otf_graph=False), batch_of(TRICLINIC)
        batch.edge_index, batch.cell_offsets = torch.tensor([[0], [1]]), torch.tensor([[0.0, 0, 1]])
        graph = model.generate_graph(batch)
        assert torch.equal(graph.edge_index, batch.edge_index)
        assert torch.equal(graph.cell_offsets, batch.cell_offsets)
        for name in ("edge_index", "cell_offsets"):
            lacking = batch.clone()
            del lacking[name]
            with pytest.raises(InputError, match=r"set model.otf_graph to True"):
                model.generate_graph(lacking)

    def test_vectors_are_those_to_the_images(self):
        # the last one has no edges
        batch = batch_of(TRICLINIC, SLAB, WIRE, structure(torch.zeros(1, 3), torch.tensor([8])))
        graph = SCHNET.build(use_pbc=True).generate_graph(batch)
        sender, receiver = graph.edge_index
        assert graph.neighbors.tolist() == batch.batch[receiver].bincount(minlength=4).tolist()
        displaced = torch.einsum("en,enx->ex", graph.cell_offsets.double(), batch.cell.double()[batch.batch[receiver]])
        torch.testing.assert_close(graph.offset_distances, displaced)
        torch.testing.assert_close(graph.edge_distance_vec, batch.pos[sender] + displaced - batch.pos[receiver])
        torch.testing.assert_close(graph.edge_distance, graph.edge_distance_vec.norm(dim=1))
        assert displaced.any()

    @pytest.mark.parametrize("structures", [CRYSTALS, MOLECULES])
    def test_where_edges_lack_their_reverse(self, structures):
        periodic = structures is CRYSTALS
        model, batch = SCHNET.build(use_pbc=periodic), batch_of(*structures)
        both_ways, paired = model.generate_pairs(batch)
        one_way, reverse = model.generate_one_way(batch)
        assert paired
        assert reverse is None
        assert torch.equal(one_way.edge_index, both_ways.edge_index)
        model.max_neighbors = 3
        every, paired = model.generate_pairs(batch)
        graph = model.generate_graph(batch)
        assert not paired
        assert torch.equal(every.edge_index, graph.edge_index)
        assert torch.equal(every.cell_offsets, graph.cell_offsets)
        one_way, reverse = model.generate_one_way(batch)
        assert reverse.dtype == batch.pos.dtype
        assert len(reverse) + reverse.sum() == every.edge_index.shape[1]
        assert 0 < reverse.sum() < len(reverse)


class TestOneOfEachPair:
    @pytest.mark.parametrize("name", STRUCTURES)
    def test_with_their_reverses_they_are_all_edges(self, name):
        # in any order, as edges may be stored
        edge_index, offsets, _ = periodic_edges(
            **fields(STRUCTURES[name], STRUCTURES["slab"]), cutoff=CUTOFF, max_neighbors=500
        )
        order = torch.randperm(len(offsets), generator=torch.Generator().manual_seed(0))
        edge_index, offsets = edge_index[:, order], offsets[order]
        pairs = one_of_each_pair(edge_index, offsets)
        both = torch.cat([edge_index[:, pairs], edge_index[:, pairs].flip(0)], dim=1)
        assert edges_of(both, torch.cat([offsets[pairs], -offsets[pairs]])) == edges_of(edge_index, offsets)

    def test_molecules(self, positions):
        natoms = torch.tensor([len(p) for p in positions])
        edge_index, _ = molecule_edges(torch.cat(positions), natoms, cutoff=3.0, max_neighbors=50)
        pairs = edge_index[:, one_of_each_pair(edge_index)]
        assert (pairs[0] < pairs[1]).all()
        assert edge_set(torch.cat([pairs, pairs.flip(0)], dim=1)) == edge_set(edge_index)

    @pytest.mark.parametrize("offsets", [None, torch.zeros(0, 3)])
    def test_no_edges(self, offsets):
        assert one_of_each_pair(torch.zeros(2, 0, dtype=torch.long), offsets).tolist() == []
        assert [len(each) for each in one_of_each_pair_or_lone(torch.zeros(2, 0, dtype=torch.long), offsets)] == [0, 0]

    @pytest.mark.parametrize("max_neighbors", [5, 500])
    @pytest.mark.parametrize("name", STRUCTURES)
    def test_lone_edges_stand_for_themselves(self, name, max_neighbors):
        edge_index, offsets, _ = periodic_edges(
            **fields(STRUCTURES[name], STRUCTURES["slab"]), cutoff=CUTOFF, max_neighbors=max_neighbors
        )
        kept, reverse = one_of_each_pair_or_lone(edge_index, offsets)
        back = edge_index[:, kept[reverse]].flip(0)
        both = torch.cat([edge_index[:, kept], back], dim=1)
        assert edges_of(both, torch.cat([offsets[kept], -offsets[kept[reverse]]])) == edges_of(edge_index, offsets)
        assert bool(reverse.all()) == (one_of_each_pair(edge_index, offsets) is not None)

    def test_none_where_an_edge_lacks_its_reverse(self, positions):
        natoms = torch.tensor([len(p) for p in positions])
        assert one_of_each_pair(molecule_edges(torch.cat(positions), natoms, 3.0, max_neighbors=2)[0]) is None
        # as many edges one way as the other
        assert one_of_each_pair(torch.tensor([[0, 2], [1, 0]])) is None
        itself = torch.zeros(2, 2, dtype=torch.long)
        assert one_of_each_pair(itself, torch.tensor([[0.0, 1, 0], [0, -1, 0]])).tolist() == [0]
        assert one_of_each_pair(itself, torch.tensor([[0.0, 1, 0], [0, -1, 1]])) is None

    @pytest.mark.parametrize("direction", range(3))
    def test_the_first_offset_of_those_that_stand_is_positive(self, direction):
        itself, offsets = torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 3)
        offsets[:, direction] = torch.tensor([1.0, -1.0])
        assert one_of_each_pair(itself, offsets).tolist() == [0]
        assert one_of_each_pair(itself, offsets.flip(0)).tolist() == [1]

    def test_no_two_edges_have_the_same_number(self):
        lone, offsets = torch.tensor([[0, 2], [3, 2]]), torch.tensor([[1.0, 0, 0], [1, 0, 0]])
        kept, reverse = one_of_each_pair_or_lone(lone, offsets)
        assert (sorted(kept.tolist()), reverse.tolist()) == ([0, 1], [False, False])


def test_a_model_has_no_fixed_edges_unless_it_says_so():
    assert type("Other", (edges.EdgesMixin,), {})().against_fixed_edges(None) == "Other has no fixed edges"
