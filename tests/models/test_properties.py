"""What every model must do, in each of its forms and in float64; the models and their claims are in small_models.py."""

import pytest
import torch
from molecules import ACETYLENE, CRYSTALS, MOLECULES, batch_of, moved, outputs, slopes, structure
from scipy.spatial.transform import Rotation
from small_models import MODELS


def each_form(where=lambda small, form: True):
    cases = [
        pytest.param(small, form, id=f"{small.name.removesuffix('_irelu')}-{form}")
        for small in MODELS
        for form in small.forms
        if where(small, form)
    ]
    return pytest.mark.parametrize(("small", "form"), cases)


def has_gradient_forces(small, form):
    settings = small.forms[form]
    return settings.get("conservative", True) and not settings.get("direct_forces", False)


def takes_the_originals_weights(small, form):
    return not {"name", "activation", "replaced_by_position"} & small.forms[form].keys()


def assert_close(actual, expected, rtol=1e-10):
    """Up to ``rtol`` of the largest value."""
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * expected.abs().max().item())


@each_form(has_gradient_forces)
def test_forces_are_the_negative_gradient(small, form):
    by_differences, by_forces = slopes(small.build(form), *MOLECULES)
    assert_close(by_forces, by_differences, rtol=1e-6)
    assert by_forces.abs().max() > 1e-6


@each_form()
def test_translation(small, form):
    model = small.build(form)
    energy, forces = outputs(model, MOLECULES[0])
    shift = torch.tensor([3.0, -1.0, 7.0])
    shifted_energy, shifted_forces = outputs(model, moved(MOLECULES[0], MOLECULES[0].pos + shift))
    assert_close(shifted_energy, energy)
    assert_close(shifted_forces, forces)


@each_form(lambda small, form: small.rotation_invariant)
def test_rotation(small, form):
    model = small.build(form)
    energy, forces = outputs(model, MOLECULES[0])
    rotation = torch.from_numpy(Rotation.from_euler("xyz", [0.4, 1.1, -0.7]).as_matrix())
    rotated_energy, rotated_forces = outputs(model, moved(MOLECULES[0], MOLECULES[0].pos @ rotation.T))
    assert_close(rotated_energy, energy)
    assert_close(rotated_forces, forces @ rotation.T)
    assert (forces @ rotation.T - forces).abs().max() > 0.1 * forces.abs().max()


@each_form()
def test_permutation(small, form):
    model = small.build(form)
    energy, forces = outputs(model, MOLECULES[0])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(4))
    shuffled = moved(MOLECULES[0], MOLECULES[0].pos[order])
    shuffled.atomic_numbers = MOLECULES[0].atomic_numbers[order]
    shuffled_energy, shuffled_forces = outputs(model, shuffled)
    assert_close(shuffled_energy, energy)
    assert_close(shuffled_forces, forces[order])


@each_form()
def test_molecules_of_a_batch_do_not_interact(small, form):
    model = small.build(form)
    energies, forces = outputs(model, *MOLECULES)
    alone = [outputs(model, m) for m in MOLECULES]
    assert_close(energies, torch.cat([energy for energy, _ in alone]))
    assert_close(forces, torch.cat([forces for _, forces in alone]))


@each_form()
def test_distant_copies(small, form):
    model = small.build(form)
    one = MOLECULES[0]
    two = structure(torch.cat([one.pos, one.pos + 50]), one.atomic_numbers.repeat(2))
    energy, forces = outputs(model, one)
    energy_of_two, forces_of_two = outputs(model, two)
    offset = model.get_parameter(small.energy_offset).detach() if small.energy_offset else 0
    assert_close(energy_of_two - offset, small.two_copies * (energy - offset))
    assert_close(forces_of_two, forces.repeat(2, 1) * small.two_copies / 2)


