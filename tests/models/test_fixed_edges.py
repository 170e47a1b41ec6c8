"""Batches of conformations of one molecule, with all pairs of its atoms as edges: the same as with their own edges."""

import pytest
import torch
from molecules import MOLECULES, TRICLINIC, batch_of, molecule, moved, structure
from small_models import CGCNN, GEMNET_T, MODELS, SCHNET
from test_properties import assert_close, has_gradient_forces

from ocp_dc.edges import EdgesMixin, molecule_edges
from ocp_dc.errors import InputError


def conformations(atoms=9):
    """Of one molecule; the third is stretched until most pairs are beyond every model's cutoff."""
    first = molecule(0, atoms)
    stretched = first.pos * torch.linspace(1, 3, atoms)[:, None]
    return [first, moved(first, first.pos.flip(0)), moved(first, stretched), moved(first, 0.8 * first.pos)]


def supports_fixed_edges(small, form):
    """Wherever atoms are."""
    model, batch = small.build(form), batch_of(*conformations())
    if not isinstance(model, EdgesMixin):
        return False
    return (
        model.against_fixed_edges(batch) is None and model.against_fixed_edges_at(batch.pos, len(batch.natoms)) is None
    )


FORMS = [
    pytest.param(small, form, id=f"{small.name.removesuffix('_irelu')}-{form}")
    for small in MODELS
    for form in small.forms
    if supports_fixed_edges(small, form)
]


def energies_forces_gradients(model, batch):
    out = model.train()(batch)
    loss = out["energy"].square().mean() + 30 * (out["forces"] - 0.1).abs().mean()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {**out, **dict(zip(trained, gradients, strict=True))}


def assert_same(actual, expected):
    """Of what :func:`energies_forces_gradients` gives."""
    largest = max(value.abs().max() for value in expected.values() if value is not None)
    for name, value in expected.items():
        if value is None:
            assert actual[name] is None, name
        elif value.abs().max() < 1e-12 * largest:
            # a bias before a batch normalization has no gradient
            assert actual[name].abs().max() < 1e-12 * largest, name
        else:
            assert_close(actual[name], value)


def assert_same_step(model, other, batch):
    """Energies, forces, and the gradients of every parameter."""
    assert_same(energies_forces_gradients(model, batch.clone()), energies_forces_gradients(other, batch.clone()))


@pytest.mark.parametrize(("small", "form"), FORMS)
def test_energies_forces_and_gradients(small, form):
    model, structures = small.build(form), conformations()
    own = energies_forces_gradients(model, batch_of(*structures))
    with model.fixed_edges(batch_of(*structures)):
        fixed = energies_forces_gradients(model, batch_of(*structures))
    # the test is of edges that do not count
    edges = molecule_edges(structures[2].pos, torch.tensor([9]), model.cutoff, 50)[0].shape[1]
    assert edges < 0.7 * 9 * 8
    assert_same(fixed, own)


@pytest.mark.parametrize(("small", "form"), FORMS)
def test_an_atom_out_of_everyones_reach_changes_nothing(small, form):
    model = small.build(form)
    near, far = (structure(torch.tensor([[0.0, 0, 0], [1.2, 0, 0], [1.9, 1, 0], [x, 0, 0]]), torch.ones(4).long())
                 for x in (30.0, 80.0))  # fmt: skip
    with model.fixed_edges(batch_of(near)):
        results = [energies_forces_gradients(model, batch_of(each)) for each in (near, far)]
    assert results[0]["energy"].isfinite().all()
    if has_gradient_forces(small, form):
        assert torch.equal(results[0]["forces"][3], torch.zeros(3).double())
    for name, value in results[0].items():
        assert value is None or torch.equal(value, results[1][name]), name


def test_edges_are_those_of_a_molecule_within_reach():
    model, batch = SCHNET.build(cutoff=100.0), batch_of(*conformations(5))
    usual, usual_pairs = model.generate_graph(batch), model.generate_pairs(batch)[0]
    with model.fixed_edges(batch):
        fixed, (pairs, paired) = model.generate_graph(batch), model.generate_pairs(batch)
        assert fixed.edge_index.data_ptr() == model.generate_graph(batch).edge_index.data_ptr()
    assert torch.equal(fixed.edge_index, usual.edge_index)
    assert torch.equal(fixed.edge_distance, usual.edge_distance)
    assert torch.equal(fixed.neighbors, usual.neighbors)
    assert torch.equal(pairs.edge_index, usual_pairs.edge_index)
    assert paired
    assert fixed.within.dtype == batch.pos.dtype
    assert fixed.within.all()
    assert usual.within is None
    assert model.generate_graph(batch).within is None


def test_atoms_at_the_cutoff_are_within_it():
    model, batch = (
        SCHNET.build(cutoff=3.0),
        batch_of(structure(torch.tensor([[0.0, 0, 0], [3, 0, 0]]), torch.ones(2).long())),
    )
    with model.fixed_edges(batch):
        assert model.generate_graph(batch).within.tolist() == [1, 1]


def test_one_atom_has_no_edges():
    model, atom = SCHNET.build(), structure(torch.zeros(1, 3), torch.tensor([8]))
    own = energies_forces_gradients(model, batch_of(atom, atom))["energy"]
    with model.fixed_edges(batch_of(atom, atom)):
        assert_close(energies_forces_gradients(model, batch_of(atom, atom))["energy"], own)


FIRST = MOLECULES[0]
REORDERED = structure(FIRST.pos, FIRST.atomic_numbers.flip(0))
LIMITED = SCHNET.build()
LIMITED.max_neighbors = 7


@pytest.mark.parametrize(
    ("model", "structures", "reason"),
    [
        (SCHNET.build(use_pbc=True), (TRICLINIC,), "model.use_pbc is True"),
        (SCHNET.build(), MOLECULES, "differ in their numbers of atoms"),
        (SCHNET.build(), (FIRST, REORDERED), "differ in their atoms"),
        (LIMITED, (FIRST,), "can have 8 neighbours, more than max_neighbors, 7"),
    ],
)
def test_where_edges_cannot_be_fixed(model, structures, reason):
    with pytest.raises(InputError, match=reason), model.fixed_edges(batch_of(*structures)):
        pass


def test_as_many_neighbours_as_may_be_can_be_fixed():
    model = SCHNET.build()
    model.max_neighbors = len(FIRST.pos) - 1
    assert model.against_fixed_edges(batch_of(FIRST)) is None


def test_cgcnns_batch_norm_counts_them_all():
    model, near, far = CGCNN.build(), molecule(0, 9), conformations()[2]
    near.pos = near.pos * (0.99 * model.cutoff / torch.pdist(near.pos).max())
    own = energies_forces_gradients(model, batch_of(near, near))
    with model.fixed_edges(batch_of(near, near)):
        fixed = energies_forces_gradients(model, batch_of(near, near))
    assert_same(fixed, own)
    batch = batch_of(near, far)
    with pytest.raises(InputError, match=r"over edges.*denormalize"), model.fixed_edges(batch):
        pass


def test_a_model_that_does_not_leave_edges_out():
    model = CGCNN.build()
    model.supports_fixed_edges = False
    with pytest.raises(InputError, match="CGCNNIReLU has no fixed edges"), model.fixed_edges(batch_of(FIRST)):
        pass


def test_gemnet_needs_a_triplet():
    assert GEMNET_T.build().against_fixed_edges(batch_of(molecule(0, 2))) == "GemNet needs a triplet"
