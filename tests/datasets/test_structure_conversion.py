import json
import pickle

import ase.db
import ase.io
import lmdb
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCartesian
from fairchem.core.common.data_parallel import BalancedBatchSampler
from fairchem.core.common.registry import registry
from fairchem.core.datasets.lmdb_dataset import LmdbDataset, data_list_collater
from fairchem.core.datasets.oc22_lmdb_dataset import OC22LmdbDataset

from ocp_dc.datasets.conversion_settings import EdgeSettings
from ocp_dc.datasets.manifest import StructuresManifest, read_manifest
from ocp_dc.datasets.structure_conversion import convert_structures
from ocp_dc.errors import InputError

SIZES = {"train": 14, "val": 4, "test": 6}
LABELS = {"y": "energy", "force": "forces"}


def write_frames(path, frames):
    if path.suffix == ".db":
        with ase.db.connect(path) as database:
            for atoms in frames:
                database.write(atoms)
    else:
        ase.io.write(path, frames, format="extxyz" if path.suffix in (".xyz", ".extxyz") else None)
    return path


@pytest.fixture
def trajectory(frames, tmp_path):
    return write_frames(tmp_path / "slabs.traj", frames)


def fairchem_dataset(folder, kind=LmdbDataset):
    return kind({"src": str(folder), "key_mapping": LABELS})


def is_lattice_vector(vectors, atoms):
    fractional = vectors @ np.linalg.inv(atoms.cell.array)
    whole = np.round(fractional)
    return np.abs(fractional - whole).max() < 1e-6 and not whole[:, ~atoms.pbc].any()


# records


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "db"])
def test_records_equal_the_frames(frames, tmp_path, suffix):
    source = write_frames(tmp_path / f"slabs.{suffix}", frames)
    expected = ase.io.read(source, ":")
    manifests = convert_structures([source], tmp_path / "out", sizes=SIZES, seed=3, shard_size=5)
    seen = []
    for name, size in SIZES.items():
        dataset = fairchem_dataset(tmp_path / "out" / name)
        assert len(dataset) == manifests[name].count == size
        rows = [graph.fid for graph in dataset]
        assert rows == sorted(rows)
        seen += rows
        for graph, row in zip(dataset, rows, strict=True):
            atoms = expected[row]
            assert graph.energy.dtype == torch.float64
            assert graph.energy.item() == atoms.get_potential_energy()
            # extended XYZ has eight decimals
            np.testing.assert_allclose(graph.forces, frames[row].calc.results["forces"], rtol=1e-6, atol=1e-8)
            assert is_lattice_vector(graph.pos.numpy() - atoms.positions, atoms)
            np.testing.assert_allclose(graph.cell[0], atoms.cell.array, rtol=1e-6)
            assert graph.atomic_numbers.tolist() == atoms.numbers.tolist()
            assert graph.natoms == len(atoms)
            assert graph.pbc.tolist() == [atoms.pbc.tolist()]
            assert graph.tags.tolist() == atoms.get_tags().tolist() == [0, 0, 1, 1, 2][: len(atoms)]
            assert graph.fixed.tolist() == [1, 1, 0, 0, 0][: len(atoms)]
            assert (graph.sid, graph.nads, graph.oc22) == ("slabs", int(len(atoms) == 5), 1)
    assert sorted(seen) == list(range(24))


def test_atoms_are_wrapped_into_the_cell_where_it_is_periodic(frames, trajectory, tmp_path):
    assert any((atoms.get_scaled_positions(wrap=False) < 0).any() for atoms in frames)
    convert_structures([trajectory], tmp_path / "out", sizes={"train": 24})
    for graph in fairchem_dataset(tmp_path / "out" / "train"):
        fractional = graph.pos @ torch.linalg.inv(graph.cell[0])
        assert ((fractional > -1e-6) & (fractional < 1 + 1e-6))[:, graph.pbc[0]].all()


