import copy
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GraphNorm
from torch_geometric.nn.models import DimeNetPlusPlus, SchNet

from ocp_dc.activations import IntegratedSoftplus, IReLU
from ocp_dc.errors import InputError
from ocp_dc.transforms import ReplacedSite, denormalize, replace_activations


class Opaque(tuple):
    """Like e3nn's Irreps: a tuple that has no length."""

    def __len__(self):
        raise NotImplementedError


def paths(sites):
    return [site.path for site in sites]


class Scaled(nn.Module):
    """Like GemNet's ScaledSiLU: recognised by its name, its inner SiLU being no site of its own."""

    def __init__(self):
        super().__init__()
        self._activation = nn.SiLU()


ScaledSiLU = type("ScaledSiLU", (Scaled,), {})


class Branch(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.act = act

    def forward(self, x):
        return self.act(self.lin(x))


class Pair(NamedTuple):
    first: object
    second: object


def test_replaced_mlp_equals_hand_built_mlp():
    def mlp(act):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), act(), nn.Linear(8, 8), act(), nn.Linear(8, 1)).eval()

    model, x = mlp(nn.SiLU), torch.randn(5, 3)
    before = model(x)
    sites = replace_activations(model, "irelu")
    assert sites == [ReplacedSite("1", "SiLU", "IReLU"), ReplacedSite("3", "SiLU", "IReLU")]
    assert torch.equal(model(x), mlp(IReLU)(x))
    assert not torch.allclose(model(x), before)
    assert not model[1].training


