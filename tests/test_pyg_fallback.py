import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.autograd import gradcheck, gradgradcheck

import ocp_dc._pyg_fallback as fallback

# isort: split
from fairchem.core.common.registry import registry
from torch_geometric.data import Batch, Data

from ocp_dc._pyg_fallback import finder
from ocp_dc._pyg_fallback import torch_scatter as stand_in
from ocp_dc._pyg_fallback.torch_sparse import SparseTensor

REDUCTIONS = {"sum": np.sum, "add": np.sum, "mean": np.mean, "min": np.min, "max": np.max, "mul": np.prod}
SEGMENT_REDUCTIONS = ["sum", "mean", "min", "max"]
DTYPES = [torch.float32, torch.float64, torch.int64]
# The real segment functions round an integer mean toward zero, the real scatter rounds it down; nobody asks for one.
SEGMENT_CASES = [
    (reduce, dtype) for reduce in SEGMENT_REDUCTIONS for dtype in DTYPES if (reduce, dtype) != ("mean", torch.int64)
]

# shape of the values, shape of the index, dimension
LAYOUTS = [
    ((7,), (7,), 0),
    ((7,), (7,), -1),
    ((7, 1, 3), (7,), 0),
    ((2, 7, 3), (7,), 1),
    ((2, 7, 3), (7,), -2),
    ((2, 3, 7), (7,), -1),
    ((2, 7, 3), (2, 7), 1),
    ((2, 7, 3), (1, 7), 1),
    ((2, 7), (2, 7), 0),
]


def implementations(name):
    """The stand-in and, where it is installed, the real package."""
    modules = [importlib.import_module(f"ocp_dc._pyg_fallback.{name}")]
    if name not in fallback.served():
        modules.append(importlib.import_module(name))
    return modules


def values_and_index(shape, index_shape, size=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    src = torch.randn(shape, generator=generator, dtype=torch.float64)
    src = src if dtype.is_floating_point else 10 * src
    return src.to(dtype), torch.randint(size, index_shape, generator=generator)


def scatter_by_loops(src, index, dim, size, reduce):
    dim = dim % src.dim()
    trailing = src.dim() - 1 - dim if index.dim() == 1 else src.dim() - index.dim()
    index = np.broadcast_to(index.numpy().reshape(*index.shape, *[1] * trailing), src.shape)
    src = src.numpy()
    members = {}
    for place in np.ndindex(*src.shape):
        members.setdefault((*place[:dim], index[place], *place[dim + 1 :]), []).append(src[place])
    result = np.full((*src.shape[:dim], size, *src.shape[dim + 1 :]), reduce == "mul", dtype=src.dtype)
    for slot, elements in members.items():
        reduced = REDUCTIONS[reduce](elements)
        result[slot] = np.floor(reduced) if src.dtype == np.int64 else reduced
    return torch.from_numpy(result)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(("shape", "index_shape", "dim"), LAYOUTS)
def test_scatter_is_the_loop(shape, index_shape, dim, reduce):
    for dtype in DTYPES:
        src, index = values_and_index(shape, index_shape, dtype=dtype)
        expected = scatter_by_loops(src, index, dim, 6, reduce)
        for module in implementations("torch_scatter"):
            torch.testing.assert_close(module.scatter(src, index, dim=dim, dim_size=6, reduce=reduce), expected)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_size_is_the_largest_index_plus_one(reduce):
    src, index = torch.randn(4, 3), torch.tensor([2, 0, 2, 5])
    for module in implementations("torch_scatter"):
        assert module.scatter(src, index, 0, reduce=reduce).shape == (6, 3)


def test_scatter_takes_the_size_as_a_tensor():
    batch = torch.tensor([0, 0, 1])
    result = stand_in.scatter(torch.ones(3, 1), batch, dim=0, dim_size=torch.max(batch) + 1)
    assert result.tolist() == [[2.0], [1.0]]


@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_scatter_of_nothing(reduce):
    src, index = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.long)
    for module in implementations("torch_scatter"):
        assert module.scatter(src, index, dim=0, reduce=reduce).shape == (0, 3)
        result = module.scatter(src, index, dim=0, dim_size=2, reduce=reduce)
        assert result.tolist() == [[0.0] * 3] * 2
        assert torch.autograd.grad(result.sum(), src)[0].shape == (0, 3)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_into_out(reduce):
    src, index = values_and_index((7, 3), (7,), size=3)
    out = torch.randn(4, 3, dtype=torch.float64)
    elements = torch.cat((out, src)), torch.cat((torch.arange(4), index))
    if reduce == "mean":
        divisor = torch.bincount(index, minlength=4).clamp(min=1)[:, None]
        expected = scatter_by_loops(*elements, 0, 4, "sum") / divisor
    else:
        expected = scatter_by_loops(*elements, 0, 4, reduce)
    for module in implementations("torch_scatter"):
        given = out.clone()
        assert module.scatter(src, index, dim=0, out=given, reduce=reduce) is given
        torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(("shape", "index_shape", "dim"), [LAYOUTS[2], LAYOUTS[4], LAYOUTS[6]])
