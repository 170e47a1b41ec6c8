from pathlib import Path

import pytest
import torch
from fairchem.core.common.utils import load_config
from fairchem.core.models.gemnet.gemnet import GemNetT
from fairchem.core.modules.scaling.util import ensure_fitted
from molecules import MOLECULES, batch_of, outputs
from small_models import GEMNET_T, float64_by_default, scale_factors
from torch import nn

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError
from ocp_dc.models.gemnet_t import GemNetTIReLU
from ocp_dc.models.scale_factors import read_scale_factors
from ocp_dc.transforms import replace_activations

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "md17"
PUBLISHED_FACTORS = Path(__file__).parent.parent / "data" / "gemnet_scale_factors.json"
SIZES = GEMNET_T.settings


@pytest.mark.parametrize("direct_forces", [False, True])
@pytest.mark.parametrize("rbf", ["gaussian", "bernstein"])
def test_activation_sites(direct_forces, rbf):
    blocks, settings = SIZES["num_blocks"], {"direct_forces": direct_forces, "rbf": {"name": rbf}}
    mlp = 1 + 2 * SIZES["num_atom"]
    in_output_blocks = (blocks + 1) * mlp * (2 if direct_forces else 1)
    paper = GEMNET_T.build(**settings)
    assert len(paper.replaced_activations) == in_output_blocks
    assert all(site.path.startswith("out_blocks.") for site in paper.replaced_activations)
    everywhere = GEMNET_T.build(activation_scope="all", **settings)
    residual_layers = SIZES["num_before_skip"] + SIZES["num_after_skip"] + SIZES["num_concat"]
    # dense_ca, four in the triplet interaction, the residual layers, the atom update, the concatenation
    in_interaction_block = 1 + 4 + 2 * residual_layers + mlp + 1
    assert len(everywhere.replaced_activations) == in_output_blocks + 1 + blocks * in_interaction_block
    assert {site.old for site in everywhere.replaced_activations} == {"ScaledSiLU"}
    assert not any(isinstance(module, nn.SiLU) for module in everywhere.modules())
    assert sum(isinstance(module, nn.Softplus) for module in everywhere.modules()) == 2 * (rbf == "bernstein")
    assert isinstance(paper.out_blocks[1].layers[2].dense_mlp[0]._activation, IReLU)
    assert GEMNET_T.build("original", **settings).replaced_activations == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation_scope": "head"}, r"model\.activation_scope is 'head'.*paper, all"),
        ({"denormalize": "all"}, r"model\.denormalize is 'all'; GemNet has no normalization"),
        ({"activation": "swish"}, r"'swish'.*silu"),
        ({"scale_file": "no/such.json"}, r"model\.scale_file is no/such\.json: no such file"),
        ({"scale_file": {"OutBlock_0_sum": 1.0}}, r"the mapping has no OutBlock_1_sum, OutBlock_2_sum, TripInter"),
    ],
)
def test_bad_settings_are_explained(settings, message):
    with pytest.raises(InputError, match=message):
        GEMNET_T.build(**settings)


def test_a_scale_file_must_map_names_to_numbers(tmp_path):
    for name, content in [("list", "[1.0]"), ("nested", '{"OutBlock_0_sum": {"value": 1}}'), ("text", "1.0,")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=f"{name}: not a JSON file of scale factors"):
            read_scale_factors(tmp_path / name)


@pytest.mark.parametrize("model_class", [GemNetT, GemNetTIReLU])
@pytest.mark.parametrize("direct_forces", [False, True])
def test_published_scale_factors(model_class, direct_forces):
    model = model_class(
        **{**SIZES, "num_blocks": 3}, direct_forces=direct_forces, otf_graph=True, scale_file=str(PUBLISHED_FACTORS)
    )
    ensure_fitted(model)
    published = read_scale_factors(PUBLISHED_FACTORS)
    used = {name: factor for name, factor in published.items() if direct_forces or not name.endswith("_had")}
    assert scale_factors(model) == pytest.approx(used, rel=1e-6)


def test_the_configs_have_the_published_scale_factors():
    config = load_config(CONFIGS / "gemnet_t.yml")[0]
    published = read_scale_factors(PUBLISHED_FACTORS)
    assert config["model"]["scale_file"] == {name: f for name, f in published.items() if not name.endswith("_had")}


@pytest.mark.parametrize("form", ["original", "irelu", "irelu_all"])
def test_scale_factors_change_the_energy_and_are_saved(form, tmp_path):
    scaled, plain = GEMNET_T.build(form, scale_file=read_scale_factors(PUBLISHED_FACTORS)), GEMNET_T.build(form)
    expected = outputs(scaled, *MOLECULES)
    assert (outputs(plain, *MOLECULES)[0] - expected[0]).abs().min() > 1e-3
    torch.save(scaled.state_dict(), tmp_path / "weights.pt")
    plain.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for actual, saved in zip(outputs(plain, *MOLECULES), expected, strict=True):
        assert torch.equal(actual, saved)


@pytest.mark.parametrize("scope", ["paper", "all"])
@pytest.mark.parametrize("max_neighbors", [50, 5], ids=["all_neighbors", "cut"])
def test_equals_fairchems_with_irelu(scope, max_neighbors):
    """Where the limit cuts, edges lack their reverses, and atoms differ in their numbers of edges."""
    fairchems = GEMNET_T.build_fairchem("original")
    ours = GEMNET_T.build("irelu", activation_scope=scope, use_pbc=True)
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