def test_a_molecule_without_a_cell_gets_one_out_of_reach(tmp_path):
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((2, 3)))
    ase.io.write(tmp_path / "co.traj", atoms)
    convert_structures([tmp_path / "co.traj"], tmp_path / "out", sizes={"train": 1})
    (graph,) = fairchem_dataset(tmp_path / "out" / "train")
    assert graph.pbc.tolist() == [[False] * 3]
    assert torch.equal(graph.cell[0], 100 * torch.eye(3))


def test_several_files_are_one_collection_in_shards(frames, tmp_path):
    files = [write_frames(tmp_path / "a.db", frames[:10]), write_frames(tmp_path / "b.traj", frames[10:])]
    manifest = convert_structures(files, tmp_path / "out", sizes={"train": 18}, shard_size=7)["train"]
    folder = tmp_path / "out" / "train"
    assert [file.name for file in sorted(folder.glob("*.lmdb"))] == [f"data.000{i}.lmdb" for i in range(3)]
    assert (manifest.shards, manifest.source_count, manifest.collection) == (3, 24, "a and 1 more")
    metadata = np.load(folder / "metadata.npz")
    dataset = fairchem_dataset(folder)
    starts = np.array([0, 10])
    np.testing.assert_array_equal(
        starts[metadata["source_file"]] + metadata["source_index"], [graph.fid for graph in dataset]
    )
    assert [manifest.source_files[number] for number in metadata["source_file"]] == [
        f"{graph.sid}.{'db' if graph.sid == 'a' else 'traj'}" for graph in dataset
    ]
    np.testing.assert_array_equal(metadata["natoms"], [graph.natoms for graph in dataset])
    assert "neighbors" not in metadata


def test_manifest(frames, trajectory, tmp_path):
    manifest = convert_structures([trajectory], tmp_path / "out", sizes={"train": 24}, cutoff=5, max_neighbors=20)[
        "train"
    ]
    assert read_manifest(tmp_path / "out" / "train" / "data.0000.lmdb") == manifest
    assert isinstance(manifest, StructuresManifest)
    energies = [atoms.get_potential_energy() for atoms in frames]
    forces = np.concatenate([atoms.calc.results["forces"] for atoms in frames])
    labels, atoms = manifest.labels, manifest.atoms
    assert labels.energy_mean == pytest.approx(np.mean(energies), abs=1e-9)
    assert labels.energy_std == pytest.approx(np.std(energies))
    assert labels.mean_abs_force == pytest.approx(np.abs(forces).mean())
    assert labels.max_abs_label == np.abs(energies).max()
    assert (atoms.elements, atoms.natoms_min, atoms.natoms_max) == ([6, 8, 12, 30], 4, 5)
    assert (atoms.atoms, atoms.fixed_atoms) == (108, 48)
    assert atoms.periodic_along == {"ab": 6, "abc": 12, "none": 6}
    assert manifest.edges == EdgeSettings(5.0, 20)
    assert (manifest.energy_unit, manifest.force_unit, manifest.name) == ("eV", "eV/Ang", "slabs")


def test_theory_is_the_method_of_the_trajectory(frames, tmp_path):
    with ase.io.trajectory.TrajectoryWriter(tmp_path / "a.traj", "w") as writer:
        writer.set_description({"method": "GFN1-xTB"})
        writer.write(frames[0])
    assert convert_structures([tmp_path / "a.traj"], tmp_path / "out", sizes={"train": 1})["train"].theory == "GFN1-xTB"


# fairchem


def test_fairchems_own_oc22_dataset_and_sampler_read_it(trajectory, tmp_path):
    convert_structures([trajectory], tmp_path / "out", sizes={"train": 24}, shard_size=9, cutoff=4)
    dataset = fairchem_dataset(tmp_path / "out" / "train", OC22LmdbDataset)
    batch = data_list_collater([dataset[0], dataset[23]], otf_graph=True)
    assert batch.energy.dtype == torch.float64
    assert batch.natoms.tolist() == [5, 4]
    sampler = BalancedBatchSampler(
        dataset, batch_size=4, num_replicas=1, rank=0, device=torch.device("cpu"), seed=0, shuffle=False
    )
    assert sampler._get_natoms([0, 1]).tolist() == [5, 4]
    dataset.close_db()


