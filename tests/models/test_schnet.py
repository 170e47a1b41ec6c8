import copy

import numpy as np
import pytest
import torch
from fairchem.core.models.schnet import SchNetWrap
from scipy.spatial.transform import Rotation
from torch_geometric.data import Batch, Data

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError
from ocp_dc.models import SchNetIReLU

SIZES = {"hidden_channels": 24, "num_filters": 16, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}


def molecule(seed, natoms):
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*3 * [torch.arange(3.0, dtype=torch.float64)])[:natoms] * 1.3
    return Data(
        pos=grid + 0.2 * torch.randn(natoms, 3, generator=generator, dtype=torch.float64),
        atomic_numbers=torch.tensor([1, 6, 8, 7])[torch.randint(4, (natoms,), generator=generator)],
        natoms=natoms,
        cell=100 * torch.eye(3)[None],
        pbc=torch.zeros(1, 3, dtype=torch.bool),
    )


def batch_of(*molecules):
    return Batch.from_data_list([copy.copy(m) for m in molecules])


@pytest.fixture
def molecules():
    return [molecule(0, 9), molecule(1, 5), molecule(2, 12)]


@pytest.fixture(params=["irelu", "original", "integrated_silu"])
def model(request):
    torch.manual_seed(0)
    return SchNetIReLU(activation=request.param, **SIZES).double()


def outputs(model, *molecules):
    out = model(batch_of(*molecules))
    return out["energy"].detach(), out["forces"].detach()


@pytest.mark.parametrize("use_pbc", [True, False])
def test_original_equals_the_hosts_schnet(molecules, use_pbc):
    torch.manual_seed(0)
    host = SchNetWrap(use_pbc=True, otf_graph=True, **SIZES).double()
    ours = SchNetIReLU(activation="original", use_pbc=use_pbc, **SIZES).double()
    ours.load_state_dict(host.state_dict())
    gradients = []
    for model in (host, ours):
        out = model(batch_of(*molecules))
        loss = out["energy"].abs().mean() + 30 * (out["forces"] - 0.1).abs().mean()
        gradients.append([out["energy"], out["forces"], *torch.autograd.grad(loss, list(model.parameters()))])
    for of_host, of_ours in zip(*gradients, strict=True):
        torch.testing.assert_close(of_ours, of_host, rtol=1e-10, atol=1e-10)


def test_irelu_replaces_every_activation():
    model = SchNetIReLU(**SIZES)
    # one in the output block, and per interaction one in the filter network and one after the convolution
    assert len(model.replaced_activations) == 1 + 2 * SIZES["num_interactions"]
    assert isinstance(model.act, IReLU)
    assert not any("Softplus" in type(module).__name__ for module in model.modules())
    assert len(SchNetIReLU(activation_scope="all", **SIZES).replaced_activations) == len(model.replaced_activations)
    assert SchNetIReLU(activation="original", **SIZES).replaced_activations == []


def test_unknown_scope_lists_the_known_ones():
    with pytest.raises(InputError, match=r"model\.activation_scope is 'head'.*paper, all"):
        SchNetIReLU(activation_scope="head", **SIZES)


def test_forces_are_the_negative_gradient(model, molecules):
    _, forces = outputs(model, *molecules)
    batch = batch_of(*molecules)
    step = 1e-5
    for atom, axis in [(0, 0), (3, 2), (10, 1), (25, 0)]:
        energies = []
        for sign in (1, -1):
            moved = batch.clone()
            moved.pos = batch.pos.detach().clone()
            moved.pos[atom, axis] += sign * step
            energies.append(model(moved)["energy"].sum().item())
        numerical = -(energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis].item() == pytest.approx(numerical, rel=1e-6, abs=1e-8)


def test_rotation_translation_and_permutation(model, molecules):
    energy, forces = outputs(model, molecules[0])
    rotation = torch.from_numpy(Rotation.random(random_state=np.random.RandomState(3)).as_matrix())
    order = torch.randperm(9, generator=torch.Generator().manual_seed(4))
    moved = copy.copy(molecules[0])
    moved.pos = (moved.pos @ rotation.T + torch.tensor([1.0, -2.0, 0.5]))[order]
    moved.atomic_numbers = moved.atomic_numbers[order]
    moved_energy, moved_forces = outputs(model, moved)
    torch.testing.assert_close(moved_energy, energy, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moved_forces, (forces @ rotation.T)[order], rtol=1e-9, atol=1e-10)


def test_a_batch_is_its_molecules(model, molecules):
    energy, forces = outputs(model, *molecules)
    alone = [outputs(model, m) for m in molecules]
    torch.testing.assert_close(energy, torch.cat([e for e, _ in alone]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(forces, torch.cat([f for _, f in alone]), rtol=1e-11, atol=1e-12)


def test_two_distant_copies_have_twice_the_energy(model, molecules):
    energy, _ = outputs(model, molecules[0])
    pair = copy.copy(molecules[0])
    pair.pos = torch.cat([pair.pos, pair.pos + 50.0])
    pair.atomic_numbers = pair.atomic_numbers.repeat(2)
    pair.natoms = 18
    torch.testing.assert_close(outputs(model, pair)[0], 2 * energy, rtol=1e-12, atol=1e-12)


def test_continuous_at_the_cutoff(model):
    def dimer(distance):
        pos = torch.tensor([[0.0, 0, 0], [0, 0, distance]], dtype=torch.float64)
        return Data(pos=pos, atomic_numbers=torch.tensor([6, 8]), natoms=2)

    inside, _ = outputs(model, dimer(SIZES["cutoff"] - 1e-7))
    outside, _ = outputs(model, dimer(SIZES["cutoff"] + 1e-7))
    nearer, _ = outputs(model, dimer(SIZES["cutoff"] - 1.0))
    assert abs(inside - outside) < 1e-6 * abs(nearer - outside)


def test_second_derivatives_are_finite(model, molecules):
    out = model(batch_of(*molecules))
    gradients = torch.autograd.grad(out["forces"].square().sum(), list(model.parameters()), allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert sum(g is not None for g in gradients) > len(gradients) / 2


def test_saved_and_loaded_gives_the_same(model, molecules, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(99)
    site = model.replaced_activations
    activation = {0: "original"}.get(len(site)) or ("irelu" if isinstance(model.act, IReLU) else "integrated_silu")
    again = SchNetIReLU(activation=activation, **SIZES).double()
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for first, second in zip(outputs(model, *molecules), outputs(again, *molecules), strict=True):
        assert torch.equal(first, second)


def test_energy_only(molecules):
    model = SchNetIReLU(regress_forces=False, **SIZES).double()
    assert set(model(batch_of(*molecules))) == {"energy"}
