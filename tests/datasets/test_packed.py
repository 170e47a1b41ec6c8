"""``md17_packed`` gives the records, the batches and the training that fairchem's ``lmdb`` gives."""

from __future__ import annotations

import gc
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fairchem.core.common.registry import registry
from fairchem.core.datasets import LmdbDataset, data_list_collater
from fairchem.core.datasets.base_dataset import create_dataset
from torch.utils.data import DataLoader

import ocp_dc.trainers  # noqa: F401  registers the dataset
from ocp_dc.datasets.lmdb import RecordFile, RecordWriter
from ocp_dc.datasets.packed import PackedDataset, PackedRecords, collate, is_packed, read_fast
from ocp_dc.errors import InputError
from ocp_dc.launch import run_fairchem
from ocp_dc.trainers.config_keys import check_trainer_config
from ocp_dc.trainers.metrics_log import read_metrics

KEY_MAPPING = {"y": "energy", "force": "forces"}


def settings(source: Path, **others) -> dict:
    return {"src": str(source), "key_mapping": KEY_MAPPING, **others}


@pytest.fixture
def stock(sample_data) -> LmdbDataset:
    return LmdbDataset(settings(sample_data / "train"))


@pytest.fixture
def packed(sample_data) -> PackedDataset:
    return PackedDataset(settings(sample_data / "train"))


def assert_same(ours, theirs):
    """Fields, their order, types and values; also what PyG keeps to take a batch apart."""
    assert type(ours) is type(theirs)
    assert_same_values(dict(ours.items()), dict(theirs.items()))
    private = {name: value for name, value in vars(theirs._store).items() if name in ("_slice_dict", "_inc_dict")}
    assert_same_values({name: vars(ours._store)[name] for name in private}, private)


def assert_same_values(ours, theirs, name="a batch"):
    assert type(ours) is type(theirs), name
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), name
        for key in theirs:
            assert_same_values(ours[key], theirs[key], key)
    elif isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype, name
        assert ours.shape == theirs.shape, name
        assert torch.equal(ours, theirs), name
    else:
        assert ours == theirs, name


def test_read_fast_packs_what_can_be_packed(sample_data, oxide_data, tmp_path):
    assert isinstance(read_fast(settings(sample_data / "val")), PackedDataset)
    assert isinstance(read_fast(settings(oxide_data / "val")), LmdbDataset)
    folder = shutil.copytree(sample_data / "val", tmp_path / "val")
    with RecordFile(folder / "data.lmdb") as records:
        graphs = [records[row] for row in range(5)]
    graphs[3].fixed[2] = 1
    (folder / "data.lmdb").unlink()
    with RecordWriter(folder / "data.lmdb") as writer:
        for graph in graphs:
            writer.put(graph)
    one_fixed = read_fast(settings(folder))
    assert isinstance(one_fixed, LmdbDataset)
    assert [int(record.fixed.sum()) for record in one_fixed] == [0, 0, 0, 1, 0]
    shutil.copy(sample_data / "val" / "manifest.json", tmp_path)
    (tmp_path / "data.lmdb").write_bytes((sample_data / "val" / "data.lmdb").read_bytes()[:5000])
    with pytest.raises(InputError, match="is cut short"):
        read_fast(settings(tmp_path))


def test_is_registered():
    assert registry.get_dataset_class("md17_packed") is PackedDataset


@pytest.mark.parametrize(
    "changes",
    [{}, {"key_mapping": None}, {"key_mapping": {"y": ["energy", "y"], "force": "forces"}}],
    ids=["mapped", "as stored", "to two names"],
)
def test_records_are_those_of_lmdb(sample_data, changes):
    config = settings(sample_data / "train", **changes)
    ours, theirs = PackedDataset(config), LmdbDataset(config)
    assert len(ours) == len(theirs) == 100
    for index in (*range(100), -1):
        assert_same(ours[index], theirs[index])
    with pytest.raises(IndexError):
        ours[100]


def test_a_file_has_no_ids_like_a_folder(sample_data):
    config = settings(sample_data / "train" / "data.lmdb")
    ours, theirs = PackedDataset(config), LmdbDataset(config)
    assert "id" not in ours[7]
    assert_same(ours[7], theirs[7])
    assert_same(ours.batch([7, 3]), data_list_collater([theirs[7], theirs[3]]))