def test_scatter_is_differentiable_twice(shape, index_shape, dim, reduce):
    src, index = values_and_index(shape, index_shape)
    src.requires_grad_()

    def squares(src):
        return stand_in.scatter(src, index, dim, dim_size=6, reduce=reduce).square()

    assert gradcheck(squares, src)
    assert gradgradcheck(squares, src)


@pytest.mark.parametrize(("reduce", "expected"), [("min", [1.0, 0.0, 0.0, 1.0]), ("max", [0.0, 1.0, 0.0, 1.0])])
def test_extremes_give_the_gradient_of_ties_to_the_first(reduce, expected):
    index = torch.tensor([0, 0, 0, 2])
    for module in implementations("torch_scatter"):
        src = torch.tensor([1.0, 2.0, 2.0, 5.0] if reduce == "max" else [1.0, 2.0, 1.0, 5.0], requires_grad=True)
        module.scatter(src, index, reduce=reduce).sum().backward()
        assert src.grad.tolist() == expected


@pytest.mark.parametrize("reduce", ["min", "max"])
def test_extremes_do_not_hide_nan(reduce):
    src = torch.tensor([1.0, torch.nan, 2.0, 3.0])
    result = stand_in.scatter(src, torch.tensor([0, 0, 0, 1]), reduce=reduce)
    torch.testing.assert_close(result, torch.tensor([torch.nan, 3.0]), equal_nan=True)


def test_scatter_rejects_an_unknown_reduction():
    with pytest.raises(ValueError, match="median"):
        stand_in.scatter(torch.ones(2), torch.tensor([0, 1]), reduce="median")


@pytest.mark.parametrize(
    ("index_shape", "dim", "expanded"), [((3,), 1, (1, 3, 1)), ((3,), -2, (1, 3, 1)), ((2, 3), 1, (2, 3, 1))]
)
def test_broadcast(index_shape, dim, expanded):
    other = torch.zeros(2, 3, 4)
    index = torch.arange(np.prod(index_shape)).view(index_shape)
    for module in implementations("torch_scatter"):
        torch.testing.assert_close(module.utils.broadcast(index, other, dim), index.view(expanded).expand(2, 3, 4))


@pytest.mark.parametrize(("reduce", "dtype"), SEGMENT_CASES)
@pytest.mark.parametrize(
    ("shape", "index_shape"), [((7,), (7,)), ((7, 3), (7,)), ((2, 7, 3), (2, 7)), ((2, 7, 3), (1, 7))]
)
def test_segment_coo_is_the_loop(shape, index_shape, reduce, dtype):
    src, index = values_and_index(shape, index_shape, dtype=dtype)
    index = index.sort(dim=-1).values
    expected = scatter_by_loops(src, index, len(index_shape) - 1, 6, reduce)
    for module in implementations("torch_scatter"):
        torch.testing.assert_close(module.segment_coo(src, index, dim_size=6, reduce=reduce), expected)


def test_segment_coo_counts_with_an_expanded_one():
    index = torch.tensor([0, 0, 2])
    ones = index.new_ones(1).expand_as(index)
    for module in implementations("torch_scatter"):
        assert module.segment_coo(ones, index, dim_size=4).tolist() == [2, 0, 1, 0]
        assert module.segment_coo(ones[:0], index[:0], dim_size=2).tolist() == [0, 0]


def test_segment_coo_adds_to_out():
    for module in implementations("torch_scatter"):
        out = torch.ones(3)
        assert module.segment_coo(torch.tensor([2.0, 3.0]), torch.tensor([0, 2]), out) is out
        assert out.tolist() == [3.0, 1.0, 4.0]


