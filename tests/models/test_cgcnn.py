import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import radius_graph_pbc
from molecules import MOLECULES, THIN, TRICLINIC, batch_of, outputs, structure
from small_models import CGCNN, float64_by_default
from test_fixed_edges import assert_same_step
from torch import nn
from torch_geometric.data import Batch

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError

ALONE = structure(torch.zeros(1, 3), torch.tensor([8]))
ORACLE = Path(__file__).parent.parent / "data" / "oracle" / "cgcnn_khot.npz"


def oracle_state():
    with np.load(ORACLE) as arrays:
        return {key.removeprefix("state/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith("state/")}


def oracle_set(name):
    with np.load(ORACLE) as arrays:
        arrays = {key.removeprefix(f"{name}/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith(name)}
    # fairchem's periodic edges need cells in float32
    batch = Batch(
        **{key: arrays[key] for key in ("pos", "atomic_numbers", "natoms", "batch")}, cell=arrays["cell"].float()
    )
    return batch, arrays["energy"], arrays["forces"]


@pytest.mark.parametrize("form", ["cgcnn", "original"])
@pytest.mark.parametrize("structures", ["molecules", "periodic"])
def test_equals_ocps_cgcnn(form, structures):
    model = CGCNN.build(form, use_pbc=True)
    model.load_state_dict(oracle_state(), strict=True)
    batch, energy, forces = oracle_set(structures)
    with float64_by_default():
        out = model(batch)
    torch.testing.assert_close(out["energy"][:, 0], energy, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(out["forces"], forces, rtol=1e-9, atol=1e-12)


def test_reads_edges_from_the_data():
    model = CGCNN.build("cgcnn", use_pbc=True, otf_graph=False)
    model.load_state_dict(oracle_state())
    batch, energy, _ = oracle_set("molecules")
    batch.edge_index, batch.cell_offsets, batch.neighbors = radius_graph_pbc(batch, 5.0, 50)
    torch.testing.assert_close(model(batch)["energy"][:, 0], energy, rtol=1e-9, atol=1e-12)
    batch.edge_index, batch.cell_offsets, batch.neighbors = radius_graph_pbc(batch, 3.0, 50)
    assert (model(batch)["energy"][:, 0] - energy).abs().min() > 1e-6


def test_max_neighbors_reaches_the_edges():
    model = CGCNN.build("cgcnn", max_neighbors=3)
    model.load_state_dict(oracle_state())
    batch, energy, _ = oracle_set("molecules")
    assert (model(batch)["energy"][:, 0] - energy).abs().min() > 1e-6


@pytest.mark.parametrize("activation", ["original", "irelu"])
@pytest.mark.parametrize("training", [True, False])
def test_convolutions_follow_their_equations(activation, training):
    conv = CGCNN.build("irelu", activation=activation, activation_scope="all").convs[0].train(training)
    other = copy.deepcopy(conv)
    x, edge_attr = torch.randn(5, 24, dtype=torch.float64), torch.rand(6, 20, dtype=torch.float64)
    first, second = torch.tensor([[0, 0, 1, 2, 2, 3], [1, 2, 4, 3, 4, 4]])
    edge_index = torch.stack([torch.cat([first, second]), torch.cat([second, first])])

    sender, receiver = edge_index
    z = other.lin1(torch.cat([x[receiver], x[sender], edge_attr.repeat(2, 1)], dim=1))
    gate, core = nn.BatchNorm1d.forward(other.bn1, z).chunk(2, dim=1)
    received = torch.zeros_like(x).index_add(0, receiver, gate.sigmoid() * other.core_activation(core))
    expected = other.residual_activation(x + other.ln1(received))

    close = {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(conv(x, edge_index, edge_attr), expected, **close)
    torch.testing.assert_close(conv.state_dict(), other.state_dict(), **close)
    # and where the reverses have features of their own
    torch.testing.assert_close(
        conv.eval()(x, edge_index, edge_attr), conv(x, edge_index, edge_attr.repeat(2, 1)), **close
    )


@pytest.mark.parametrize("form", CGCNN.forms)
def test_pairs_equal_edges(form):
    for structures, use_pbc in ((MOLECULES, False), ((TRICLINIC, THIN), True), ((ALONE, ALONE), False)):
        in_pairs, by_edges = (CGCNN.build(form, use_pbc=use_pbc) for _ in range(2))
        by_edges.generate_pairs = lambda data, model=by_edges: (model.generate_graph(data), False)
        assert in_pairs.generate_pairs(batch_of(*structures))[1]
        if structures[0] is not ALONE or form in ("irelu_denorm", "irelu_all_denorm"):
            assert_same_step(in_pairs, by_edges, batch_of(*structures))


def test_activation_sites():
    head, convolutions = CGCNN.settings["num_fc_layers"], 2 * CGCNN.settings["num_graph_conv_layers"]
    paper = CGCNN.build()
    assert {site.path for site in paper.replaced_activations} == {"conv_to_fc.1", "fcs.1", "fcs.3"}
    everywhere = CGCNN.build(activation_scope="all")
    assert len(everywhere.replaced_activations) == head + convolutions
    for model, softplus in ((paper, convolutions), (everywhere, 0)):
        assert sum(isinstance(module, nn.Softplus) for module in model.modules()) == softplus
        assert sum(isinstance(module, IReLU) for module in model.modules()) == head + convolutions - softplus
    assert len(CGCNN.build(num_fc_layers=1).replaced_activations) == 1
    assert CGCNN.build("original").replaced_activations == []


@pytest.mark.parametrize(
    ("denormalize", "batch_norms", "layer_norms"), [("none", 2, 2), ("batch", 0, 2), ("all", 0, 0)]
)
@pytest.mark.parametrize("activation", ["original", "irelu"])
def test_normalizations(activation, denormalize, batch_norms, layer_norms):
    model = CGCNN.build(activation=activation, denormalize=denormalize)
    assert sum(isinstance(module, nn.BatchNorm1d) for module in model.modules()) == batch_norms
    assert sum(isinstance(module, nn.LayerNorm) for module in model.modules()) == layer_norms
    assert len(model.removed_normalizations) == 4 - batch_norms - layer_norms


@pytest.mark.parametrize("name", ["cgcnn", "cgcnn_irelu"])
def test_the_registry_builds_it_from_ocps_settings(name):
    # configs/s2ef/200k/cgcnn of OCP
    settings = {
        "atom_embedding_size": 128,
        "fc_feat_size": 128,
        "num_fc_layers": 3,
        "num_graph_conv_layers": 2,
        "num_gaussians": 100,
        "cutoff": 6.0,
        "use_pbc": True,
        "regress_forces": True,
    }
    model = registry.get_model_class(name)(**settings)
    assert model.convs[1].lin1.weight.shape == (256, 356)
    assert model.fc_out.weight.shape == (1, 128)


def test_element_codes():
    assert CGCNN.build("cgcnn").embedding.shape == (100, 92)
    qmof = CGCNN.build("cgcnn", embeddings="qmof")
    assert qmof.embedding.shape == (103, 72)
    assert torch.isfinite(outputs(qmof, *MOLECULES)[1]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embeddings": "onehot"}, r"model\.embeddings is 'onehot'; CGCNN knows khot, qmof"),
        ({"num_fc_layers": 0}, r"model\.num_fc_layers is 0"),
        ({"activation_scope": "head"}, r"model\.activation_scope is 'head'.*paper, all"),
        ({"denormalize": "layer"}, r"model\.denormalize is 'layer'.*none, batch, all"),
        ({"activation": "irely"}, r"'irelu'"),
    ],
)
def test_bad_settings_are_explained(settings, message):
    with pytest.raises(InputError, match=message):
        CGCNN.build(**settings)
