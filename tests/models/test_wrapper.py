"""`derivative_constrained` around every model, backbone and head of fairchem."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import load_model_and_weights_from_checkpoint
from fairchem.core.models.painn.painn import PaiNN
from torch import nn
from torch_geometric.data import Batch, Data

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError
from ocp_dc.launch import run_fairchem
from ocp_dc.models.wrapper import derivative_constrained

ROOT = Path(__file__).parents[2]


def _load_script():
    spec = importlib.util.spec_from_file_location("list_activation_sites", ROOT / "scripts/list_activation_sites.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _load_script()
BASES = [base for base, _ in script.MODELS]
RUNNABLE = [base for base in BASES if base["name"] != "gp_gemnet_t"]
PAINN = {"name": "painn", **script.PAINN}


def molecule(seed, natoms):
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*3 * [torch.arange(2.0)])[:natoms] * 1.6
    return Data(
        pos=grid + 0.2 * torch.randn(natoms, 3, generator=generator),
        atomic_numbers=torch.tensor([1, 6, 8, 7])[torch.randint(4, (natoms,), generator=generator)],
        natoms=natoms,
        cell=8 * torch.eye(3)[None],
        pbc=torch.ones(1, 3, dtype=torch.bool),
        tags=torch.zeros(natoms),
    )


def run(model):
    torch.manual_seed(0)  # eSCN and others turn each edge's frame at random
    return model(Batch.from_data_list([molecule(0, 6), molecule(1, 5)]))


def perturbed(model):
    """Off the initial weights, some of which are 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def has_norms(base):
    return any(part in str(base) for part in ("painn", "equiformer", "esen"))


@pytest.mark.parametrize("base", RUNNABLE, ids=script.label)
def test_models_of_fairchem(base):
    torch.manual_seed(0)
    original = perturbed(derivative_constrained(base, activation="original")).eval()
    expected = run(original)
    assert {"energy", "forces"} <= expected.keys()

    for denormalize in ("none", "all") if has_norms(base) else ("none",):
        model = derivative_constrained(base, activation_scope="all", denormalize=denormalize).eval()
        keys = model.load_state_dict(original.state_dict(), strict=denormalize == "none")
        assert not keys.missing_keys
        assert bool(keys.unexpected_keys) == (denormalize == "all")
        outputs = run(model)
        assert outputs.keys() == expected.keys()
        for name, value in outputs.items():
            assert value.shape == expected[name].shape
            assert torch.isfinite(value).all()
        assert not torch.allclose(outputs["energy"], expected["energy"], rtol=1e-3)

        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        outputs = run(model.train())
        (outputs["energy"].sum() + outputs["forces"].square().sum()).backward()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.step()
        changed = [not torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True)]
        assert any(changed)
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_fairchem_cannot_run_its_graph_parallel_gemnet():
    with pytest.raises(AttributeError, match="distance_vec"):
        run(derivative_constrained({"name": "gp_gemnet_t", **script.GEMNET_T}, activation="original"))


def test_every_registered_class_of_fairchem_is_tried():
    tried = {base["name"] for base in BASES}
    for base in BASES:
        if base["name"] == "hydra":
            tried |= {base["backbone"]["model"], *(head["module"] for head in base["heads"].values())}
    classes = registry.mapping["model_name_mapping"].items()
    assert tried == {name for name, model_class in classes if model_class.__module__.startswith("fairchem.")}


def test_the_documented_table_is_up_to_date():
    documented = (ROOT / "docs" / "any_model.md").read_text()
    assert documented.endswith(f"\n\n{script.table()}\n")


def test_it_is_the_base_model():
    model = derivative_constrained(PAINN, denormalize="all")
    base = PaiNN(**script.PAINN)
    assert type(model) is PaiNN
    assert (model.regress_forces, model.direct_forces, model.cutoff) == (True, True, 4.0)
    norms = {f"message_layers.{i}.x_layernorm.{kind}" for i in range(2) for kind in ("weight", "bias")}
    assert base.state_dict().keys() - model.state_dict().keys() == norms
    assert model.no_weight_decay() == [name for name in base.no_weight_decay() if name not in norms]
    assert [site.path for site in model.removed_normalizations] == [f"message_layers.{i}.x_layernorm" for i in (0, 1)]
    assert derivative_constrained(PAINN, otf_graph=False).otf_graph is False
    shared = derivative_constrained({"name": "gemnet_t", **script.GEMNET_T}).shared_parameters
    assert len(shared) == 4


def test_scopes():
    assert isinstance(derivative_constrained(PAINN).out_energy[1], IReLU)
    for scope, count in {"output": 5, "all": 9}.items():
        assert len(derivative_constrained(PAINN, activation_scope=scope).replaced_activations) == count
    chosen = derivative_constrained(PAINN, activation_scope=["update_layers.1.*", "out_energy.1"])
    paths = [site.path for site in chosen.replaced_activations]
    assert sorted(paths) == ["out_energy.1", "update_layers.1.xvec_proj.1"]
    assert derivative_constrained(PAINN, activation="original").replaced_activations == []