@pytest.mark.parametrize(("reduce", "dtype"), SEGMENT_CASES)
@pytest.mark.parametrize("shape", [(9,), (9, 3)])
@pytest.mark.parametrize("bounds", [[0, 2, 2, 5, 9], [0, 0, 9, 9], [1, 4, 4, 6]])
def test_segment_csr_is_the_slices(shape, bounds, reduce, dtype):
    src, _ = values_and_index(shape, (1,), dtype=dtype)
    index = torch.repeat_interleave(torch.arange(len(bounds) - 1), torch.tensor(bounds).diff())
    expected = scatter_by_loops(src[bounds[0] : bounds[-1]], index, 0, len(bounds) - 1, reduce)
    for module in implementations("torch_scatter"):
        torch.testing.assert_close(module.segment_csr(src, torch.tensor(bounds), reduce=reduce), expected)


@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_segment_csr_with_bounds_per_batch(reduce):
    src, _ = values_and_index((2, 6, 3), (1,))
    bounds = torch.tensor([[0, 1, 6], [0, 4, 6]])
    for module in implementations("torch_scatter"):
        result = module.segment_csr(src, bounds, reduce=reduce)
        torch.testing.assert_close(result[0], module.segment_csr(src[0], bounds[0], reduce=reduce))
        torch.testing.assert_close(result[1], module.segment_csr(src[1], bounds[1], reduce=reduce))
        shared = module.segment_csr(src, bounds[:1], reduce=reduce)
        torch.testing.assert_close(shared[1], module.segment_csr(src[1], bounds[0], reduce=reduce))


def test_segment_csr_overwrites_out_and_may_be_empty():
    for module in implementations("torch_scatter"):
        out = torch.full((2,), 7.0)
        assert module.segment_csr(torch.ones(3), torch.tensor([0, 1, 3]), out) is out
        assert out.tolist() == [1.0, 2.0]
        assert module.segment_csr(torch.ones(0), torch.tensor([0])).shape == (0,)


@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
def test_segments_are_differentiable_twice(reduce):
    src, index = values_and_index((2, 7, 3), (2, 7))
    src.requires_grad_()
    index = index.sort(dim=-1).values
    bounds = torch.tensor([[0, 3, 3, 6]])
    for function in (
        lambda src: stand_in.segment_coo(src, index, dim_size=6, reduce=reduce).square(),
        lambda src: stand_in.segment_csr(src, bounds, reduce=reduce).square(),
    ):
        assert gradcheck(function, src)
        assert gradgradcheck(function, src)


@pytest.fixture
def entries():
    generator = torch.Generator().manual_seed(1)
    row, col = torch.randint(6, (2, 20), generator=generator)
    row[row == 3] = 2  # row 3 stays empty
    return row, col, torch.arange(1, 21)


def dense(matrix):
    row, col, value = matrix.coo()
    return scipy.sparse.coo_matrix((value, (row, col)), shape=tuple(matrix.sparse_sizes())).toarray()


def test_sparse_tensor_orders_its_entries(entries):
    row, col, value = entries
    order = np.lexsort((value, col, row))
    for module in implementations("torch_sparse"):
        matrix = module.SparseTensor(row=row, col=col, value=value, sparse_sizes=(6, 7))
        assert tuple(matrix.sparse_sizes()) == (6, 7)
        assert matrix.storage.row().tolist() == row[order].tolist()
        assert matrix.storage.col().tolist() == col[order].tolist()
        assert sorted(matrix.storage.value().tolist()) == sorted(value.tolist())
        np.testing.assert_array_equal(
            dense(matrix), scipy.sparse.coo_matrix((value, (row, col)), shape=(6, 7)).toarray()
        )


def test_sparse_tensor_keeps_the_order_of_repeated_entries():
    row, col = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([2, 1, 2, 0, 1])
    matrix = SparseTensor(row=row, col=col, value=torch.arange(5), sparse_sizes=(2, 3))
    assert matrix.storage.value().tolist() == [1, 4, 3, 0, 2]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [5, 3, 3, 0, 5, 5, 2], [3], []])
def test_sparse_tensor_selects_rows(entries, rows):
    row, col, value = entries
    for module in implementations("torch_sparse"):
        matrix = module.SparseTensor(row=row, col=col, value=value, sparse_sizes=(6, 7))
        selected = matrix[torch.tensor(rows, dtype=torch.long)]
        assert tuple(selected.sparse_sizes()) == (len(rows), 7)
        np.testing.assert_array_equal(dense(selected), dense(matrix)[rows])
        places = list(zip(selected.storage.row().tolist(), selected.storage.col().tolist(), strict=True))
        assert places == sorted(places)
        assert selected.set_value(None).sum(dim=1).long().tolist() == [(row == i).sum().item() for i in rows]
        assert selected.sum(dim=1).tolist() == [value[row == i].sum().item() for i in rows]


