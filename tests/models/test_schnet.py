from contextlib import nullcontext

import pytest
import torch
from molecules import MOLECULES, ONE_ATOM, SLAB, THIN, TRICLINIC, WIRE, batch_of, structure
from small_models import SCHNET, float64_by_default
from test_properties import assert_close

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError
from ocp_dc.models import SchNetIReLU
from ocp_dc.transforms import replace_activations

ALONE = structure(torch.zeros(1, 3), torch.tensor([8]))
# structures, use_pbc, max_neighbors, and whether every edge then has its reverse
BATCHES = {
    "molecules": (MOLECULES, False, 50, True),
    "molecules_cut": (MOLECULES, False, 5, False),
    "atom": ((ALONE,), False, 50, True),
    "crystals": ((TRICLINIC, THIN), True, 50, True),
    "crystals_cut": ((TRICLINIC, THIN), True, 7, False),
    "own_images": ((ONE_ATOM,), True, 50, True),
}


def test_activation_sites():
    model = SCHNET.build()
    # one in the output block, and per interaction one in the filter network and one after the convolution
    assert len(model.replaced_activations) == 1 + 2 * SCHNET.settings["num_interactions"]
    assert isinstance(model.act, IReLU)
    assert not any("Softplus" in type(module).__name__ for module in model.modules())
    assert len(SCHNET.build(activation_scope="all").replaced_activations) == len(model.replaced_activations)
    assert SCHNET.build("original").replaced_activations == []


def test_unknown_scope_lists_the_known_ones():
    with pytest.raises(InputError, match=r"model\.activation_scope is 'head'.*paper, all"):
        SCHNET.build(activation_scope="head")


def energies_forces_gradients(model, structures, max_neighbors, dtype=torch.float64):
    batch = batch_of(*structures)
    batch.pos = batch.pos.to(dtype)
    model = model.to(dtype).train()
    model.max_neighbors = max_neighbors
    out = model(batch)
    loss = out["energy"].square().mean() + 30 * (out["forces"] - 0.1).abs().mean()
    return [out["energy"], out["forces"], *torch.autograd.grad(loss, list(model.parameters()))]


# float32 rounds in another order: to 1e-4 of the largest value
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["64", "32"])
@pytest.mark.parametrize("activation", ["original", "irelu"])
@pytest.mark.parametrize("name", BATCHES)
def test_pairs_equal_fairchems_interaction_blocks(name, activation, dtype, rtol):
    structures, use_pbc, max_neighbors, paired = BATCHES[name]
    fairchems, ours = SCHNET.build_fairchem("original"), SCHNET.build(activation, use_pbc=use_pbc)
    if activation == "irelu":
        replace_activations(fairchems, "irelu")
    ours.load_state_dict(fairchems.state_dict(), strict=True)
    # fairchem's limit takes positions of the default precision
    with float64_by_default() if dtype == torch.float64 else nullcontext():
        expected = energies_forces_gradients(fairchems, structures, max_neighbors, dtype)
    actual = energies_forces_gradients(ours, structures, max_neighbors, dtype)
    for of_fairchems, of_ours in zip(expected, actual, strict=True):
        assert_close(of_ours, of_fairchems, rtol)
    assert (ours.generate_one_way(batch_of(*structures))[1] is None) == paired


def by_edges(monkeypatch, owner):
    """fairchem's interaction blocks, which take every directed edge by itself."""
    monkeypatch.setattr(owner, "generate_one_way", lambda model, data: (model.generate_graph(data), None))
    monkeypatch.setattr(owner, "_interact", _interact_by_edges)


def _interact_by_edges(model, h, graph, _):
    edge_attr = model.distance_expansion(graph.edge_distance)
    for interaction in model.interactions:
        h = h + interaction(h, graph.edge_index, graph.edge_distance, edge_attr)
    return h


@pytest.mark.parametrize("max_neighbors", [50, 7])
def test_pairs_where_periodicities_differ(monkeypatch, max_neighbors):
    """Fairchem's search takes one periodicity a batch: here its blocks get the edges of ours."""
    structures = (TRICLINIC, SLAB, WIRE, MOLECULES[1], THIN)
    in_pairs = energies_forces_gradients(SCHNET.build(use_pbc=True), structures, max_neighbors)
    by_edges(monkeypatch, SchNetIReLU)
    for of_pairs, of_edges in zip(
        in_pairs, energies_forces_gradients(SCHNET.build(use_pbc=True), structures, max_neighbors), strict=True
    ):
        assert_close(of_pairs, of_edges)