@pytest.mark.parametrize("otf_graph", [True, False])
@pytest.mark.parametrize("indices", [[5], [3, 1, 99], [4, 4], list(range(99, 79, -1))])
def test_batches_are_those_of_fairchem(packed, stock, indices, otf_graph):
    expected = data_list_collater([stock[i] for i in indices], otf_graph=otf_graph)
    for given in (indices, np.array(indices), torch.tensor(indices)):
        batch = packed.batch(given, otf_graph)
        assert_same(batch, expected)
    assert batch.num_graphs == len(indices)
    for ours, theirs in zip(batch.to_data_list(), expected.to_data_list(), strict=True):
        assert_same(ours, theirs)


def test_conformations_of_cells_and_sizes_of_their_own(write_npz, run_command, tmp_path, arrays):
    arrays["R"][::2, 3] += 100  # cells of different sizes
    run_command("convert", write_npz(arrays), tmp_path / "data", "--train", 30, "--val", 5, "--test", 5)
    config = settings(tmp_path / "data" / "train")
    ours, theirs = PackedDataset(config), LmdbDataset(config)
    assert len(torch.unique(ours.batch(range(30)).cell[:, 0, 0])) > 2
    assert_same(ours.batch(range(30)), data_list_collater([theirs[i] for i in range(30)]))


def test_records_and_batches_are_independent_of_one_another(packed, stock):
    def spoil(graph):
        for value in dict(graph.items()).values():
            if isinstance(value, torch.Tensor):
                value.fill_(1)
            elif isinstance(value, list):
                value.clear()

    spoil(packed[3])
    spoil(packed.batch([3, 4]))
    assert_same(packed[3], stock[3])
    assert_same(packed.batch([3, 4]), data_list_collater([stock[3], stock[4]]))


def test_fairchems_own_collater_makes_the_same_of_what_a_loader_gets(packed, stock):
    records = packed.__getitems__([3, 1])
    assert isinstance(records, PackedRecords)
    assert_same(data_list_collater(records, otf_graph=True), packed.batch([3, 1], otf_graph=True))
    assert_same(collate(records, otf_graph=True), packed.batch([3, 1], otf_graph=True))
    assert_same(collate([stock[3], stock[1]], otf_graph=True), packed.batch([3, 1], otf_graph=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_of_a_subset_give_the_same_batches(sample_data, workers):
    def batches(name, collate):
        dataset = create_dataset(settings(sample_data / "train", format=name, sample_n=50), "train")
        assert is_packed(dataset) is (name == "md17_packed")
        batches = [[0, 7, 3], torch.tensor([49, 2]), [11]]
        processes = workers if is_packed(dataset) else 0
        otf = partial(collate, otf_graph=True)
        return list(DataLoader(dataset, batch_sampler=batches, collate_fn=otf, num_workers=processes))

    theirs = batches("lmdb", data_list_collater)
    for ours, expected in zip(batches("md17_packed", collate), theirs, strict=True):
        assert_same(ours, expected)


def test_has_the_metadata_of_the_balanced_sampler(packed, stock):
    assert packed.metadata_hasattr("natoms")
    assert packed.get_metadata("natoms", [3, 5]) == stock.get_metadata("natoms", [3, 5]) == [9, 9]


def test_can_be_sent_to_a_process(packed, stock):
    assert_same(pickle.loads(pickle.dumps(packed)).batch([1, 2]), data_list_collater([stock[1], stock[2]]))


def test_writes_nothing_and_holds_no_file_open(sample_data, tmp_path):
    folder = shutil.copytree(sample_data / "train", tmp_path / "train")
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    folder.chmod(0o555)
    try:
        packed = PackedDataset(settings(folder))
        assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
        with RecordFile(folder / "data.lmdb") as records:  # an LMDB can be open once in a process
            assert len(records) == len(packed)
    finally:
        folder.chmod(0o755)


def test_structures_are_refused(oxide_data):
    with pytest.raises(InputError, match=r"no manifest of one molecule.*set dataset\.train\.format to lmdb"):
        PackedDataset(settings(oxide_data / "train"))


def test_an_lmdb_without_a_manifest_is_refused(sample_data, tmp_path):
    shutil.copy(sample_data / "train" / "data.lmdb", tmp_path)
    for source in (tmp_path, tmp_path / "data.lmdb"):
        with pytest.raises(InputError, match="no manifest of one molecule"):
            PackedDataset(settings(source))


def test_other_records_beside_the_manifest_are_refused(sample_data, tmp_path):
    folder = shutil.copytree(sample_data / "train", tmp_path / "train")
    with RecordFile(folder / "data.lmdb") as records:
        first, tagged, wide, unlabelled = (records[row] for row in range(4))
    tagged.tags[4] = 1
    wide.pos = wide.pos.double()
    del unlabelled.y

    def refused(*records):
        (folder / "data.lmdb").unlink()
        with RecordWriter(folder / "data.lmdb") as writer:
            for record in records:
                writer.put(record)
        with pytest.raises(InputError) as refusal:
            PackedDataset(settings(folder))
        gc.collect()
        return str(refusal.value)

    assert "data.lmdb: record 1 differs from the first in tags; set dataset.train.format" in refused(first, tagged)
    assert "record 1 differs from the first in pos" in refused(first, wide)
    assert "record 2 differs from the first in its fields" in refused(first, first, unlabelled)
    assert "record 0 has no y" in refused(unlabelled)
    assert "has no record 0" in refused()
    shutil.copy(folder / "data.lmdb", folder / "more.lmdb")
    with pytest.raises(InputError, match="has 2 LMDBs, not one"):
        PackedDataset(settings(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"src": ["a", "b"]}, "reads one folder"),
        ({"shard": 0, "total_shards": 2}, "shard is not for a dataset of format md17_packed"),
        ({"transforms": {"decompose_tensor": {}}}, r"transforms\.decompose_tensor is not for"),
    ],
)
def test_settings_of_lmdb_alone_are_refused(sample_data, changes, message):
    with pytest.raises(InputError, match=message):
        PackedDataset(settings(sample_data / "train") | changes)


