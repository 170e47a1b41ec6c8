import json
from pathlib import Path

import pytest
import torch
import yaml
from fairchem.core.datasets import LmdbDataset
from fairchem.core.models.gemnet.gemnet import GemNetT
from fairchem.core.modules.scaling import ScaleFactor
from fairchem.core.modules.scaling.util import ensure_fitted
from molecules import MOLECULES, outputs
from small_models import GEMNET
from torch import nn
from torch_geometric.data import Batch

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError
from ocp_dc.models.gemnet_t import GemNetTIReLU
from ocp_dc.models.scale_factors import read_scale_factors
from ocp_dc.scale_factor_fit import fit_scale_factors

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "md17"
PUBLISHED_FACTORS = CONFIGS / "gemnet_scale_factors.json"
SIZES = GEMNET.settings


@pytest.mark.parametrize("direct_forces", [False, True])
@pytest.mark.parametrize("rbf", ["gaussian", "bernstein"])
def test_activation_sites(direct_forces, rbf):
    blocks, settings = SIZES["num_blocks"], {"direct_forces": direct_forces, "rbf": {"name": rbf}}
    mlp = 1 + 2 * SIZES["num_atom"]
    in_output_blocks = (blocks + 1) * mlp * (2 if direct_forces else 1)
    paper = GEMNET.build(**settings)
    assert len(paper.replaced_activations) == in_output_blocks
    assert all(site.path.startswith("out_blocks.") for site in paper.replaced_activations)
    everywhere = GEMNET.build(activation_scope="all", **settings)
    residual_layers = SIZES["num_before_skip"] + SIZES["num_after_skip"] + SIZES["num_concat"]
    # dense_ca, four in the triplet interaction, the residual layers, the atom update, the concatenation
    in_interaction_block = 1 + 4 + 2 * residual_layers + mlp + 1
    assert len(everywhere.replaced_activations) == in_output_blocks + 1 + blocks * in_interaction_block
    assert {site.old for site in everywhere.replaced_activations} == {"ScaledSiLU"}
    assert not any(isinstance(module, nn.SiLU) for module in everywhere.modules())
    assert sum(isinstance(module, nn.Softplus) for module in everywhere.modules()) == 2 * (rbf == "bernstein")
    assert isinstance(paper.out_blocks[1].layers[2].dense_mlp[0]._activation, IReLU)
    assert GEMNET.build("original", **settings).replaced_activations == []


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
        GEMNET.build(**settings)


def test_a_scale_file_must_map_names_to_numbers(tmp_path):
    for name, content in [("list", "[1.0]"), ("nested", '{"OutBlock_0_sum": {"value": 1}}'), ("text", "1.0,")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=f"{name}: not a JSON file of scale factors"):
            read_scale_factors(tmp_path / name)


def scale_factors(model):
    return {m.name: m.scale_factor.item() for m in model.modules() if isinstance(m, ScaleFactor)}


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
    config = yaml.safe_load((CONFIGS / "gemnet_t.yml").read_text())
    published = read_scale_factors(PUBLISHED_FACTORS)
    assert config["model"]["scale_file"] == {name: f for name, f in published.items() if not name.endswith("_had")}


@pytest.mark.parametrize("form", ["original", "irelu", "irelu_all"])
def test_scale_factors_change_the_energy_and_are_saved(form, tmp_path):
    scaled, plain = GEMNET.build(form, scale_file=read_scale_factors(PUBLISHED_FACTORS)), GEMNET.build(form)
    expected = outputs(scaled, *MOLECULES)
    assert (outputs(plain, *MOLECULES)[0] - expected[0]).abs().min() > 1e-3
    torch.save(scaled.state_dict(), tmp_path / "weights.pt")
    plain.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for actual, saved in zip(outputs(plain, *MOLECULES), expected, strict=True):
        assert torch.equal(actual, saved)


