import pickle

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from ocp_dc.datasets.graphs import pickled, set_fields
from ocp_dc.datasets.packed import PackedDataset
from ocp_dc.datasets.record_layout import RecordLayout

KINDS = {name: np.dtype(kind) for name, kind in {"pos": "f4", "force": "f4", "y": "f8", "cell": "f4"}.items()}
NUMBERS = [0, 1, 2, 255, 256, 257, 511, 512, 65_280, 65_535, 65_536, 2**24, 2**31 - 1]


def record(atoms=5, fid=3, seed=0, **others):
    random = np.random.default_rng(seed)
    return set_fields(
        Data(),
        atomic_numbers=np.arange(atoms),
        pos=random.normal(size=(atoms, 3)),
        force=random.normal(size=(atoms, 3)),
        y=random.normal(size=1),
        cell=np.eye(3)[None],
        fid=fid,
        sid="water",
        **others,
    )


@pytest.mark.parametrize("fid", NUMBERS)
@pytest.mark.parametrize("atoms", [1, 5, 30])
def test_values_are_those_that_are_unpickled(fid, atoms):
    template = record(atoms, fid)
    layout = RecordLayout.of(template, pickled(template), KINDS, "fid")
    width = len(pickled(template))
    alike = [record(atoms, other, seed) for seed, other in enumerate(NUMBERS)]
    alike = [graph for graph in alike if len(pickled(graph)) == width]
    assert alike
    for graph in alike:
        stored = pickled(graph)
        assert layout.fits(stored)
        values = layout.values(stored)
        assert values.keys() == {*KINDS, "fid"}
        assert values["fid"] == pickle.loads(stored)["fid"] == graph.fid
        for name in KINDS:
            assert values[name].dtype == KINDS[name]
            assert values[name].tolist() == graph[name].flatten().tolist()


def test_what_differs_elsewhere_does_not_fit():
    layout = RecordLayout.of(record(), pickled(record()), KINDS, "fid")
    other = record()
    other.atomic_numbers[2] = 99
    assert len(pickled(other)) == len(pickled(record()))
    assert not layout.fits(pickled(other))
    assert not layout.fits(pickled(record(fid=300)))
    assert not layout.fits(pickled(record(tags=np.zeros(5))))


def test_a_record_pickled_in_another_way_has_none():
    assert RecordLayout.of(record(), pickle.dumps(record()), KINDS, "fid") is None


def test_reading_by_layout_is_reading_one_by_one(write_npz, run_command, tmp_path, monkeypatch):
    run_command("convert", write_npz(), tmp_path / "data", "--train", 30, "--val", 5, "--test", 5)
    config = {"src": str(tmp_path / "data" / "train")}
    fast = PackedDataset(config).batch(range(30))
    monkeypatch.setattr(RecordLayout, "fits", lambda *_: False)
    for (name, ours), (_, theirs) in zip(fast.items(), PackedDataset(config).batch(range(30)).items(), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, name