def test_normalizers_of_the_trainer_are_left_to_it(sample_data):
    config = settings(sample_data / "train", transforms={"normalizer": {"energy": {"mean": 1, "stdev": 2}}})
    ours, theirs = PackedDataset(config), LmdbDataset(config)
    assert_same(ours[3], theirs[3])


def test_a_missing_source_is_found_with_the_config(tmp_path):
    optim = {"optimizer": "Adam", "lr_initial": 1e-3, "max_epochs": 1, "scheduler": "Null"}
    dataset = {"train": {"format": "md17_packed", "src": str(tmp_path / "nowhere")}}
    outputs = {"energy": {"level": "system"}, "forces": {"level": "atom"}}
    with pytest.raises(InputError, match=r"dataset\.train\.src is .*nowhere: no LMDB there"):
        check_trainer_config(
            task={}, model={"name": "schnet"}, outputs=outputs, dataset=dataset, optim=optim, loss_functions=[]
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_that_on_lmdb_bit_for_bit(train_arguments, tmp_path, monkeypatch, workers):
    # no record is made: batches are taken from the arrays
    monkeypatch.delattr(PackedDataset, "__getitem__")

    def train(name):
        overrides = (f"--dataset.train.format={name}", f"--optim.num_workers={workers}", "--optim.max_epochs=4")
        # without it, the first record says how many are validated at once
        overrides += ("--optim.eval_batch_size=20",)
        run_fairchem("train", train_arguments("schnet_dc", "--seed=3", *overrides, run_dir=tmp_path / name))
        (log,) = (tmp_path / name).glob("logs/tensorboard/*/metrics.jsonl")
        return read_metrics(log), weights(tmp_path / name)

    (theirs, their_weights), (ours, our_weights) = train("lmdb"), train("md17_packed")
    assert len([record for record in ours if record["split"] == "train"]) == 20
    assert ours == theirs
    assert_same_values(our_weights, their_weights)


def test_a_run_continues_on_the_other_format(train_arguments, tmp_path):
    def train(name, epochs, run_dir, *overrides):
        overrides = (f"--dataset.train.format={name}", f"--optim.max_epochs={epochs}", *overrides)
        run_fairchem("train", train_arguments("schnet_dc", *overrides, run_dir=tmp_path / run_dir))

    train("lmdb", 2, "uninterrupted")
    train("lmdb", 1, "continued", "--timestamp-id=run")
    checkpoint = tmp_path / "continued" / "checkpoints" / "run" / "checkpoint.pt"
    train("md17_packed", 2, "continued", "--timestamp-id=run", f"--checkpoint={checkpoint}")
    assert_same_values(weights(tmp_path / "continued"), weights(tmp_path / "uninterrupted"))


def test_fairchems_own_trainer_takes_it(train_arguments, tmp_path):
    for name in ("lmdb", "md17_packed"):
        overrides = ("--trainer=ocp", f"--dataset.train.format={name}", "--optim.max_epochs=1")
        run_fairchem("train", train_arguments("schnet", *overrides, run_dir=tmp_path / name))
    assert_same_values(weights(tmp_path / "md17_packed"), weights(tmp_path / "lmdb"))


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    (checkpoint,) = run_dir.glob("checkpoints/*/checkpoint.pt")
    return dict(torch.load(checkpoint, weights_only=False)["state_dict"])