class TestFitting:
    @pytest.fixture(autouse=True)
    def _no_questions_no_litter(self, monkeypatch, tmp_path):
        monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail(f"asked: {prompt}"))
        (tmp_path / "cwd").mkdir()
        monkeypatch.chdir(tmp_path / "cwd")
        yield
        assert not any((tmp_path / "cwd").iterdir())

    @pytest.fixture
    def config(self, tmp_path, sample_data):
        def write(**model):
            config = {
                "includes": [str(CONFIGS / "base.yml")],
                "dataset": {"train": {"src": str(sample_data / "train")}},
                "optim": {"batch_size": 10, "num_workers": 0},
                "model": model,
            }
            path = tmp_path / "config.yml"
            path.write_text(yaml.safe_dump(config))
            return path

        return write

    @pytest.mark.parametrize(
        "model", [{"name": "gemnet_t_irelu"}, {"name": "gemnet_t", "use_pbc": True, "otf_graph": True}]
    )
    def test_writes_what_both_classes_load(self, config, tmp_path, model):
        config_yml = config(scale_file=str(PUBLISHED_FACTORS), **model, **SIZES)
        out = tmp_path / "fitted.json"
        factors = fit_scale_factors(config_yml, out, ["--model.num_blocks=1", "--seed", "3"], num_batches=2)

        settings = {**SIZES, "num_blocks": 1}
        ours = GemNetTIReLU(**settings, scale_file=str(out))
        for loaded in (ours, GemNetT(**settings, otf_graph=True, scale_file=str(out))):
            ensure_fitted(loaded)
            assert scale_factors(loaded) == pytest.approx(factors, rel=1e-6)
        assert all(factor > 0 and abs(factor - 1) > 1e-3 for factor in factors.values())

        made_of = json.loads(out.read_text())["comment"]
        assert made_of["model"] == {**model, **settings}
        assert (made_of["seed"], made_of["batches"], made_of["batch_size"]) == (3, 2, 10)
        (source,) = made_of["data"]
        assert source["name"]
        assert len(source["sha256"]) == 64

    def test_scaled_variances_are_those_of_the_references(self, config, tmp_path, sample_data):
        fitted = fit_scale_factors(
            config(name="gemnet_t_irelu", **{**SIZES, "num_blocks": 1}), tmp_path / "a.json", num_batches=10
        )
        torch.manual_seed(0)
        model = GemNetTIReLU(**{**SIZES, "num_blocks": 1}, scale_file=fitted)
        variances = {}

        def observe(scale, args, kwargs, scaled):
            variances[scale.name] = (scaled.var(dim=0).mean() / kwargs["ref"].var(dim=0).mean()).item()

        for module in model.modules():
            if isinstance(module, ScaleFactor):
                module.register_forward_hook(observe, with_kwargs=True)
        # as the host has seeded it; and this batch is the whole training set
        model(Batch.from_data_list(list(LmdbDataset({"src": str(sample_data / "train")}))))
        assert variances == pytest.approx(dict.fromkeys(fitted, 1.0), rel=0.05)

    def test_explains_what_cannot_be_fitted(self, config, tmp_path):
        out = tmp_path / "out.json"
        with pytest.raises(InputError, match="'schnet': that model has no scale factors"):
            fit_scale_factors(config(name="schnet", hidden_channels=8, num_filters=8, otf_graph=True), out)
        with pytest.raises(InputError, match="no such file"):
            fit_scale_factors(tmp_path / "absent.yml", out)
        (tmp_path / "no_data.yml").write_text("model: {name: gemnet_t_irelu}")
        with pytest.raises(InputError, match=r"no_data\.yml: dataset\.train is missing"):
            fit_scale_factors(tmp_path / "no_data.yml", out)
        assert not out.exists()
        out.write_text("{}")
        with pytest.raises(InputError, match="exists"):
            fit_scale_factors(config(name="gemnet_t_irelu", **SIZES), out)
        assert out.read_text() == "{}"