@each_form()
def test_continuity_at_the_cutoff(small, form):
    model = small.build(form)

    def with_an_atom_at(distance):
        across = (distance**2 - 0.1**2) ** 0.5
        pos = torch.tensor([[0, 0, 1.2], [0, 1.1, 0.6], [0, 0, 0], [across, 0, -0.1]], dtype=torch.float64)
        return outputs(model, structure(pos, torch.tensor([1, 1, 6, 8])))

    cutoff = small.settings["cutoff"]
    inside, outside, nearer = (with_an_atom_at(cutoff + change) for change in (-1e-8, 1e-8, -1))
    energy_jumps, forces_jump = (
        (before - after).abs().max() > 1e-6 * (elsewhere - after).abs().max()
        for before, after, elsewhere in zip(inside, outside, nearer, strict=True)
    )
    assert energy_jumps == (small.at_cutoff == "jump")
    assert forces_jump == (small.at_cutoff != "smooth" and has_gradient_forces(small, form))


@each_form()
def test_second_derivatives_are_finite(small, form):
    model = small.build(form).train()
    batch = batch_of(*MOLECULES, ACETYLENE)
    batch.pos.requires_grad_()
    out = model(batch)
    loss = out["energy"].square().mean() + out["forces"].square().mean()
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    # torch refuses where a parameter does not take part, and so does distributed training
    gradients = torch.autograd.grad(loss, [batch.pos, *trainable.values()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].any()
    assert sum(bool(gradient.any()) for gradient in gradients) > len(gradients) / 2


@each_form()
def test_saved_and_loaded_gives_the_same(small, form, tmp_path):
    model, again = small.build(form), small.build(form, seed=1)
    expected = outputs(model, *MOLECULES)
    assert not torch.allclose(outputs(again, *MOLECULES)[0], expected[0])
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True)
    for actual, saved in zip(outputs(again, *MOLECULES), expected, strict=True):
        assert torch.equal(actual, saved)


@pytest.mark.parametrize(
    ("structures", "use_pbc"),
    [(MOLECULES, False), (MOLECULES, True), (CRYSTALS, True)],
    ids=["molecules", "molecules_in_cells", "crystals"],
)
@each_form(lambda small, form: form in small.fairchem_forms)
def test_equals_fairchems(small, form, structures, use_pbc):
    fairchems, ours = small.build_fairchem(form), small.build(form, use_pbc=use_pbc)
    ours.load_state_dict(fairchems.state_dict(), strict=True)
    results = []
    for model in (fairchems.train(), ours.train()):
        out = model(batch_of(*structures))
        loss = out["energy"].abs().mean() + 30 * (out["forces"] - 0.1).abs().mean()
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        results.append([out["energy"], out["forces"], *torch.autograd.grad(loss, trainable)])
    for of_fairchems, of_ours in zip(*results, strict=True):
        torch.testing.assert_close(of_ours, of_fairchems, rtol=1e-10, atol=1e-10)


@each_form(takes_the_originals_weights)
def test_other_activations_keep_the_state_dict(small, form):
    original, model = small.build(form, activation="original"), small.build(form, seed=1)
    model.load_state_dict(original.state_dict(), strict=True)
    expected, _ = outputs(original, *MOLECULES)
    assert ((outputs(model, *MOLECULES)[0] - expected).abs() > 1e-3 * expected.abs()).all()


@each_form()
def test_molecules_need_no_images(small, form):
    model = small.build(form)
    energies, forces = outputs(model, *MOLECULES)
    model.use_pbc = True
    for periodic in (False, True):
        in_cells = [structure(m.pos, m.atomic_numbers, periodic=periodic) for m in MOLECULES]
        energies_in_cells, forces_in_cells = outputs(model, *in_cells)
        assert_close(energies_in_cells, energies)
        assert_close(forces_in_cells, forces)


@each_form()
def test_validation_gives_the_same(small, form):
    model = small.build(form)
    expected = outputs(model, *MOLECULES)
    with torch.no_grad():
        out = model(batch_of(*MOLECULES))
    for actual, with_graph in zip((out["energy"].detach(), out["forces"].detach()), expected, strict=True):
        assert_close(actual, with_graph, rtol=1e-12)
    assert not out["forces"].requires_grad


@each_form(has_gradient_forces)
def test_energies_alone(small, form):
    out = small.build(form, regress_forces=False)(batch_of(*MOLECULES))
    assert out.keys() == {"energy"}
    assert_close(out["energy"].detach(), outputs(small.build(form), *MOLECULES)[0])
