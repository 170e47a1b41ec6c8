import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from fairchem.core.common.utils import radius_graph_pbc
from fairchem.core.models.utils.basis import Basis, SphericalSmearing
from molecules import MOLECULES, THIN, TRICLINIC, batch_of, molecule, moved, outputs, slopes, structure
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm
from small_models import FORCENET, float64_by_default
from test_fixed_edges import assert_same_step
from torch import nn
from torch_geometric.data import Batch

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError
from ocp_dc.models.forcenet import ABLATIONS, BASES, InteractionBlock
from ocp_dc.models.forcenet_basis import DifferentiableSphericalSmearing, ReversibleGaussians

ORACLE = Path(__file__).parent.parent / "data" / "oracle"


# --- the original's numbers


def oracle(basis):
    with np.load(ORACLE / f"forcenet_{basis}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def oracle_model(basis, form="forcenet", **settings):
    model = FORCENET.build(form, basis=basis, **{"use_pbc": True, **settings})
    arrays = oracle(basis)
    state = {key.removeprefix("state/"): arrays[key] for key in arrays if key.startswith("state/")}
    model.load_state_dict(state, strict=True)
    return model


def oracle_batch(basis, name):
    arrays = oracle(basis)
    fields = {key: arrays[f"{name}/{key}"] for key in ("pos", "atomic_numbers", "natoms", "batch")}
    # fairchem's periodic edges need cells in float32
    return Batch(**fields, cell=arrays[f"{name}/cell"].float())


def round_to_float32(module, inputs, output):
    return output.float().double()


@pytest.mark.parametrize("form", ["forcenet", "original"])
@pytest.mark.parametrize("basis", ["gauss", "sphallmul"])
@pytest.mark.parametrize("name", ["molecules", "periodic"])
def test_equals_ocps_forcenet(form, basis, name):
    energies_model, decoder_model = (oracle_model(basis, form, direct_forces=direct) for direct in (False, True))
    if basis == "sphallmul":
        # the original rounds its spherical harmonics to float32, whatever the precision of the rest
        for model in (energies_model, decoder_model):
            model.spherical.register_forward_hook(round_to_float32)
    with float64_by_default():
        out = energies_model(oracle_batch(basis, name))
        direct = decoder_model(oracle_batch(basis, name))
    expected = {key: oracle(basis)[f"{name}/{key}"] for key in ("energy", "forces", "decoder_forces")}
    close = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(out["energy"][:, 0], expected["energy"], **close)
    torch.testing.assert_close(direct["energy"][:, 0], expected["energy"], **close)
    torch.testing.assert_close(direct["forces"], expected["decoder_forces"], **close)
    if basis == "gauss":
        torch.testing.assert_close(out["forces"], expected["forces"], **close)
    else:
        assert expected["forces"].isnan().all()
        assert out["forces"].isfinite().all()


@pytest.mark.parametrize("name", ["molecules", "periodic"])
def test_unrounded_harmonics_differ_from_ocps_by_its_rounding(name):
    with float64_by_default():
        out = oracle_model("sphallmul", direct_forces=True)(oracle_batch("sphallmul", name))
    expected = oracle("sphallmul")
    torch.testing.assert_close(out["energy"][:, 0], expected[f"{name}/energy"], rtol=0, atol=5e-8)
    torch.testing.assert_close(out["forces"], expected[f"{name}/decoder_forces"], rtol=0, atol=5e-8)


def test_element_tables_equal_ocps():
    state = FORCENET.build("forcenet").state_dict()
    for key in ("atom_map", "atom_radii"):
        torch.testing.assert_close(state[key], oracle("gauss")[f"state/{key}"], rtol=0, atol=2e-7, equal_nan=True)


def test_without_images_equals_ocps():
    out = oracle_model("gauss", use_pbc=False)(oracle_batch("gauss", "molecules"))
    torch.testing.assert_close(out["energy"][:, 0], oracle("gauss")["molecules/energy"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(out["forces"], oracle("gauss")["molecules/forces"], rtol=1e-10, atol=1e-12)


def test_reads_edges_from_the_data():
    batch = oracle_batch("gauss", "molecules")
    batch.edge_index, batch.cell_offsets, batch.neighbors = radius_graph_pbc(batch, 5.0, 50)
    out = oracle_model("gauss", otf_graph=False)(batch)
    torch.testing.assert_close(out["energy"][:, 0], oracle("gauss")["molecules/energy"], rtol=1e-10, atol=1e-12)


def update_by_the_equations(block, h, edge_index, edge_attr, edge_weight):
    """OCP's interaction, one edge at a time."""
    own = {"noself": torch.zeros_like(h)}.get(block.ablation)
    if block.ablation == "nofilter":
        own = block.center_W.repeat(len(h), 1)
    elif own is None:
        own = block.center_W * block.lin(h)
    total = list(own)
    for edge, (j, i) in enumerate(edge_index.T.tolist()):
        inputs = [edge_attr[edge] if block.lin_basis is None else block.lin_basis(edge_attr[edge])]
        if block.ablation != "nocond":
            inputs += [h[j], h[i]]
        message = edge_weight[edge] * block.mlp_edge(torch.cat(inputs)[None])[0]
        total[i] = total[i] + (message if block.ablation == "nofilter" else message * block.lin(h[j]))
    return block.mlp_trans(torch.stack(total))


@pytest.mark.parametrize("basis", ["gauss", "rawcat"])
def test_interactions_follow_their_equations(basis):
    for ablation in ABLATIONS:
        check_interaction(ablation, basis)


def check_interaction(ablation, basis):
    torch.manual_seed(0)
    with float64_by_default():
        depths = (0, 0) if ablation in ("nodelinear", "edgelinear") else (2, 1)
        block = InteractionBlock(8, 6, basis, *depths, activation_str="swish", ablation=ablation).eval()
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.5)
        h, edge_attr, edge_weight = torch.randn(4, 8), torch.randn(9, 6), torch.rand(9)
        edge_index = torch.randint(4, (2, 9))
    expected = update_by_the_equations(block, h, edge_index, edge_attr, edge_weight)
    factor, constant, of_atoms = block.first_edge_layer()
    update = block(h, edge_index, edge_attr @ factor + constant, of_atoms, edge_weight[:, None])
    torch.testing.assert_close(update, expected, rtol=1e-12, atol=1e-12, msg=lambda text: f"{ablation}: {text}")


def test_edge_features_are_direction_and_distances_less_radii():
    model = FORCENET.build("forcenet", basis="raw")
    pair = structure(torch.tensor([[0.0, 0.0, 0.0], [1.2, 0.0, 1.6]]).double(), torch.tensor([1, 8]))
    features = model._edge_attributes(model.generate_graph(batch_of(pair)))
    # into atom 0 (hydrogen, 0.25 Å) from atom 1 (oxygen, 0.60 Å), and back; 2 Å apart, cutoff 5 Å
    expected = [[0.6, 0, 0.8, 0.4, 0.28, 0.35, 0.23], [-0.6, 0, -0.8, 0.4, 0.35, 0.28, 0.23]]
    torch.testing.assert_close(features, torch.tensor(expected).double(), rtol=0, atol=1e-7)


# --- both directions of an edge at once


def test_gaussians_of_both_directions():
    torch.manual_seed(0)
    for num_freqs, (reverse, directions) in itertools.product((4, 5), (([0, 1, 2, 3, 5, 4, 6], 3), ([0, 2, 1, 3], 0))):
        with float64_by_default():
            basis = Basis(len(reverse), num_freqs, "gauss")
            x, weight, bias = torch.rand(6, len(reverse)), torch.randn(basis.out_dim, 8), torch.randn(8)
        reversed_x = x[:, reverse]
        reversed_x[:, :directions] = 1 - reversed_x[:, :directions]
        out = ReversibleGaussians(reverse, directions, num_freqs)(x, basis.smearing, weight, bias)
        expected = basis(torch.cat([x, reversed_x])) @ weight + bias
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(out[:6], out[6:])


@pytest.mark.parametrize("ablation", ["none", "nodistlist", "onlydist", "nofilter"])
@pytest.mark.parametrize("form", ["original", "irelu", "irelu_by_position"])
def test_pairs_equal_edges(form, ablation):
    for structures, use_pbc in ((MOLECULES, False), ((TRICLINIC, THIN), True)):
        settings = {"basis": "gauss", "ablation": ablation, "use_pbc": use_pbc}
        in_pairs, by_edges = (FORCENET.build(form, **settings) for _ in range(2))
        by_edges.generate_pairs = lambda data, model=by_edges: (model.generate_graph(data), False)
        assert in_pairs.generate_pairs(batch_of(*structures))[1]
        assert_same_step(in_pairs, by_edges, batch_of(*structures))


# --- spherical harmonics


@pytest.mark.filterwarnings("ignore:.*sph_harm.*:DeprecationWarning")
@pytest.mark.parametrize(("option", "max_n"), [("all", 3), ("all", 10), ("sine", 2), ("sine", 10), ("cosine", 10)])
def test_spherical_harmonics_equal_fairchems(option, max_n):
    torch.manual_seed(0)
    vectors = torch.cat([torch.randn(200, 3).double(), torch.eye(3).double(), -torch.eye(3).double()])
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    fairchems, ours = SphericalSmearing(max_n, option), DifferentiableSphericalSmearing(max_n, option)
    torch.testing.assert_close(ours(vectors).float(), fairchems(vectors), rtol=0, atol=2e-7)
    # fairchem rounds to float32, so in float64 compare with what it computes before
    x, y, z = vectors.numpy().T
    complex_values = sph_harm(fairchems.m, fairchems.n, np.arctan2(y, x)[:, None] % (2 * np.pi), np.arccos(z)[:, None])
    zonal, others = complex_values[:, fairchems.m == 0], complex_values[:, fairchems.m != 0]
    expected = torch.from_numpy(np.concatenate([zonal.real, others.real, others.imag], axis=1))
    torch.testing.assert_close(ours(vectors), expected, rtol=0, atol=1e-12)
    assert ours.out_dim == expected.shape[1]


def test_spherical_harmonics_can_be_differentiated_twice_at_the_poles():
    smearing = DifferentiableSphericalSmearing(4)
    vectors = torch.tensor([[0.0, 0, 1], [0, 0, -2], [1, 0, 0], [1e-9, 0, 1], [0.3, -0.5, 0.2]]).double()
    assert torch.autograd.gradcheck(smearing, vectors.requires_grad_())
    assert torch.autograd.gradgradcheck(smearing, vectors)


# --- properties


@pytest.mark.parametrize("form", ["forcenet", "irelu", "irelu_all_denorm"])
def test_forces_are_the_negative_gradient_with_every_basis(form):
    for basis in BASES:
        check_forces(FORCENET.build(form, basis=basis), basis)


def check_forces(model, basis):
    data = molecule(0, 7)
    # two atoms along z of each other: the pole of the spherical harmonics
    data.pos[1] = data.pos[0] + torch.tensor([0.0, 0.0, 1.5])
    by_differences, by_forces = slopes(model, data)
    largest = by_differences.abs().max().item()
    torch.testing.assert_close(by_forces, by_differences, rtol=1e-5, atol=1e-6 * largest, msg=lambda m: f"{basis}: {m}")
    assert largest > 1e-5, basis


def test_the_decoder_changes_the_forces_alone():
    direct, by_gradient = FORCENET.build("forcenet", direct_forces=True), FORCENET.build("forcenet")
    by_gradient.load_state_dict(direct.state_dict())
    (energy, forces), (same_energy, other_forces) = (outputs(model, *MOLECULES) for model in (direct, by_gradient))
    torch.testing.assert_close(energy, same_energy)
    assert forces.shape == other_forces.shape == (26, 3)
    assert not torch.allclose(forces, other_forces)
    for model, trained in ((direct, True), (by_gradient, False)):
        assert all(parameter.requires_grad is trained for parameter in model.decoder.parameters())


def test_rotation_changes_the_energy_unless_directions_are_left_out():
    data = molecule(0, 9)
    rotation = torch.from_numpy(Rotation.from_euler("xyz", [0.4, 1.1, -0.7]).as_matrix())
    rotated = moved(data, data.pos @ rotation.T)
    # ForceNet is not invariant, it learns from rotated data
    for basis in ("gauss", "sphallmul", "linact"):
        model = FORCENET.build("forcenet", basis=basis)
        assert (outputs(model, rotated)[0] - outputs(model, data)[0]).abs() > 1e-6
    for basis in ("gauss", "sphallmul"):
        model = FORCENET.build("forcenet", basis=basis, ablation="onlydist")
        energy, forces = outputs(model, data)
        torch.testing.assert_close(outputs(model, rotated), (energy, forces @ rotation.T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["forcenet", "irelu", "irelu_by_position"])
def test_second_derivatives_are_finite_with_every_basis(form):
    for basis in BASES:
        check_second_derivatives(FORCENET.build(form, basis=basis).train(), basis)


def check_second_derivatives(model, basis):
    along_z = structure(torch.tensor([[0.0, 0, 0], [0, 0, 1.1], [0, 0, 2.5], [1.0, 0, 0]]), torch.tensor([8, 6, 8, 1]))
    batch = batch_of(along_z, molecule(1, 5))
    out = model(batch)
    loss = out["energy"].square().mean() + out["forces"].square().mean()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, [batch.pos, *trainable])
    assert all(gradient.isfinite().all() for gradient in gradients), basis
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("feat", ["full", "simple"])
def test_every_ablation_runs(feat):
    for ablation, basis in itertools.product(ABLATIONS, ["gauss", "rawcat", "sphallmul", "sphcosinecat"]):
        energy, forces = outputs(FORCENET.build("irelu", ablation=ablation, feat=feat, basis=basis), molecule(1, 5))
        assert energy.isfinite().all(), (ablation, basis)
        assert forces.isfinite().all(), (ablation, basis)


def test_atomic_radii_matter_unless_left_out():
    for ablation, matters in (("none", True), ("nodistlist", False)):
        model = FORCENET.build("forcenet", ablation=ablation)
        before, _ = outputs(model, *MOLECULES)
        model.atom_radii.data *= 0.5
        assert torch.allclose(outputs(model, *MOLECULES)[0], before) is not matters


# --- the variants


@pytest.mark.parametrize(
    ("scope", "basis", "sites"),
    [("paper", "gauss", 16), ("all", "gauss", 17), ("paper", "linact", 16), ("all", "linact", 19)],
)
def test_activation_sites(scope, basis, sites):
    # 5 interactions with two activations on edges and one on nodes, and the final one; then the decoder, the two bases
    model = FORCENET.build(basis=basis, activation_scope=scope, num_interactions=5)
    assert len(model.replaced_activations) == sites
    assert sum(isinstance(module, IReLU) for module in model.modules()) == sites
    decoder_site = "decoder.decoder.2" in {site.path for site in model.replaced_activations}
    assert decoder_site is (scope == "all")
    assert model.removed_normalizations == []


@pytest.mark.parametrize("which", ["batch", "all"])
def test_denormalize_removes_every_batch_norm(which):
    model = FORCENET.build("irelu", denormalize=which)
    # one in each interaction's node MLP and one in the decoder
    assert len(model.removed_normalizations) == FORCENET.settings["num_interactions"] + 1
    assert not any(isinstance(module, nn.BatchNorm1d) for module in model.modules())


def test_original_is_forcenet():
    original = FORCENET.build("original")
    assert original.replaced_activations == []
    torch.testing.assert_close(
        outputs(original, *MOLECULES), outputs(FORCENET.build("forcenet"), *MOLECULES), rtol=0, atol=0
    )


def test_replacing_by_position_ends_node_mlps_with_the_activation():
    model = FORCENET.build("irelu_by_position")
    for block in model.interactions:
        assert [type(layer).__name__ for layer in block.mlp_trans] == ["Linear", "Removed", "Activation", "IReLU"]
        assert [type(layer).__name__ for layer in block.mlp_edge] == ["Linear", "IReLU", "Linear", "IReLU", "Linear"]
    assert isinstance(model.activation, IReLU)
    assert len(model.replaced_activations) == FORCENET.settings["num_interactions"] * 3 + 1


@pytest.mark.parametrize(
    "settings",
    [{}, {"denormalize": "batch", "depth_mlp_node": 2}, {"denormalize": "batch", "activation": "original"}],
    ids=str,
)
def test_replacing_by_position_says_what_it_needs(settings):
    with pytest.raises(InputError, match=r"model\.replaced_by_position.*denormalize.*depth_mlp_node"):
        FORCENET.build("irelu", replaced_by_position=True, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"basis": "sphall"}, r"model\.basis is 'sphall'.*sphallmul"),
        ({"feat": "half"}, r"model\.feat is 'half'.*full, simple"),
        ({"ablation": "act"}, r"model\.ablation is 'act'.*nofilter"),
        ({"decoder_type": "cnn"}, r"model\.decoder_type is 'cnn'.*mlp, linear"),
        ({"activation_str": "swoosh"}, r"model\.activation_str is 'swoosh'"),
        ({"basis": "sphsinemul", "max_n": 1}, r"model\.max_n is 1.*sphsinemul"),
        ({"denormalize": "layer"}, r"model\.denormalize is 'layer'.*none, batch, all"),
        ({"activation_scope": "head"}, r"model\.activation_scope is 'head'.*paper, all"),
    ],
)
def test_errors_name_the_setting_and_the_known_values(settings, message):
    with pytest.raises(InputError, match=message):
        FORCENET.build("irelu", **settings)
