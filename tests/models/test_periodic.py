"""What every model must do with periodic images, in each of its forms and in float64."""

import pytest
import torch
from molecules import (
    MOLECULES,
    ONE_ATOM,
    SLAB,
    THIN,
    TRICLINIC,
    WIRE,
    batch_of,
    moved,
    outputs,
    slopes,
    structure,
    supercell,
)
from small_models import CGCNN, DIMENETPLUSPLUS, FORCENET, GEMNET_T, MODELS, SCHNET
from test_properties import assert_close, each_form, has_gradient_forces

from ocp_dc.edges import periodic_edges
from ocp_dc.errors import InputError

PERIODICITIES = (TRICLINIC, THIN, SLAB, MOLECULES[1], WIRE)


def assert_same_outputs(model, structures, expected):
    for actual, value in zip(outputs(model, *structures), expected, strict=True):
        assert_close(actual, value)


@pytest.mark.parametrize("cutoff", [4.0, 5.0])
def test_no_limit_is_reached_here(cutoff):
    batch = batch_of(*PERIODICITIES, supercell(THIN, 2, 1, 1))
    edge_index, *_ = periodic_edges(batch.pos, batch.cell, batch.pbc, batch.natoms, cutoff, 500)
    assert 10 < edge_index[1].bincount().max() <= 50


@each_form(has_gradient_forces)
def test_forces_are_the_negative_gradient(small, form):
    by_differences, by_forces = slopes(small.build(form, use_pbc=True), *PERIODICITIES)
    assert_close(by_forces, by_differences, rtol=1e-6)
    assert by_forces.abs().max() > 1e-6


@each_form()
def test_any_image_of_an_atom_will_do(small, form):
    model = small.build(form, use_pbc=True)
    generator = torch.Generator().manual_seed(0)
    elsewhere = []
    for data in PERIODICITIES:
        vectors = torch.randint(-3, 4, data.pos.shape, generator=generator).double() * data.pbc
        elsewhere.append(moved(data, data.pos + vectors @ data.cell[0].double()))
    assert_same_outputs(model, elsewhere, outputs(model, *PERIODICITIES))


@each_form()
def test_moved_and_wrapped_into_the_cell(small, form):
    model = small.build(form, use_pbc=True)
    wrapped = []
    for data in (TRICLINIC, THIN):
        cell = data.cell[0].double()
        fractional = (data.pos - data.pos.mean(dim=0)) @ torch.linalg.inv(cell)
        assert len(fractional.floor().unique(dim=0)) > 1
        wrapped.append(moved(data, (fractional - fractional.floor()) @ cell))
    assert_same_outputs(model, wrapped, outputs(model, TRICLINIC, THIN))


@pytest.mark.parametrize("repeats", [(2, 1, 1), (1, 2, 2)], ids=["2x1x1", "1x2x2"])
@each_form()
def test_a_supercell_is_the_same_crystal(small, form, repeats):
    model = small.build(form, use_pbc=True)
    offset = model.get_parameter(small.energy_offset).detach() if small.energy_offset else 0
    copies = repeats[0] * repeats[1] * repeats[2]
    times = copies if small.two_copies == 2 else 1
    for data in (TRICLINIC, THIN):
        energy, forces = outputs(model, data)
        energy_of_all, forces_of_all = outputs(model, supercell(data, *repeats))
        assert_close(energy_of_all - offset, times * (energy - offset))
        assert_close(forces_of_all, forces.repeat(copies, 1) * times / copies)


@each_form()
def test_permutation(small, form):
    model = small.build(form, use_pbc=True)
    energy, forces = outputs(model, THIN)
    order = torch.tensor([2, 0, 1])
    shuffled = moved(THIN, THIN.pos[order])
    shuffled.atomic_numbers = THIN.atomic_numbers[order]
    assert_same_outputs(model, [shuffled], (energy, forces[order]))


@each_form()
def test_structures_of_a_batch_do_not_interact(small, form):
    model = small.build(form, use_pbc=True)
    alone = [outputs(model, data) for data in PERIODICITIES]
    assert_same_outputs(model, PERIODICITIES, [torch.cat(values) for values in zip(*alone, strict=True)])


def with_edges(data, cutoff, max_neighbors=50, strict=True):
    stored = moved(data, data.pos)
    stored.edge_index, stored.cell_offsets, _ = periodic_edges(
        data.pos, data.cell, data.pbc, torch.tensor([data.natoms]), cutoff, max_neighbors, strict
    )
    return stored


@each_form()
def test_edges_from_the_data(small, form):
    stored = [with_edges(data, small.settings["cutoff"]) for data in PERIODICITIES]
    expected = outputs(small.build(form, use_pbc=True), *PERIODICITIES)
    assert_same_outputs(small.build(form, use_pbc=True, otf_graph=False), stored, expected)


@pytest.mark.parametrize("small", MODELS, ids=lambda small: small.name)
def test_a_limit_of_whole_shells_keeps_the_energy_of_a_crystal(small):
    """Strictly limited, equally near neighbours are left by chance."""
    model = small.build(use_pbc=True, otf_graph=False)
    offset = model.get_parameter(small.energy_offset).detach() if small.energy_offset else 0
    fcc = structure(torch.zeros(1, 3), torch.tensor([8]), cell=1.75 * (torch.ones(3, 3) - torch.eye(3)), periodic=True)
    energies = []
    for repeats in ((1, 1, 1), (2, 1, 1), (1, 2, 2)):
        crystal = supercell(fcc, *repeats)
        energy, _ = outputs(model, with_edges(crystal, small.settings["cutoff"], max_neighbors=5, strict=False))
        energies.append((energy - offset) / (crystal.natoms if small.two_copies == 2 else 1))
    assert_close(torch.cat(energies[1:]), energies[0].repeat(2, 1))


@each_form()
def test_one_atom_that_sees_its_own_images(small, form):
    model = small.build(form, use_pbc=True)
    energy, forces = outputs(model, ONE_ATOM)
    if has_gradient_forces(small, form):
        assert forces.abs().max() < 1e-12
    farther = moved(ONE_ATOM, ONE_ATOM.pos)
    farther.cell = ONE_ATOM.cell * 1.25
    assert (outputs(model, farther)[0] - energy).abs() > 1e-6


@pytest.mark.parametrize("small", [SCHNET, CGCNN, DIMENETPLUSPLUS, FORCENET], ids=lambda small: small.name)
def test_atoms_without_neighbors(small):
    model = small.build(use_pbc=True)
    isolated = structure(ONE_ATOM.pos, ONE_ATOM.atomic_numbers, cell=20.0, periodic=True)
    alone = outputs(model, isolated)
    assert not alone[1].any()
    together = outputs(model, THIN, isolated)
    assert_close(together[0][1:], alone[0])
    assert_close(together[0][:1], outputs(model, THIN)[0])


def test_gemnet_asks_for_neighbors():
    model = GEMNET_T.build(use_pbc=True)
    isolated = structure(ONE_ATOM.pos, ONE_ATOM.atomic_numbers, cell=20.0, periodic=True)
    with pytest.raises(InputError, match="structure 1 of the batch has no two atoms within"):
        outputs(model, THIN, isolated)
    batch = batch_of(THIN, isolated)
    batch.sid = ["thin", "slab-17"]
    with pytest.raises(InputError, match=r"\(sid slab-17\)"):
        model(batch)
    pair = structure(torch.tensor([[0, 0, 0], [0, 0, 1.2]]), torch.tensor([6, 8]), cell=20.0, periodic=True)
    with pytest.raises(InputError, match="GemNet needs a triplet"):
        outputs(model, pair)