def test_sparse_tensor_replaces_values(entries):
    row, col, value = entries
    for module in implementations("torch_sparse"):
        matrix = module.SparseTensor(row=row, col=col, value=value, sparse_sizes=(6, 7))
        old = matrix.storage.value().clone()
        assert matrix.set_value(None).storage.value() is None
        assert torch.equal(matrix.storage.value(), old)
        assert matrix.set_value_(torch.arange(20), layout="coo") is matrix
        assert matrix.storage.value().tolist() == list(range(20))


def test_sparse_tensor_refuses_what_it_does_not_do(entries):
    row, col, value = entries
    matrix = SparseTensor(row=row, col=col, value=value, sparse_sizes=(6, 7))
    assert "(6, 7)" in repr(matrix)
    with pytest.raises(NotImplementedError, match="dim=0"):
        matrix.sum(dim=0)
    with pytest.raises(NotImplementedError, match="csc"):
        matrix.set_value(value, layout="csc")


def test_sparse_row_sums_are_differentiable_twice(entries):
    row, col, _ = entries
    value = torch.randn(20, dtype=torch.float64, requires_grad=True)

    def squared_sums(value):
        return SparseTensor(row=row, col=col, value=value, sparse_sizes=(6, 7))[row].sum(dim=1).square()

    assert gradcheck(squared_sums, value)
    assert gradgradcheck(squared_sums, value)


def run_python(code, **environment):
    command = [sys.executable, "-W", "ignore", "-c", code]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


IMPORT_EVERY_MODEL = """
import importlib, importlib.util, pkgutil
import ocp_dc._pyg_fallback as fallback
supplied = fallback.served()
import torch_geometric.typing
assert torch_geometric.typing.WITH_TORCH_SCATTER == ("torch_scatter" not in supplied)
assert torch_geometric.typing.WITH_TORCH_SPARSE == ("torch_sparse" not in supplied)
for name in ("torch_scatter", "torch_scatter.utils", "torch_sparse"):
    assert importlib.util.find_spec(name).name == name
    assert importlib.import_module(name).__name__ == name
assert __import__("torch_scatter").__version__ and __import__("torch_sparse").__version__
assert fallback.served() == supplied
import fairchem.core.models as models
for module in pkgutil.walk_packages(models.__path__, models.__name__ + "."):
    importlib.import_module(module.name)
from fairchem.core.common.registry import registry
print(*registry.mapping["model_name_mapping"])
"""


def test_every_model_of_fairchem_imports():
    names = run_python(IMPORT_EVERY_MODEL)
    assert {"schnet", "dimenetplusplus", "gemnet_t", "gemnet_oc", "painn", "escn", "equiformer_v2"} <= set(names)


@pytest.mark.parametrize("first", ["torch_scatter", "torch_sparse"])
def test_torch_geometric_never_gets_the_stand_ins(first):
    flags = "typing.WITH_TORCH_SCATTER, typing.WITH_TORCH_SPARSE"
    code = f"import ocp_dc._pyg_fallback as f; s = f.served(); import {first}; from torch_geometric import typing"
    *supplied, with_scatter, with_sparse = run_python(f"{code}; print(*s, {flags})")
    assert with_scatter == str("torch_scatter" not in supplied)
    assert with_sparse == str("torch_sparse" not in supplied)


@pytest.mark.parametrize("name", ["torch_scatter", "torch_sparse"])
def test_installed_packages_are_not_shadowed(name, tmp_path, monkeypatch):
    (tmp_path / f"{name}.py").write_text("installed = True")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name)
    assert name not in fallback.served()
    assert importlib.import_module(name).installed


class LateFinder:
    """Offers one module, as the finder of an editable install does that is not on `sys.path`."""

    def __init__(self, name, path):
        self.spec = importlib.util.spec_from_file_location(name, path)

    def find_spec(self, name, path=None, target=None):
        return self.spec if name == self.spec.name else None


@pytest.mark.parametrize("name", ["torch_scatter", "torch_sparse"])
def test_packages_that_a_later_finder_offers_are_not_shadowed(name, tmp_path, monkeypatch):
    (tmp_path / f"{name}.py").write_text("installed = True")
    finders = [*sys.meta_path, object(), LateFinder(name, tmp_path / f"{name}.py")]
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.delitem(sys.modules, name)
    assert name not in fallback.served()
    assert importlib.import_module(name).installed