def test_gradient_of_the_derivative_reaches_every_weight():
    model = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 1))
    replace_activations(model, "integrated_softplus")
    x = torch.randn(5, 3, requires_grad=True)
    (force,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    gradients = torch.autograd.grad(force.pow(2).sum(), [model[0].weight, model[0].bias, model[2].weight])
    assert all(g.abs().sum() > 0 for g in gradients)


def test_shared_instance_is_replaced_at_every_parent_and_stays_shared():
    act = nn.SiLU()
    model = nn.ModuleDict({"a": Branch(act), "b": Branch(act), "c": Branch(nn.SiLU())})
    model["a"].activation = act
    sites = replace_activations(model, nn.PReLU)
    assert sorted(paths(sites)) == ["a.act", "a.activation", "b.act", "c.act"]
    assert model["a"].act is model["a"].activation is model["b"].act
    assert model["c"].act is not model["a"].act


@pytest.mark.parametrize("function", [F.silu, torch.relu, F.leaky_relu_, partial(F.elu, alpha=0.5), torch.tanh])
def test_function_kept_as_attribute(function):
    model, x = Branch(function), torch.randn(2, 4)
    (site,) = replace_activations(model, "irelu")
    assert (site.path, site.new) == ("act", "IReLU")
    assert site.old == getattr(function, "func", function).__name__
    assert dict(model.named_children())["act"] is model.act
    assert torch.equal(model(x), IReLU()(model.lin(x)))


def test_containers_kept_as_attributes():
    model = nn.Module()
    model.listed = [F.silu, nn.Linear(2, 2), [nn.ReLU()]]
    model.fixed = (nn.ReLU(), "relu", (F.relu, nn.Softplus()))
    model.named = Pair(nn.ELU(), 3)
    model.keyed = {"x": F.gelu, 5: Branch(nn.Tanh())}
    model.opaque = Opaque([nn.ReLU()])
    sites = replace_activations(model, "irelu")
    assert sorted(paths(sites)) == sorted(
        ["listed.0", "listed.2.0", "fixed.0", "fixed.2.0", "fixed.2.1", "named.0", "keyed.x", "keyed.5.act"]
    )
    replaced = [model.listed[0], model.listed[2][0], model.fixed[0], *model.fixed[2], model.named.first]
    assert all(isinstance(item, IReLU) for item in [*replaced, model.keyed["x"], model.keyed[5].act])
    assert isinstance(model.named, Pair)
    assert model.fixed[1] == "relu"
    assert isinstance(model.listed[1], nn.Linear)
    assert isinstance(model.opaque[0], nn.ReLU)


def test_cyclic_references_end():
    model = nn.ModuleList([Branch(nn.SiLU()) for _ in range(12)])
    for branch in model:
        branch.siblings = [model, *model]
    model.itself = [model]
    model.itself.append(model.itself)
    assert paths(replace_activations(model, "irelu")) == [f"{i}.act" for i in range(12)]


def test_wrapped_activation_is_one_site_and_gates_and_layers_are_none():
    model = nn.ModuleDict({"scaled": Branch(ScaledSiLU()), "gate": nn.Sigmoid(), "weights": nn.Softmax(dim=-1)})
    model["LinearReLU"] = type("LinearReLU", (nn.Sequential,), {})(nn.Linear(2, 2), nn.ReLU())
    model.gate_function = torch.sigmoid
    assert paths(replace_activations(model, "irelu")) == ["scaled.act", "LinearReLU.1"]
    assert isinstance(model["scaled"].act, IReLU)
    assert isinstance(model["gate"], nn.Sigmoid)


def test_what_is_named_alike_and_is_none():
    model = Branch(nn.SiLU())
    # a class, what makes a layer, settings, and a tuple's class
    model.kind, model.make, model.settings, model.pair = nn.ELU, partial(nn.BatchNorm1d, 4), type("Act", (), {})(), Pair
    model.norm = nn.BatchNorm1d(4)
    before = vars(model).copy()
    assert paths(replace_activations(model, "irelu")) == ["act"]
    assert paths(denormalize(model)) == ["norm"]
    assert all(vars(model)[name] is before[name] for name in ("kind", "make", "settings", "pair"))


def test_activations_of_a_gate_are_sites_and_gates_and_norms_with_layers_are_none():
    swish = type("Swish", (nn.Sequential,), {})(nn.Sigmoid())
    gate = type("GatedSigmoid", (nn.Sequential,), {})(nn.Linear(2, 2))
    norm = type("ConditionalBatchNorm", (nn.Sequential,), {})(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert paths(replace_activations(nn.Sequential(swish), "irelu")) == ["0"]
    with pytest.raises(InputError, match=r"left out: none\.$"):
        replace_activations(nn.Sequential(gate), "irelu")
    assert paths(denormalize(nn.Sequential(norm), "batch")) == ["0.1"]


def test_where_chooses_sites():
    def model():
        return nn.ModuleDict({name: Branch(nn.SiLU()) for name in ("body", "head1", "head2")})

    assert paths(replace_activations(model(), "irelu", where="head*")) == ["head1.act", "head2.act"]
    assert paths(replace_activations(model(), "irelu", where=["body.act", "*2.act"])) == ["body.act", "head2.act"]
    assert paths(replace_activations(model(), "irelu", where=lambda path: "body" in path)) == ["body.act"]


def test_pattern_without_a_match_changes_nothing():
    model = nn.ModuleDict({"body": Branch(nn.SiLU())})
    with pytest.raises(InputError, match=r"'haed\.\*' matches no activation site of ModuleDict.*body\.act \(SiLU\)"):
        replace_activations(model, "irelu", where=["body.*", "haed.*"])
    assert isinstance(model["body"].act, nn.SiLU)


def test_zero_replacements_is_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.ReLU())
    with pytest.raises(InputError, match=r"No activation of Sequential .*1 \(Sigmoid\), 2 \(ReLU\)"):
        replace_activations(model, "irelu", where=lambda path: False)
    with pytest.raises(InputError, match=r"left out: none\.$"):
        replace_activations(nn.Linear(2, 2), "irelu")


def test_unknown_activation_changes_nothing():
    model = nn.Sequential(nn.SiLU())
    with pytest.raises(ValueError, match="Unknown activation 'irelo'"):
        replace_activations(model, "irelo")
    assert isinstance(model[0], nn.SiLU)


def test_replaced_activations_can_be_replaced_again():
    model = nn.Sequential(nn.SiLU())
    replace_activations(model, "irelu")
    assert replace_activations(model, "integrated_softplus")[0].old == "IReLU"
    assert isinstance(model[0], IntegratedSoftplus)


def test_transformer_layer_uses_the_replacement_in_eval_mode():
    layer = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True, norm_first=True).eval()
    replace_activations(layer, "irelu")
    denormalize(layer)
    x = torch.randn(2, 3, 4)
    with_gradient = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), with_gradient)
    y = x + layer.self_attn(x, x, x)[0]
    torch.testing.assert_close(with_gradient, y + layer.linear2(IReLU()(layer.linear1(y))))


