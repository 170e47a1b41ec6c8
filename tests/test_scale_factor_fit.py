import json
from pathlib import Path

import pytest
import torch
import yaml
from fairchem.core.datasets import LmdbDataset
from fairchem.core.models.gemnet.gemnet import GemNetT
from fairchem.core.modules.scaling import ScaleFactor
from fairchem.core.modules.scaling.util import ensure_fitted
from small_models import GEMNET_T, scale_factors
from torch_geometric.data import Batch

from ocp_dc.errors import InputError
from ocp_dc.models.gemnet_t import GemNetTIReLU
from ocp_dc.scale_factor_fit import fit_scale_factors

CONFIGS = Path(__file__).parent.parent / "configs" / "md17"
PUBLISHED_FACTORS = Path(__file__).parent / "data" / "gemnet_scale_factors.json"
SIZES = GEMNET_T.settings
ONE_BLOCK = {**SIZES, "num_blocks": 1}


@pytest.fixture(autouse=True)
def _no_questions_no_litter(monkeypatch, tmp_path):
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail(f"asked: {prompt}"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    yield
    assert not any((tmp_path / "cwd").iterdir())


@pytest.fixture
def config(tmp_path, sample_data):
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
def test_writes_what_both_classes_load(config, tmp_path, model):
    config_yml = config(scale_file=str(PUBLISHED_FACTORS), **model, **SIZES)
    out = tmp_path / "fitted.json"
    factors = fit_scale_factors(config_yml, out, ["--model.num_blocks=1", "--seed", "3"], num_batches=2)
    ours = GemNetTIReLU(**ONE_BLOCK, scale_file=str(out))
    for loaded in (ours, GemNetT(**ONE_BLOCK, otf_graph=True, scale_file=str(out))):
        ensure_fitted(loaded)
        assert scale_factors(loaded) == pytest.approx(factors, rel=1e-6)
    assert all(factor > 0 and abs(factor - 1) > 1e-3 for factor in factors.values())

    made_of = json.loads(out.read_text())["comment"]
    assert made_of["model"] == {**model, **ONE_BLOCK}
    assert (made_of["seed"], made_of["batches"], made_of["batch_size"]) == (3, 2, 10)
    (source,) = made_of["data"]
    assert source["name"]
    assert len(source["sha256"]) == 64


def test_scaled_variances_are_those_of_the_references(config, tmp_path, sample_data):
    fitted = fit_scale_factors(config(name="gemnet_t_irelu", **ONE_BLOCK), tmp_path / "a.json", num_batches=10)
    torch.manual_seed(0)
    model = GemNetTIReLU(**ONE_BLOCK, scale_file=fitted)
    variances = {}

    def observe(scale, args, kwargs, scaled):
        variances[scale.name] = (scaled.var(dim=0).mean() / kwargs["ref"].var(dim=0).mean()).item()

    for module in model.modules():
        if isinstance(module, ScaleFactor):
            module.register_forward_hook(observe, with_kwargs=True)
    # as fairchem has seeded it; and this batch is the whole training set
    model(Batch.from_data_list(list(LmdbDataset({"src": str(sample_data / "train")}))))
    assert variances == pytest.approx(dict.fromkeys(fitted, 1.0), rel=0.05)


def test_explains_what_cannot_be_fitted(config, tmp_path):
    out = tmp_path / "out.json"
    with pytest.raises(InputError, match="'schnet': that model has no scale factors"):
        fit_scale_factors(config(name="schnet", hidden_channels=8, num_filters=8, otf_graph=True), out)
    with pytest.raises(InputError, match="no such file"):
        fit_scale_factors(tmp_path / "absent.yml", out)
    (tmp_path / "no_data.yml").write_text("model: {name: gemnet_t_irelu}")
    with pytest.raises(InputError, match=r"dataset\.train\.src is missing"):
        fit_scale_factors(tmp_path / "no_data.yml", out)
    assert not out.exists()
    out.write_text("{}")
    with pytest.raises(InputError, match="exists"):
        fit_scale_factors(config(name="gemnet_t_irelu", **SIZES), out)
    assert out.read_text() == "{}"
