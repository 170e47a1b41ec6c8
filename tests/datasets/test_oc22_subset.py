import filecmp
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time

import ase.io
import lmdb
import numpy as np
import pytest
import torch
from fairchem.core.datasets.lmdb_dataset import LmdbDataset
from fairchem.core.preprocessing import AtomsToGraphs
from fairchem.core.scripts.preprocess_ef import write_images_to_lmdb
from torch_geometric.data import Data

from ocp_dc.datasets.lmdb import RecordFile
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.oc22_subset import draw_subset
from ocp_dc.datasets.shard_writing import ShardWriter
from ocp_dc.errors import InputError
from ocp_dc.evaluation import predict
from ocp_dc.launch import run_fairchem

PER_SHARD, SHARDS = 12, {"train": 5, "val_ood": 3, "val_id": 1}
SIZES = {"train": 31, "val": 13}


def make_record(number):
    """Fields as OC22's: without pbc, with edges that are not ours."""
    random = np.random.default_rng(number)
    natoms = 3 + number % 4
    fractional = np.stack([np.arange(natoms) / natoms, random.random(natoms), random.random(natoms)], axis=1)
    cell = np.diag([4.0 * natoms, 5.0, 14.0])
    return {
        "pos": torch.tensor(fractional @ cell, dtype=torch.float32),
        "cell": torch.tensor(cell[None], dtype=torch.float32),
        "atomic_numbers": torch.tensor([8.0] * (natoms - 1) + [22.0]),
        "natoms": natoms,
        "tags": torch.tensor([0] + [1] * (natoms - 1)),
        "fixed": torch.tensor([1.0] + [0.0] * (natoms - 1)),
        "edge_index": torch.zeros(2, 7, dtype=torch.long),
        "cell_offsets": torch.zeros(7, 3),
        "y": -300.0 - float(random.random()),
        "force": torch.tensor(random.normal(size=(natoms, 3)), dtype=torch.float32),
        "sid": torch.tensor([number // 10]),
        "fid": number % 10,
        "nads": 1,
        "oc22": 1,
    }


def old_pickle(record):
    """As PyG 1.x has pickled it."""
    data = Data.__new__(Data)
    data.__dict__.update({"x": None, "edge_attr": None, "norm": None, **record})
    return pickle.dumps(data)


def new_pickle(record):
    return pickle.dumps(Data(**record))


def write_lmdb(file, records, length=None):
    with (
        lmdb.open(str(file), subdir=False, lock=False, sync=False, map_size=1 << 30) as environment,
        environment.begin(write=True) as transaction,
    ):
        for index, record in records:
            transaction.put(str(index).encode(), record)
        if length is not None:
            transaction.put(b"length", pickle.dumps(length))


def first_number(split, shard=0):
    return PER_SHARD * (shard + sum(SHARDS[name] for name in list(SHARDS)[: list(SHARDS).index(split)]))


def write_shard(folder, shard, pickled=None, **changes):
    start = first_number(folder.name, shard)
    pickled = pickled or (old_pickle if shard % 2 else new_pickle)
    records = [(index, pickled({**make_record(start + index), **changes})) for index in range(PER_SHARD)]
    # some of OC22's shards state their length
    write_lmdb(folder / f"data.{shard:04}.lmdb", records, PER_SHARD if shard % 3 else None)


@pytest.fixture
def tree(tmp_path):
    """Folders of shards as OC22's S2EF-total."""
    for split, shards in SHARDS.items():
        folder = tmp_path / "s2ef_total" / split
        folder.mkdir(parents=True)
        for shard in range(shards):
            write_shard(folder, shard)
        natoms = [make_record(first_number(split) + row)["natoms"] for row in range(shards * PER_SHARD)]
        np.savez(folder / "metadata.npz", natoms=np.array(natoms))
    return tmp_path / "s2ef_total"


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def fairchem_dataset(folder):
    return LmdbDataset({"src": str(folder), "key_mapping": {"y": "energy", "force": "forces"}})


def assert_same_files(one, other):
    names = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    assert names == sorted(file.relative_to(other) for file in other.rglob("*") if file.is_file())
    assert len(names) >= 6
    for name in names:
        assert filecmp.cmp(one / name, other / name, shallow=False), name


def test_counts_records_and_where_they_are_from(tree, tmp_path):
    manifests = draw_subset(tree, tmp_path / "out", sizes=SIZES, seed=4, shard_size=10)
    assert entries(tmp_path) == ["out", "s2ef_total"]
    for name, split, shards in (("train", "train", 4), ("val", "val_ood", 2)):
        folder = tmp_path / "out" / name
        files = [f"data.{index:04}.lmdb" for index in range(shards)]
        assert entries(folder) == [*files, "manifest.json", "metadata.npz"]
        manifest = read_manifest(folder)
        assert manifest == manifests[name]
        assert (manifest.split, manifest.count, manifest.shards) == (name, SIZES[name], shards)
        assert (manifest.source_count, manifest.source_file) == (SHARDS[split] * PER_SHARD, f"s2ef_total/{split}")
        assert manifest.source_files == [f"data.{index:04}.lmdb" for index in range(SHARDS[split])]
        assert (manifest.seed, manifest.split_method) == (4, "random")
        metadata = np.load(folder / "metadata.npz")
        rows = metadata["source_file"] * PER_SHARD + metadata["source_index"]
        assert len(set(rows)) == len(rows) == SIZES[name]
        assert rows.tolist() == sorted(rows)
        energies = []
        for graph, row, natoms in zip(fairchem_dataset(folder), rows, metadata["natoms"], strict=True):
            record = make_record(first_number(split) + row)
            energies.append(record["y"])
            assert graph.natoms == natoms == record["natoms"]
            assert graph.energy.tolist() == [record["y"]]
            for field in ("pos", "cell", "tags", "fixed"):
                torch.testing.assert_close(graph[field], record[field], rtol=0, atol=0, check_dtype=False)
            torch.testing.assert_close(graph.forces, record["force"], rtol=0, atol=0)
            assert graph.atomic_numbers.tolist() == record["atomic_numbers"].tolist()
            assert graph.pbc.tolist() == [[True] * 3]
            assert (graph.sid, graph.fid) == (record["sid"].item(), record["fid"])
            assert "edge_index" not in graph
        assert manifest.labels.energy_mean == pytest.approx(np.mean(energies), abs=1e-9)
        assert manifest.labels.energy_std == pytest.approx(np.std(energies))
        assert manifest.atoms.periodic_along == {"abc": SIZES[name]}


def test_manifests_of_earlier_versions_are_read(tree, tmp_path):
    draw_subset(tree, tmp_path / "out", sizes=SIZES)
    file = tmp_path / "out" / "train" / "manifest.json"
    text = file.read_text("utf-8")
    assert "fairchem's LMDBs" in text
    file.write_text(text.replace("fairchem's LMDBs", "host's LMDBs"), "utf-8")
    assert read_manifest(file.parent).source_layout == "host's LMDBs"


def test_draws_depend_on_the_seed_only(tree, tmp_path):
    rows = []
    for out, seed, shard_size in (("a", 0, 10), ("b", 0, 50_000), ("c", 1, 10)):
        draw_subset(tree, tmp_path / out, sizes=SIZES, seed=seed, shard_size=shard_size)
        rows.append([graph.y.item() for graph in LmdbDataset({"src": str(tmp_path / out / "train")})])
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_edges_are_stored_on_request(tree, tmp_path):
    manifests = draw_subset(tree, tmp_path / "out", sizes={"val": 6}, val_split="val_id", cutoff=5.5)
    assert list(manifests) == ["val"]
    assert (manifests["val"].edges.cutoff, manifests["val"].edges.max_neighbors) == (5.5, 50)
    for graph in fairchem_dataset(tmp_path / "out" / "val"):
        sender, receiver = graph.edge_index
        vectors = graph.pos[sender] - graph.pos[receiver] + graph.cell_offsets.float() @ graph.cell[0]
        assert vectors.norm(dim=1).max() <= 5.5
        assert (graph.cell_offsets[sender == receiver][:, 1].abs() == 1).all()  # the cell's short side is 5
        assert (sender == receiver).sum() == 2 * graph.natoms


def test_given_indices(tree, tmp_path):
    (tmp_path / "train.txt").write_text("59 0 12")
    (tmp_path / "val.txt").write_text("35")
    manifests = draw_subset(tree, tmp_path / "out", split_dir=tmp_path)
    metadata = np.load(tmp_path / "out" / "train" / "metadata.npz")
    assert (metadata["source_file"].tolist(), metadata["source_index"].tolist()) == ([0, 1, 4], [0, 0, 11])
    assert list(manifests["val"].split_files) == ["train.txt", "val.txt"]
    (tmp_path / "val.txt").write_text("36")
    with pytest.raises(InputError, match=r"val\.txt: index 36 is out of range, there are 36"):
        draw_subset(tree, tmp_path / "out2", split_dir=tmp_path)


# interruptions


def start_draw_that_stalls(tree, out, after, monkeypatch):
    """A draw in a process of its own that will not end by itself after so many records."""
    context = multiprocessing.get_context("fork")
    stalled, add, written = context.Event(), ShardWriter.add, []

    def add_and_stall(writer, *record):
        add(writer, *record)
        written.append(record)
        if len(written) == after:
            stalled.set()
            time.sleep(60)

    monkeypatch.setattr(ShardWriter, "add", add_and_stall)
    process = context.Process(
        target=draw_subset, args=(tree, out), kwargs={"sizes": SIZES, "shard_size": 10, "cutoff": 4.0}
    )
    process.start()
    assert stalled.wait(30)
    monkeypatch.undo()
    return process


def test_killed_and_started_again_gives_the_same_files(tree, tmp_path, monkeypatch):
    settings = {"sizes": SIZES, "shard_size": 10, "cutoff": 4.0}
    draw_subset(tree, tmp_path / "uninterrupted", **settings)
    out = tmp_path / "out"
    for after in (25, 15):  # in the third shard, then in what the second start has to do
        process = start_draw_that_stalls(tree, out, after, monkeypatch)
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        assert not out.exists()
    finished = {file: file.stat().st_mtime_ns for file in (tmp_path / ".out.partial").rglob("contents/*/*")}
    assert len(finished) == 4
    kept = tmp_path / ".out.partial" / "out" / "train" / "data.0001.lmdb"
    written = kept.stat().st_mtime_ns
    draw_subset(tree, out, **settings)
    assert entries(tmp_path) == ["out", "s2ef_total", "uninterrupted"]
    assert (out / "train" / kept.name).stat().st_mtime_ns == written
    assert_same_files(tmp_path / "uninterrupted", out)


def test_unfinished_work_of_another_command_is_not_mixed_in(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    process = start_draw_that_stalls(tree, out, 15, monkeypatch)
    with pytest.raises(InputError, match="out is being written by another process"):
        draw_subset(tree, out, sizes=SIZES, shard_size=10, cutoff=4.0)
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    with pytest.raises(
        InputError, match=r"\.out\.partial holds the unfinished work .*differs in train: chosen records"
    ):
        draw_subset(tree, out, sizes=SIZES, seed=1, shard_size=10, cutoff=4.0)
    with pytest.raises(InputError, match="differs in train: edges, val: edges"):
        draw_subset(tree, out, sizes=SIZES, shard_size=10)
    draw_subset(tree, out, sizes=SIZES, shard_size=10, cutoff=4.0)
    assert read_manifest(out / "train").count == SIZES["train"]
    with pytest.raises(InputError, match="out exists"):
        draw_subset(tree, out, sizes=SIZES, shard_size=10, cutoff=4.0)


def test_a_full_disk_leaves_what_is_finished(tree, tmp_path, monkeypatch):
    draw_subset(tree, tmp_path / "uninterrupted", sizes=SIZES, shard_size=10)
    monkeypatch.setattr("ocp_dc.datasets.lmdb.MAP_SIZE", 1 << 14)
    with pytest.raises(InputError, match=r"out could not be written: .*MDB_MAP_FULL.*the same command goes on there"):
        draw_subset(tree, tmp_path / "out", sizes=SIZES, shard_size=10)
    monkeypatch.undo()
    draw_subset(tree, tmp_path / "out", sizes=SIZES, shard_size=10)
    assert_same_files(tmp_path / "uninterrupted", tmp_path / "out")


def test_several_processes_write_the_same_files(tree, tmp_path):
    settings = {"sizes": {"train": 60, "val": 13}, "shard_size": 25, "cutoff": 4.0}
    draw_subset(tree, tmp_path / "one", **settings)
    shard = tree / "train" / "data.0004.lmdb"
    sound = shard.read_bytes()
    shard.unlink()
    write_shard(shard.parent, 4, y=float("nan"))
    with pytest.raises(InputError, match=r"data\.0004\.lmdb: record \d+: NaN or infinite energy"):
        draw_subset(tree, tmp_path / "two", **settings, jobs=2)
    shard.write_bytes(sound)
    draw_subset(tree, tmp_path / "two", **settings, jobs=2)
    assert_same_files(tmp_path / "one", tmp_path / "two")


class Kills:
    """Kills the process that unpickles it, as the system does when memory runs out."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_killed_worker_leaves_what_is_finished(tree, tmp_path):
    settings = {"sizes": {"train": 60, "val": 13}, "shard_size": 25}
    draw_subset(tree, tmp_path / "uninterrupted", **settings)
    shard = tree / "train" / "data.0004.lmdb"
    sound = shard.read_bytes()
    shard.unlink()
    write_shard(shard.parent, 4, y=Kills())
    with pytest.raises(InputError, match="a process that wrote a shard was killed, perhaps for memory; try fewer --jo"):
        draw_subset(tree, tmp_path / "out", **settings, jobs=2)
    assert not (tmp_path / "out").exists()
    shard.write_bytes(sound)
    draw_subset(tree, tmp_path / "out", **settings, jobs=2)
    assert_same_files(tmp_path / "uninterrupted", tmp_path / "out")


# damaged sources


def test_a_truncated_shard_is_named(tree, tmp_path):
    shard = tree / "train" / "data.0003.lmdb"
    whole = shard.read_bytes()
    for size in (len(whole) - 4096, len(whole) // 2, 8192, 4096, 100, 0):
        shard.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"data\.0003\.lmdb (is cut short|is not an LMDB)"):
            draw_subset(tree, tmp_path / "out", sizes=SIZES)
    assert entries(tmp_path) == ["s2ef_total"]
    shard.write_bytes(whole)
    assert draw_subset(tree, tmp_path / "out", sizes=SIZES)["train"].count == SIZES["train"]


BAD_RECORDS = {
    "no energy": ({"y": None}, r"record 0 has no energy \(y or energy\)"),
    "no forces": ({"force": None}, r"record 0 has no energy .* or no forces"),
    "no positions": ({"pos": None}, r"record 0 has no pos; it has"),
    "NaN energy": ({"y": float("nan")}, r"record 0: NaN or infinite energy"),
    "NaN forces": ({"force": torch.full((3, 3), torch.nan)}, r"record 0: NaN or infinite forces"),
    "forces of another structure": (
        {"force": torch.zeros(2, 3)},
        r"record 0: forces of shape \(2, 3\), where \(3, 3\)",
    ),
}


@pytest.mark.parametrize("pickled", [old_pickle, new_pickle])
@pytest.mark.parametrize("case", BAD_RECORDS)
def test_bad_records_are_named(tree, tmp_path, case, pickled):
    changes, message = BAD_RECORDS[case]
    record = {**make_record(first_number("val_id")), **changes}
    shard = tree / "val_id" / "data.0000.lmdb"
    shard.unlink()
    write_lmdb(shard, [(0, pickled(record)), (1, pickled(make_record(1)))])
    (shard.parent / "metadata.npz").unlink()
    with pytest.raises(InputError, match=rf"data\.0000\.lmdb: {message}"):
        draw_subset(tree, tmp_path / "out", sizes={"val": 2}, val_split="val_id")


def test_damaged_pickles_and_missing_records_are_named(tree, tmp_path):
    shard = tree / "val_id" / "data.0000.lmdb"
    (shard.parent / "metadata.npz").unlink()
    for records, message in (
        ([(0, b"not a pickle")], "record 0 cannot be unpickled"),
        ([(0, pickle.dumps([1, 2]))], "record 0 is a list, not a graph"),
        ([(1, new_pickle(make_record(0)))], "has no record 0 of the 1"),
    ):
        shard.unlink()
        write_lmdb(shard, records)
        with pytest.raises(InputError, match=rf"data\.0000\.lmdb.*{message}"):
            draw_subset(tree, tmp_path / message.replace(" ", "_"), sizes={"val": 1}, val_split="val_id")


def test_missing_shards_and_folders(tree, tmp_path):
    with pytest.raises(InputError, match=r"val_ood: asked for 37 val = 37 conformations, but there are 36"):
        draw_subset(tree, tmp_path / "out", sizes={"train": 3, "val": 37})
    with pytest.raises(InputError, match="val_both: there is no such file or folder"):
        draw_subset(tree, tmp_path / "out", sizes=SIZES, val_split="val_both")
    with pytest.raises(InputError, match="--split train: validation frames must be from another folder"):
        draw_subset(tree, tmp_path / "out", sizes=SIZES, val_split="train")
    with pytest.raises(InputError, match="--jobs 0"):
        draw_subset(tree, tmp_path / "out", sizes=SIZES, jobs=0)
    with pytest.raises(InputError, match="train and val only, not test"):
        draw_subset(tree, tmp_path / "out", sizes={"test": 3})
    with pytest.raises(InputError, match="no conformations asked for"):
        draw_subset(tree, tmp_path / "out")
    (tree / "train" / "data.0002.lmdb").unlink()
    with pytest.raises(InputError, match=r"metadata.npz announces 60 records, the 4 shards have 48"):
        draw_subset(tree, tmp_path / "out", sizes=SIZES)
    assert entries(tmp_path) == ["s2ef_total"]


def test_records_announced_by_metadata_are_counted_without_unpickling(tree, tmp_path):
    metadata = tree / "train" / "metadata.npz"
    for count, kills in ((60, [Kills()] * 60), (61, [Kills()] * 61)):
        np.savez(metadata, natoms=np.array(kills, dtype=object))
        if count == 60:
            assert draw_subset(tree, tmp_path / "out", sizes=SIZES)["train"].count == SIZES["train"]
        else:
            with pytest.raises(InputError, match="announces 61 records, the 5 shards have 60"):
                draw_subset(tree, tmp_path / "again", sizes=SIZES)
    for damaged in (b"", b"PK not an archive", metadata.read_bytes()[:100]):
        metadata.write_bytes(damaged)
        with pytest.raises(InputError, match=r"metadata.npz cannot be read .*get it again, or remove it"):
            draw_subset(tree, tmp_path / "again", sizes=SIZES)


# commands, and what fairchem's own tools write


def test_subset_and_inspect(run_oc22, tree, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_oc22("subset", tree, out, "--train", 31, "--val", 13, "--seed", 2, "--jobs", 1) == 0
    drawn = capsys.readouterr().out
    assert f"written: {out / 'train'}, {out / 'val'}" in drawn
    assert "31 of 60" in drawn
    assert "s2ef_total/val_ood" in drawn
    assert run_oc22("inspect", tree) == 0
    lines = {line.split("  ")[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert [name.split("/")[-1] for name in lines["file"]] == ["train", "val_id", "val_ood"]
    assert lines["conformations"] == ["60", "12", "36"]
    assert lines["shards"] == ["5", "1", "3"]
    with pytest.raises(InputError, match="no such file or folder"):
        run_oc22("inspect", tmp_path / "nowhere")


@pytest.fixture
def preprocessed(frames, tmp_path):
    """LMDBs in train and val_ood by fairchem's own preprocessing of periodic structures."""
    frames = [atoms for atoms in frames if atoms.pbc.all()]
    raw = tmp_path / "raw"
    raw.mkdir()
    ase.io.write(raw / "0.extxyz", frames, format="extxyz")
    (raw / "0.txt").write_text("".join(f"random7,frame{index},0.0\n" for index in range(len(frames))))
    for split in ("train", "val_ood"):
        (tmp_path / "stock" / split).mkdir(parents=True)
        settings = type("Settings", (), {"data_path": str(raw), "ref_energy": False, "test_data": False})
        to_graphs = AtomsToGraphs(r_energy=True, r_forces=True, r_fixed=True, r_distances=False, r_edges=False)
        file = str(tmp_path / "stock" / split / "data.0000.lmdb")
        write_images_to_lmdb((to_graphs, file, [str(raw / "0.txt")], [], 0, 0, settings))
    return frames, tmp_path / "stock"


def test_subset_of_what_fairchem_has_preprocessed(preprocessed, tmp_path):
    frames, folder = preprocessed
    draw_subset(folder, tmp_path / "out", sizes={"train": 9, "val": 12}, cutoff=4.0)
    for graph in fairchem_dataset(tmp_path / "out" / "train"):
        atoms = frames[graph.fid]
        assert graph.sid == 7
        assert graph.energy.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(graph.forces, atoms.get_forces(apply_constraint=False), atol=1e-6)
        assert graph.fixed.tolist() == [1, 1, 0, 0, 0][: len(atoms)]
        assert graph.pbc.tolist() == [[True] * 3]


def test_inspect_and_evaluate_what_fairchem_has_preprocessed(preprocessed, run_oc22, train_arguments, tmp_path, capsys):
    frames, folder = preprocessed
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    assert run_oc22("inspect", folder / "train") == 0
    assert f"{energies.mean():,.4f}" in capsys.readouterr().out

    draw_subset(folder, tmp_path / "out", sizes={"train": 9, "val": 12})
    data = [f"--dataset.{split}.src={tmp_path / 'out' / split}" for split in ("train", "val")]
    model = ["--dataset.train.format=lmdb", "--model.use_pbc=true", "--optim.max_epochs=1", "--timestamp-id", "run"]
    run_fairchem("train", train_arguments("schnet_irelu", *data, *model))
    checkpoint = tmp_path / "checkpoints" / "run" / "checkpoint.pt"
    of_theirs = list(predict(checkpoint, folder / "val_ood", batch_size=5, cpu=True))
    of_ours = list(predict(checkpoint, tmp_path / "out" / "val", batch_size=5, cpu=True))
    true_energies = torch.cat([batch.true_energy for batch in of_theirs])
    np.testing.assert_allclose(true_energies, energies, rtol=1e-6)
    for theirs, ours in zip(of_theirs, of_ours, strict=True):
        torch.testing.assert_close(theirs.energy, ours.energy, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(theirs.true_forces, ours.true_forces)


# as large as the acceptance of this command asks


MEASURED = """
import sys
from pathlib import Path
from ocp_dc.datasets.oc22_subset import draw_subset

if __name__ == "__main__":
    tree, out, train, val, jobs = sys.argv[1:]
    draw_subset(tree, out, sizes={"train": int(train), "val": int(val)}, shard_size=5000, jobs=int(jobs))
    # ru_maxrss would be the parent's, from before this program was started
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def write_large_tree(tree, shards, per_shard):
    """Four fifths of the shards are for training; frames are numbered through."""
    for split, numbers in (("train", range(shards - shards // 5)), ("val_ood", range(shards - shards // 5, shards))):
        (tree / split).mkdir(parents=True)
        for shard, number in enumerate(numbers):
            frames = [(row, number * per_shard + row) for row in range(per_shard)]
            records = ((row, new_pickle({**make_record(frame), "fid": frame})) for row, frame in frames)
            write_lmdb(tree / split / f"data.{shard:04}.lmdb", records, per_shard)


def frames_of(folder):
    frames = []
    for file in sorted(folder.glob("*.lmdb")):
        with RecordFile(file) as records:
            frames += [records[row].fid for row in range(len(records))]
    return frames


def start_draw(tree, out, train, val, jobs):
    script = out.with_suffix(".py")
    script.write_text(MEASURED)  # processes can be forked for a script only, not for -c
    return subprocess.Popen([sys.executable, script, tree, out, *map(str, (train, val, jobs))], stdout=subprocess.PIPE)


@pytest.mark.slow
def test_a_large_draw_killed_and_resumed_in_flat_memory(tmp_path):
    write_large_tree(tmp_path / "large", 50, 2000)
    write_large_tree(tmp_path / "small", 5, 2000)
    peaks = {}
    for name, sizes in (("large", (60_000, 15_000)), ("small", (6_000, 1_500))):
        draw = start_draw(tmp_path / name, tmp_path / f"{name}_out", *sizes, jobs=1)
        peaks[name] = int(draw.communicate()[0])
        assert draw.returncode == 0
    assert peaks["large"] < peaks["small"] + 100_000, peaks  # kilobytes
    train, val = (frames_of(tmp_path / "large_out" / name) for name in ("train", "val"))
    assert (len(train), len(val)) == (60_000, 15_000)
    assert len({*train, *val}) == 75_000
    assert max(train) < 80_000 <= min(val)

    out, finished = tmp_path / "again", tmp_path / ".again.partial" / "contents"
    draw = start_draw(tmp_path / "large", out, 60_000, 15_000, jobs=2)
    while len(list(finished.glob("*/*.contents"))) < 3:
        time.sleep(0.1)
    draw.kill()
    draw.wait()
    assert not out.exists()
    start_draw(tmp_path / "large", out, 60_000, 15_000, jobs=2).wait()
    assert_same_files(tmp_path / "large_out", out)

    shard = tmp_path / "large" / "train" / "data.0017.lmdb"
    os.truncate(shard, shard.stat().st_size - 4096)
    with pytest.raises(InputError, match=r"train/data\.0017\.lmdb is cut short"):
        draw_subset(tmp_path / "large", tmp_path / "cut", sizes={"train": 60_000, "val": 15_000})