def test_the_finder_is_appended_once():
    importlib.reload(finder)
    ours = [each for each in sys.meta_path if getattr(each, "__module__", None) == finder.__name__]
    assert len(ours) == 1


def test_importing_the_package_is_light():
    code = "import sys, ocp_dc; heavy = {'torch', 'numpy', 'fairchem', 'ase'}; print(*heavy & set(sys.modules))"
    assert run_python(code) == []


def test_asking_for_the_trainers_registers_trainer_and_models():
    code = "import ocp_dc; print(ocp_dc.trainers.__name__, hasattr(ocp_dc, 'nothing'))"
    code += "; from fairchem.core.common.registry import registry as r"
    code += "; print(*r.mapping['model_name_mapping'], *r.mapping['trainer_name_mapping'])"
    module, unknown_name, *registered = run_python(code)
    assert (module, unknown_name) == ("ocp_dc.trainers", "False")
    assert {"schnet_irelu", "derivative_constrained", "dc_forces"} <= set(registered)


GEMNET = {
    "num_spherical": 3,
    "num_radial": 8,
    "num_blocks": 1,
    "emb_size_atom": 16,
    "emb_size_edge": 16,
    "emb_size_rbf": 4,
    "emb_size_cbf": 4,
    "num_before_skip": 1,
    "num_after_skip": 1,
    "num_concat": 1,
    "num_atom": 1,
    "direct_forces": False,
}
GEMNET_T = GEMNET | {"emb_size_trip": 8, "emb_size_bil_trip": 8, "cbf": {"name": "spherical_harmonics"}}
GEMNET_OC = GEMNET | {
    "emb_size_trip_in": 8,
    "emb_size_trip_out": 8,
    "emb_size_quad_in": 8,
    "emb_size_quad_out": 8,
    "emb_size_aint_in": 8,
    "emb_size_aint_out": 8,
    "emb_size_sbf": 4,
    "num_output_afteratom": 1,
    "rbf": {"name": "gaussian"},
    "envelope": {"name": "polynomial", "exponent": 5},
    "cbf": {"name": "spherical_harmonics"},
    "sbf": {"name": "legendre_outer"},
    "quad_interaction": True,
    "atom_edge_interaction": True,
    "edge_atom_interaction": True,
    "atom_interaction": True,
}
MODELS = {
    "dimenet_plus_plus.DimeNetPlusPlusWrap": {
        "hidden_channels": 16,
        "num_blocks": 1,
        "int_emb_size": 8,
        "out_emb_channels": 16,
        "num_spherical": 3,
        "num_radial": 3,
    },
    "gemnet.gemnet.GemNetT": GEMNET_T,
    "gemnet_oc.gemnet_oc.GemNetOC": GEMNET_OC,
    "painn.painn.PaiNN": {"hidden_channels": 16, "num_layers": 1, "num_rbf": 8, "direct_forces": False},
}


def molecule(atomic_numbers):
    atoms = len(atomic_numbers)
    return Data(
        pos=1.2 * torch.randn(atoms, 3) + 50,
        atomic_numbers=torch.tensor(atomic_numbers),
        natoms=atoms,
        cell=100 * torch.eye(3)[None],
        pbc=torch.zeros(1, 3, dtype=torch.bool),
        fixed=torch.zeros(atoms),
        tags=torch.full((atoms,), 2),
        energy=1.0,
        forces=torch.randn(atoms, 3),
    )


# fairchem warns of missing scale factors, and of its own use of torch.cross.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_fairchem_model_trains_on_gradient_forces(name):
    torch.manual_seed(0)
    model_class = registry.get_model_class(f"fairchem.core.models.{name}")
    model = model_class(**MODELS[name], cutoff=5.0, regress_forces=True, use_pbc=True, otf_graph=True)
    batch = Batch.from_data_list([molecule([8, 1, 1, 6]), molecule([6, 1, 1, 1, 1])])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)

    # The last layer of DimeNet++ starts at zero: only from the second step on do gradients reach the others.
    for _ in range(2):
        optimizer.zero_grad()
        output = model(batch)
        energy_loss = (output["energy"].view(-1) - batch.energy).abs().mean()
        force_loss = (output["forces"] - batch.forces).abs().mean()
        force_loss.backward(retain_graph=True)
        assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in parameters)
        energy_loss.backward()
        optimizer.step()
        assert torch.isfinite(energy_loss + force_loss)

    changed = [not torch.equal(old, new) for old, new in zip(before, parameters, strict=True)]
    assert sum(changed) > len(changed) / 2
    assert all(torch.isfinite(parameter).all() for parameter in parameters)
