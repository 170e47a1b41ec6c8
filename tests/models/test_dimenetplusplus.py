import pytest
import torch
from molecules import ACETYLENE, MOLECULES, batch_of, moved, outputs, slopes
from small_models import DIMENETPLUSPLUS, float64_by_default
from torch import nn

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError
from ocp_dc.transforms import replace_activations


def test_conservative_changes_the_forces_alone():
    fairchems, ours = DIMENETPLUSPLUS.build_fairchem("original_fairchem_forces"), DIMENETPLUSPLUS.build("original")
    ours.load_state_dict(fairchems.state_dict())
    fairchem_energy, fairchem_forces = outputs(fairchems, *MOLECULES)
    energy, forces = outputs(ours, *MOLECULES)
    torch.testing.assert_close(energy, fairchem_energy, rtol=1e-10, atol=1e-10)
    assert (forces - fairchem_forces).abs().max() > 0.01 * fairchem_forces.abs().max()


def test_activation_sites():
    blocks = DIMENETPLUSPLUS.settings["num_blocks"]
    paper = DIMENETPLUSPLUS.build()
    assert [site.path for site in paper.replaced_activations] == [f"output_blocks.{i}.act" for i in range(blocks + 1)]
    everywhere = DIMENETPLUSPLUS.build(activation_scope="all")
    # besides: the embedding, and in each interaction block its own, one residual layer before and two after the skip
    assert len(everywhere.replaced_activations) == blocks + 1 + 1 + 4 * blocks
    assert any(isinstance(module, nn.SiLU) for module in paper.modules())
    assert not any(isinstance(module, nn.SiLU) for module in everywhere.modules())
    assert isinstance(paper.output_blocks[1].act, IReLU)
    assert DIMENETPLUSPLUS.build("original").replaced_activations == []


@pytest.mark.parametrize("form", ["original_fairchem_forces", "irelu_fairchem_forces"])
def test_fairchems_forces_are_not_the_negative_gradient(form):
    by_differences, by_forces = slopes(DIMENETPLUSPLUS.build(form), *MOLECULES)
    assert (by_forces - by_differences).abs().max() > 0.01 * by_differences.abs().max()


@pytest.mark.parametrize("form", ["original", "irelu", "irelu_all"])
def test_second_derivatives_of_a_linear_molecule(form):
    model = DIMENETPLUSPLUS.build(form).train()
    batch = batch_of(ACETYLENE)
    forces = model(batch)["forces"]
    assert torch.isfinite(forces).all()
    # across the axis, where the angles' own gradients do not exist
    (hessian_row,) = torch.autograd.grad(-forces[1, 1], batch.pos)
    step = torch.zeros_like(ACETYLENE.pos)
    step[1, 1] = 1e-5
    ahead, behind = (outputs(model, moved(ACETYLENE, ACETYLENE.pos + sign * step))[1] for sign in (1, -1))
    torch.testing.assert_close(hessian_row, -(ahead - behind) / 2e-5, rtol=1e-5, atol=1e-7)
    assert hessian_row.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation_scope": "head"}, r"model\.activation_scope is 'head'.*paper, all"),
        ({"denormalize": "batch"}, r"model\.denormalize is 'batch'; DimeNet\+\+ has no normalization"),
        ({"activation": "irely"}, r"'irelu'"),
    ],
)
def test_bad_settings_are_explained(settings, message):
    with pytest.raises(InputError, match=message):
        DIMENETPLUSPLUS.build(**settings)


@pytest.mark.parametrize("scope", ["paper", "all"])
@pytest.mark.parametrize("max_neighbors", [50, 5], ids=["all_neighbors", "cut"])
def test_equals_fairchems_with_irelu(scope, max_neighbors):
    """Where the limit cuts, edges lack their reverses, and atoms differ in their numbers of edges."""
    fairchems = DIMENETPLUSPLUS.build_fairchem("original_fairchem_forces")
    ours = DIMENETPLUSPLUS.build("irelu", activation_scope=scope, use_pbc=True, conservative=False)
    replace_activations(fairchems, "irelu", where=ours.activation_sites[scope])
    ours.load_state_dict(fairchems.state_dict())
    results = []
    for model in (fairchems, ours):
        model.train().max_neighbors = max_neighbors
        # fairchem's limit takes positions of the default precision
        with float64_by_default():
            out = model(batch_of(*MOLECULES))
        loss = out["energy"].square().mean() + 30 * (out["forces"] - 0.1).abs().mean()
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        results.append([out["energy"], out["forces"], *torch.autograd.grad(loss, trainable)])
    for of_fairchems, of_ours in zip(*results, strict=True):
        torch.testing.assert_close(of_ours, of_fairchems, rtol=1e-10, atol=1e-10 * of_fairchems.abs().max().item())