@pytest.fixture
def molecule():
    z = torch.tensor([6, 1, 1, 8, 6, 1])
    torch.manual_seed(1)
    pos = torch.randn(6, 3) * 1.5
    i, j = torch.combinations(torch.arange(6), 2).T
    return z, pos, torch.stack([torch.cat([i, j]), torch.cat([j, i])])


def test_schnet_of_pyg(molecule):
    z, pos, edges = molecule
    distances = (pos[edges[0]] - pos[edges[1]]).norm(dim=-1)
    torch.manual_seed(0)
    model = SchNet(16, 16, 2, 10, interaction_graph=lambda pos, batch: (edges, distances))
    before = model(z, pos)
    sites = replace_activations(model, "irelu")
    # The filter network is held twice, by the block and by its convolution: one place, under the shorter path.
    assert set(paths(sites)) == {"act", *(f"interactions.{i}.{place}" for i in range(2) for place in ("mlp.1", "act"))}
    assert {site.old for site in sites} == {"ShiftedSoftplus"}
    assert all(block.conv.nn[1] is block.mlp[1] for block in model.interactions)
    assert not any("ShiftedSoftplus" in type(m).__name__ for m in model.modules())
    assert not torch.allclose(model(z, pos), before)


@pytest.mark.parametrize("act", ["swish", "silu"])
def test_dimenet_of_pyg(act):
    model = DimeNetPlusPlus(16, 1, 2, 8, 4, 16, num_spherical=2, num_radial=2, act=act)
    # Embedding, 2 interactions (each with 1 + 2 residual layers), 3 output blocks.
    assert len(replace_activations(copy.deepcopy(model), "irelu")) == 1 + 2 * (1 + 3) + 3
    sites = replace_activations(model, "irelu", where="output_blocks.*")
    assert paths(sites) == [f"output_blocks.{i}.act" for i in range(3)]
    assert all(isinstance(block.act, IReLU) for block in model.output_blocks)
    assert not isinstance(model.interaction_blocks[0].act, IReLU)


class Calling(nn.Module):
    """Calls activations by name, and has an activation module of its own."""

    def __init__(self):
        super().__init__()
        self.lins = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.act = nn.SiLU()
        self.inner = CallingBranch()

    def energy(self, x):
        x = sum([F.silu(lin(x)) for lin in self.lins])
        return (self.act(x) + F.softplus(x, beta=2.0) + self.inner(x)).sum()

    @torch.enable_grad()
    def forward(self, x):
        return self.energy(F.silu(x))


class CallingBranch(Branch):
    def __init__(self):
        super().__init__(nn.Sigmoid())

    def forward(self, x):
        return super().forward(x) * torch.tanh(x) + plain_function(torch.relu(x) + x.mul(2).relu())


def plain_function(x):
    return F.silu(x)


def test_activations_called_by_name_are_refused_and_nothing_is_replaced():
    model = nn.ModuleDict({"head": Calling()})
    with pytest.raises(InputError) as refusal:
        replace_activations(model, "irelu")
    for call in (
        "head.functional.silu (Calling.energy, Calling.forward calls silu)",
        "head.functional.softplus (Calling.energy calls softplus)",
        "head.inner.functional.relu (CallingBranch.forward calls relu)",
        "`self.act = nn.SiLU()`",
        "leave it out with `where`",
    ):
        assert call in str(refusal.value)
    assert "head.act" not in str(refusal.value)
    assert type(model["head"].act) is nn.SiLU