def test_scope_output_leaves_the_interactions():
    base = next(base for base in BASES if "gemnet_t_backbone" in str(base))
    model = derivative_constrained(base)
    assert all(site.path.startswith("backbone.out_blocks.") for site in model.replaced_activations)
    assert not any(isinstance(module, IReLU) for module in model.backbone.int_blocks.modules())


@pytest.mark.parametrize("name", ["gemnet_t", "painn"])
def test_constraints_of_parameters_stay(name):
    base = {"name": name, **(script.GEMNET_T if name == "gemnet_t" else script.PAINN), "rbf": {"name": "bernstein"}}
    model = derivative_constrained(base, activation_scope="all")
    kept = {path for path, module in model.named_modules() if isinstance(module, nn.Softplus)}
    assert "radial_basis.rbf.softplus" in kept


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "painn"}, r"model\.base is 'painn'; it must have the name of a model"),
        ({"base": {}}, r"model\.base\.name is None.*'schnet'"),
        ({"base": {"name": "pain"}}, r"model\.base\.name is 'pain'.*'painn'"),
        ({"base": {"name": "painn", "hiden": 8}}, r"model\.base: painn.*'hiden'; its settings: hidden_channels, "),
        ({"base": {"name": "gemnet_t"}}, r"model\.base: gemnet_t missing a required argument: 'num_spherical'"),
        (
            {"base": script.hydra("painn_backbone", {"hiden": 8}, "painn_energy_head")},
            r"model\.base\.backbone: painn_backbone.*'hiden'",
        ),
        (
            {"base": script.hydra("painn_backbone", script.PAINN, "painn_head")},
            r"model\.base\.heads\.painn_head\.module is 'painn_head'",
        ),
        (
            {"base": script.hydra("painn_backbone", script.PAINN, "painn_energy_head", redcue="sum")},
            r"model\.base\.heads\.painn_energy_head: painn_energy_head.*'redcue'",
        ),
        ({"base": PAINN, "denormalize": "layer"}, r"model\.denormalize is 'layer'; PaiNN knows none, batch, all"),
        ({"base": PAINN, "denormalize": "batch"}, r"No normalization of PaiNN.*message_layers\.0\.x_layernorm"),
        ({"base": PAINN, "activation": "irelo"}, r"Unknown activation 'irelo'"),
        (
            {"base": PAINN, "activation_scope": "paper"},
            r"model\.activation_scope is 'paper'; use output, all, or a list",
        ),
        (
            {"base": PAINN, "activation_scope": ["outt.*"]},
            r"'outt\.\*' matches no activation.*out_energy\.1 \(ScaledSiLU\)",
        ),
        ({"base": {"name": "cgcnn"}}, r"the output part of 'cgcnn' is not known; give 'all', or a list of patterns"),
        ({"base": {"name": "schnet"}, "denormalize": "all"}, r"No normalization of SchNetWrap"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(InputError, match=message):
        derivative_constrained(**settings)


@registry.register_model("calls_by_name")
class CallsByName(nn.Module):
    def __init__(self, backbone=None):
        super().__init__()
        self.lin = nn.Linear(3, 1)

    def forward(self, data, emb=None):
        return {"energy": nn.functional.silu(self.lin(data.pos)).sum()}


def test_calls_by_name_in_a_model_and_in_a_head_are_refused():
    with pytest.raises(InputError, match=r" functional\.silu \(CallsByName\.forward calls silu\)"):
        derivative_constrained({"name": "calls_by_name"}, activation_scope="all")
    hydra = script.hydra("painn_backbone", script.PAINN, "calls_by_name")
    with pytest.raises(InputError, match=r"output_heads\.calls_by_name\.functional\.silu"):
        derivative_constrained(hydra)
    model = derivative_constrained(hydra, activation_scope=["backbone.*"])
    assert all(site.path.startswith("backbone.") for site in model.replaced_activations)


def test_the_documented_example_trains_and_loads(sample_data, tmp_path):
    document = (ROOT / "docs" / "any_model.md").read_text()
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", document, re.DOTALL)[1])
    config["includes"] = [str(ROOT / "configs" / "md17" / "base.yml")]
    config["task"] = {"label_rescaling": 1.0e6}
    config["model"]["base"].update(hidden_channels=8, num_rbf=8)
    (tmp_path / "painn.yml").write_text(yaml.safe_dump(config))
    arguments = [
        f"--config-yml={tmp_path / 'painn.yml'}",
        f"--run-dir={tmp_path}",
        f"--dataset.train.src={sample_data / 'train'}",
        f"--dataset.val.src={sample_data / 'val'}",
        "--optim.num_workers=0",
        "--optim.max_epochs=1",
        "--hide_eval_progressbar=True",
    ]
    assert run_fairchem("train", arguments) == 0
    (checkpoint,) = tmp_path.glob("checkpoints/*/checkpoint.pt")
    loaded = load_model_and_weights_from_checkpoint(str(checkpoint))
    assert len(loaded.replaced_activations) == 1
    assert len(loaded.removed_normalizations) == 3
    saved = torch.load(checkpoint, weights_only=False)["state_dict"]
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, saved[f"module.{name}"])