def test_records_are_plain_pickles_with_writable_tensors(trajectory, tmp_path):
    convert_structures([trajectory], tmp_path / "out", sizes={"train": 4}, cutoff=5)
    file = tmp_path / "out" / "train" / "data.0000.lmdb"
    with lmdb.open(str(file), subdir=False, lock=False) as environment, environment.begin() as transaction:
        raw = transaction.get(b"3")
        assert pickle.loads(transaction.get(b"length")) == 4
    assert b"ocp_dc" not in raw
    graph = pickle.loads(raw)
    assert graph.edge_index.dtype == graph.cell_offsets.dtype == torch.int64
    # a byte for each of the two atoms' numbers and the three offsets
    assert len(raw) < 5 * graph.edge_index.shape[1] + 4000
    graph.pos += 1
    graph.cell_offsets += 1


GEMNET = {"num_spherical": 3, "num_radial": 4, "emb_size_atom": 8, "emb_size_edge": 8, "max_neighbors": 12}
GEMNET |= {f"emb_size_{part}": 4 for part in ("trip", "rbf", "cbf", "bil_trip")}
GEMNET |= {f"num_{part}": 1 for part in ("blocks", "before_skip", "after_skip", "concat", "atom")}
GEMNET |= {"activation": "original", "extensive": True, "regress_forces": True, "direct_forces": False}
MODELS = {
    "schnet_irelu": {"hidden_channels": 16, "num_filters": 8, "num_interactions": 2, "num_gaussians": 10},
    "gemnet_t_irelu": GEMNET,
}


@pytest.mark.parametrize("name", MODELS)
def test_stored_edges_are_those_the_models_build(trajectory, tmp_path, name):
    torch.manual_seed(0)
    model = registry.get_model_class(name)(**MODELS[name], cutoff=6.0, use_pbc=True)
    edges = {"cutoff": 6.0, "max_neighbors": model.max_neighbors}
    convert_structures([trajectory], tmp_path / "out", sizes={"train": 24}, **edges)
    dataset = fairchem_dataset(tmp_path / "out" / "train")
    batch = data_list_collater([dataset[row] for row in range(4)])  # of three periodicities
    metadata = np.load(tmp_path / "out" / "train" / "metadata.npz")
    assert batch.neighbors.tolist() == metadata["neighbors"][:4].tolist()
    predicted = {}
    for model.otf_graph in (True, False):
        predicted[model.otf_graph] = model(batch.clone())
    del batch.edge_index
    with pytest.raises(InputError, match="has no edges"):
        model(batch)
    for output in ("energy", "forces"):
        torch.testing.assert_close(predicted[True][output], predicted[False][output])
        assert predicted[True][output].abs().max() > 0


# what is refused


def changed(atoms, **changes):
    results = {**atoms.calc.results, **changes.pop("results", {})}
    atoms = atoms.copy()
    for name, value in changes.items():
        setattr(atoms, name, value)
    atoms.calc = SinglePointCalculator(atoms, **{name: value for name, value in results.items() if value is not None})
    return atoms


def with_two_atoms_at_one_place(atoms):
    """One of them in the neighbouring cell."""
    positions = atoms.positions.copy()
    positions[3] = positions[1] + atoms.cell[0] + [0, 0.01, 0]
    return changed(atoms, positions=positions)