@pytest.mark.parametrize(
    "name", ["celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "relu", "relu6", "selu", "silu", "softplus"]
)
def test_each_name_that_is_called_is_found(name):
    written = {"__module__": __name__}
    exec(f"def forward(self, x):\n    return F.{name}(x)", {"F": F}, written)
    model = type("Named", (nn.Module,), written)()
    with pytest.raises(InputError, match=rf"cannot be replaced: functional\.{name} \(Named\.forward calls {name}\)\."):
        replace_activations(model, "irelu")


@pytest.mark.parametrize("pattern", ["inner.functional.relu", ["act", "functional.s*"], "*"])
def test_chosen_calls_are_refused(pattern):
    model = Calling()
    with pytest.raises(InputError, match="called by name cannot be replaced"):
        replace_activations(model, "irelu", where=pattern)
    assert type(model.act) is nn.SiLU


def test_calls_left_out_are_listed_and_stay():
    model = Calling()
    assert paths(replace_activations(model, "irelu", where="act")) == ["act"]
    with pytest.raises(InputError, match=r"functional\.silu \(silu\), .*inner\.functional\.relu \(relu\)"):
        replace_activations(model, "irelu", where="functional.relu")


class Extending(CallingBranch):
    def forward(self, x):
        return super().forward(x) + F.gelu(x)


def test_a_method_that_calls_the_overridden_one_has_its_calls():
    calls = r"gelu \(Extending\.forward calls gelu\); functional\.relu \(CallingBranch\.forward calls relu\)"
    with pytest.raises(InputError, match=calls):
        replace_activations(Extending(), "irelu")


class Overriding(CallingBranch):
    def __init__(self):
        super().__init__()
        self.silu = nn.SiLU()
        self.kept = F.gelu

    def forward(self, x):
        return self.kept(self.silu(self.lin(x)))


def test_neither_overridden_calls_nor_attributes_are_calls_by_name():
    assert paths(replace_activations(Overriding(), "irelu")) == ["silu", "kept"]


class EquivariantLayerNormArray(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_l0 = nn.LayerNorm(4)


def norms():
    return nn.ModuleDict(
        {
            "batch": nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
            "sync": nn.SyncBatchNorm(4),
            "layer": nn.LayerNorm(4),
            "group": nn.GroupNorm(2, 4),
            "instance": nn.InstanceNorm2d(4),
            "graph": GraphNorm(4),
            "equivariant": EquivariantLayerNormArray(),
        }
    )


def test_denormalize_batch_leaves_the_other_norms():
    model = norms()
    assert sorted(paths(denormalize(model, "batch"))) == ["batch.1", "sync"]
    x = torch.randn(3, 4)
    assert torch.equal(model["batch"](x), model["batch"][0](x))
    assert isinstance(model["layer"], nn.LayerNorm)
    with pytest.raises(InputError, match=r"No normalization of ModuleDict .* left out: layer \(LayerNorm\)"):
        denormalize(model, "batch")


def test_denormalize_all():
    model = norms()
    assert {s.path: s.old for s in denormalize(model)} == {
        "batch.1": "BatchNorm1d",
        "sync": "SyncBatchNorm",
        "layer": "LayerNorm",
        "group": "GroupNorm",
        "instance": "InstanceNorm2d",
        "graph": "GraphNorm",
        "equivariant": "EquivariantLayerNormArray",
    }
    assert isinstance(model["graph"], nn.Identity)
    x = torch.randn(3, 4)
    assert model["graph"](x, torch.zeros(3, dtype=torch.long)) is x
    assert [name for name, _ in model.named_parameters()] == ["batch.0.weight", "batch.0.bias"]


def test_denormalize_where_and_errors():
    assert paths(denormalize(norms(), "all", where="*er")) == ["layer"]
    with pytest.raises(InputError, match="'none'; use one of: batch, all"):
        denormalize(norms(), "none")
    with pytest.raises(InputError, match=r"'x\*' matches no normalization site"):
        denormalize(norms(), "all", where="x*")