BAD_FRAMES = {
    "no forces": (lambda a: changed(a, results={"forces": None}), r"frame 1 has no energy or no forces"),
    "no energy": (lambda a: changed(a, results={"energy": None}), r"frame 1 has no energy or no forces"),
    "no labels": (lambda a: a.copy(), r"frame 1 has no energy or no forces"),
    "NaN energy": (lambda a: changed(a, results={"energy": np.nan}), r"frame 1: NaN or infinite energy"),
    "NaN force": (
        lambda a: changed(a, results={"forces": np.full((5, 3), np.nan)}),
        r"frame 1: NaN or infinite forces",
    ),
    "atoms together": (with_two_atoms_at_one_place, r"frame 1: atoms 1 and 3 are 0\.0\d+ Angstrom apart"),
    "no atom": (lambda a: changed(a, numbers=[12, 12, 0, 8, 8]), r"frame 1: atom 2 has the atomic number 0"),
    "no cell": (lambda a: changed(a, cell=[4, 0, 12]), r"frame 1 is periodic along b, but has no such lattice vector"),
    "flat cell": (lambda a: changed(a, cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0.0]]), r"frame 1: the cell .* is flat"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_bad_frames_are_named_and_nothing_is_left(frames, tmp_path, case):
    spoil, message = BAD_FRAMES[case]
    source = write_frames(tmp_path / "slabs.traj", [frames[0], spoil(frames[4])])
    with pytest.raises(InputError, match=rf"slabs\.traj: {message}"):
        convert_structures([source], tmp_path / "out", sizes={"train": 2})
    assert [entry.name for entry in tmp_path.iterdir()] == ["slabs.traj"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.traj", b"not one", "a.traj cannot be read"),
        ("a.db", b"not one, and long enough to be told apart", "a.db cannot be read"),
        ("a.xyz", b"two\n\n", "frame 0 starts with 'two'"),
        ("a.xyz", b"1\n\nC 0 0 0\n2\n\nC 0 0 0\n", "frame 1 is cut short"),
        ("a.xyz", b"1\nProperties=species:S:1:pos:R:3\nC zero 0 0\n", "frame 0 cannot be read"),
        ("a.xyz", b"", "a.xyz is empty"),
        ("a.cif", b"", "only .traj, .xyz, .extxyz, .db files"),
        ("a.xyz", None, "there is no such file"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        convert_structures([tmp_path / name], tmp_path / "out", sizes={"train": 1})


def test_other_constraints_are_said_not_to_be_kept(frames, tmp_path, caplog):
    for atoms in frames[:3]:
        atoms.set_constraint([*atoms.constraints, FixCartesian([2], [True, True, False])])
    source = write_frames(tmp_path / "slabs.traj", frames)
    convert_structures([source], tmp_path / "out", sizes={"train": 24})
    assert [record.message.partition(";")[0] for record in caplog.records if "constraint" in record.message] == [
        f"{source}: frame 0 has a constraint FixCartesian"
    ]
    assert fairchem_dataset(tmp_path / "out" / "train")[0].fixed.tolist() == [1, 1, 0, 0, 0]


def test_settings_out_of_range(trajectory, tmp_path):
    for settings, message in (
        ({"sizes": {"train": 25}}, "there are 24"),
        ({"sizes": {"train": 3}, "cutoff": -1.0}, "--cutoff -1.0"),
        ({"sizes": {"train": 3}, "cutoff": 5.0, "max_neighbors": 0}, "--max-neighbors 0"),
        ({"sizes": {"train": 3}, "shard_size": 0}, "--shard-size 0"),
        ({}, "no conformations asked for"),
    ):
        with pytest.raises(InputError, match=message):
            convert_structures([trajectory], tmp_path / "out", **settings)
    with pytest.raises(InputError, match="given twice"):
        convert_structures([trajectory, tmp_path / "." / "slabs.traj"], tmp_path / "out", sizes={"train": 3})
    assert not (tmp_path / "out").exists()


# commands


def test_convert_and_inspect(run_oc22, frames, trajectory, tmp_path, capsys):
    out = tmp_path / "out"
    sizes = ["--train", 14, "--val", 4, "--test", 6]
    assert run_oc22("convert", trajectory, out, *sizes, "--cutoff", 5, "--shard-size", 5) == 0
    converted = capsys.readouterr().out
    assert f"written: {out / 'train'}, {out / 'val'}, {out / 'test'}" in converted
    assert run_oc22("inspect", out) == 0
    table = capsys.readouterr().out
    assert table.rstrip() in converted
    for words in ("14 of 24", "within 5 Ang, at most 50 to an atom", "C, O, Mg, Zn", "4 to 5", "C (Eq. 4)"):
        assert words in table

    energies = [atoms.get_potential_energy() for atoms in frames]
    assert run_oc22("inspect", trajectory) == 0
    assert f"{np.mean(energies):,.4f}" in capsys.readouterr().out
    for split in SIZES:
        (out / split / "manifest.json").unlink()
    assert run_oc22("inspect", out) == 0
    of_records = capsys.readouterr().out
    for label in ("energy mean", "elements", "fixed atoms", "periodic along", "shards", "max |force|"):
        lines = [line for text in (table, of_records) for line in text.splitlines() if line.startswith(label)]
        assert lines[0].split() == lines[1].split()


def write_frames_of_systems(path, frames):
    for number, atoms in enumerate(frames):
        atoms.info["system"] = f"slab {number % 5}"
    if path.suffix == ".db":
        with ase.db.connect(path) as database:
            for atoms in frames:
                database.write(atoms, system=atoms.info["system"])
        return path
    return write_frames(path, frames)


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "db"])
def test_splits_by_a_key_of_the_frames(run_oc22, frames, tmp_path, capsys, suffix):
    source = write_frames_of_systems(tmp_path / f"slabs.{suffix}", frames)
    sizes = ["--train", 11, "--val", 4, "--test", 3]
    assert run_oc22("convert", source, tmp_path / "out", *sizes, "--split-by", "system") == 0
    assert "random, seed 0, no system in two splits" in capsys.readouterr().out
    systems = {
        name: {frames[graph.fid].info["system"] for graph in fairchem_dataset(tmp_path / "out" / name)}
        for name in SIZES
    }
    assert len(systems["train"]) == 3
    assert sum(map(len, systems.values())) == len(set.union(*systems.values())) == 5
    assert read_manifest(tmp_path / "out" / "val").split_by == "system"

    with pytest.raises(InputError, match=rf"slabs.{suffix}: frame 0 has no 'sistem'; it has .*system"):
        run_oc22("convert", source, tmp_path / "out2", *sizes, "--split-by", "sistem")
    with pytest.raises(InputError, match=r"only [45] conformations are left"):
        run_oc22("convert", source, tmp_path / "out2", "--train", 6, "--val", 10, "--test", 6, "--split-by", "system")
    with pytest.raises(InputError, match="leave out --split-by"):
        run_oc22("convert", source, tmp_path / "out2", "--split-dir", tmp_path, "--split-by", "system")
    assert not (tmp_path / "out2").exists()


def test_splits_by_file(frames, tmp_path):
    files = [write_frames(tmp_path / f"{name}.traj", frames[number::4]) for number, name in enumerate("abcd")]
    convert_structures(files, tmp_path / "out", sizes={"train": 9, "val": 6, "test": 2}, split_by="file")
    names = {split: {graph.sid for graph in fairchem_dataset(tmp_path / "out" / split)} for split in SIZES}
    assert [len(names[split]) for split in SIZES] == [2, 1, 1]
    assert set.union(*names.values()) == set("abcd")


def test_given_splits_and_overwrite(run_oc22, trajectory, tmp_path):
    for name, rows in {"train": [20, 1], "valid": [2], "test": [3]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    assert run_oc22("convert", trajectory, tmp_path / "out", "--split-dir", tmp_path) == 0
    assert [graph.fid for graph in fairchem_dataset(tmp_path / "out" / "train")] == [1, 20]
    with pytest.raises(InputError, match="exists"):
        run_oc22("convert", trajectory, tmp_path / "out", "--train", 3)
    assert run_oc22("convert", trajectory, tmp_path / "out", "--train", 3, "--overwrite") == 0
    assert read_manifest(tmp_path / "out" / "train").count == 3
    with pytest.raises(InputError, match="leave out --train, --val, --test and --seed"):
        run_oc22("convert", trajectory, tmp_path / "out2", "--split-dir", tmp_path, "--seed", 3)
    with pytest.raises(InputError, match="give --cutoff too"):
        run_oc22("convert", trajectory, tmp_path / "out2", "--train", 3, "--max-neighbors", 3)
