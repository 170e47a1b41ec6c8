import hashlib
import json
import pickle
import tracemalloc

import ase
import ase.io
import lmdb
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from fairchem.core.common.utils import radius_graph_pbc
from fairchem.core.datasets.lmdb_dataset import LmdbDataset, data_list_collater

import ocp_dc
from ocp_dc.datasets import conformations
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.molecule_files import open_trajectory
from ocp_dc.datasets.samples import sample_path
from ocp_dc.errors import InputError

SIZES = {"train": 20, "val": 8, "test": 12}


def read_all(path, **options):
    blocks = list(open_trajectory(path, **options).blocks())
    return {
        "E": np.concatenate([block.energies for block in blocks]),
        "F": np.concatenate([block.forces for block in blocks]),
        "R": np.concatenate([block.positions for block in blocks]),
        "rows": np.concatenate([block.rows for block in blocks]),
    }


def assert_same(read, arrays):
    np.testing.assert_array_equal(read["E"], arrays["E"].reshape(-1))
    np.testing.assert_array_equal(read["F"], arrays["F"])
    np.testing.assert_array_equal(read["R"], arrays["R"])
    np.testing.assert_array_equal(read["rows"], np.arange(len(arrays["E"])))


def write_xyz(path, arrays):
    frames = []
    for energy, forces, positions in zip(arrays["E"], arrays["F"], arrays["R"], strict=True):
        atoms = ase.Atoms(arrays["z"], positions)
        atoms.calc = SinglePointCalculator(atoms, energy=energy.item(), forces=forces)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


def fairchem_dataset(folder):
    return LmdbDataset({"src": str(folder), "key_mapping": {"y": "energy", "force": "forces"}})


# readers


@pytest.mark.parametrize("text", [np.bytes_, np.str_])
def test_md17_layout(write_npz, arrays, monkeypatch, text):
    monkeypatch.setattr(conformations, "BLOCK_ROWS", 7)
    path = write_npz(arrays, name="a.npz", theory=text("PBE+vdW-TS"), e_unit=text("kcal/mol"), r_unit=text("Ang"))
    opened = open_trajectory(path)
    assert_same(read_all(path), arrays)
    assert (opened.layout, opened.count, opened.formula) == ("MD17", 40, "CH2O")
    assert (opened.theory, opened.energy_unit, opened.units_from) == ("PBE+vdW-TS", "kcal/mol", "file")


def test_molecule_name_is_the_files_own(tmp_path, arrays):
    np.savez(tmp_path / "file.npz", name=np.bytes_("formaldehyde"), **arrays)
    assert open_trajectory(tmp_path / "file.npz").molecule == "formaldehyde"


def test_rmd17_layout(write_npz, arrays):
    path = write_npz(
        {"nuclear_charges": arrays["z"], "coords": arrays["R"], "energies": arrays["E"][:, 0], "forces": arrays["F"]},
        name="rmd17_thing.npz",
        old_energies=np.zeros(40),
    )
    opened = open_trajectory(path)
    assert_same(read_all(path), arrays)
    assert (opened.layout, opened.molecule, opened.units_from) == ("rMD17", "rmd17_thing", "assumed")


def test_column_order_and_float32(write_npz, arrays, monkeypatch):
    monkeypatch.setattr(conformations, "BLOCK_ROWS", 7)
    arrays = {**arrays, "R": np.asfortranarray(arrays["R"]), "F": arrays["F"].astype(np.float32)}
    assert_same(read_all(write_npz(arrays)), arrays)


def test_extended_xyz_keeps_every_digit_ase_wrote(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(conformations, "BLOCK_ROWS", 7)
    path = write_xyz(tmp_path / "molecule.xyz", arrays)
    from_ase = ase.io.read(path, index=":", format="extxyz")
    expected = {
        "E": np.array([atoms.get_potential_energy() for atoms in from_ase]),
        "F": np.stack([atoms.get_forces() for atoms in from_ase]),
        "R": np.stack([atoms.get_positions() for atoms in from_ase]),
    }
    assert_same(read_all(path), expected)
    np.testing.assert_allclose(expected["E"], arrays["E"][:, 0], rtol=0, atol=1e-6)
    assert open_trajectory(path).atomic_numbers.tolist() == arrays["z"].tolist()


def test_units_are_the_files_or_given_or_assumed(tmp_path, write_npz, arrays):
    xyz = write_xyz(tmp_path / "molecule.xyz", arrays)
    assert open_trajectory(xyz).units_from == "assumed"
    assert open_trajectory(xyz, "eV").energy_unit == "eV"
    stated = write_npz(e_unit="eV")
    assert open_trajectory(stated).energy_unit == "eV"
    with pytest.raises(InputError, match="states its energies in eV, --units says kcal/mol"):
        open_trajectory(stated, "kcal/mol")
    with pytest.raises(InputError, match="--units 'furlong'"):
        open_trajectory(xyz, "furlong")
    with pytest.raises(InputError, match="r_unit is 'Bohr'"):
        open_trajectory(write_npz(r_unit="Bohr"))


# conversion


def test_records_equal_the_source_rows(write_npz, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(conformations, "BLOCK_ROWS", 7)
    convert(write_npz(arrays), tmp_path / "out", sizes=SIZES, seed=3)
    seen = []
    for name, size in SIZES.items():
        dataset = fairchem_dataset(tmp_path / "out" / name)
        assert len(dataset) == size
        rows = [graph.fid for graph in dataset]
        assert rows == sorted(rows)
        assert rows == np.load(tmp_path / "out" / name / "metadata.npz")["source_index"].tolist()
        seen += rows
        for graph, row in zip(dataset, rows, strict=True):
            assert graph.energy.dtype == torch.float64
            assert graph.energy.item() == arrays["E"][row, 0]
            np.testing.assert_array_equal(graph.forces, arrays["F"][row].astype(np.float32))
            np.testing.assert_array_equal(graph.pos, arrays["R"][row].astype(np.float32))
            assert graph.atomic_numbers.tolist() == arrays["z"].tolist()
    assert len(seen) == len(set(seen)) == 40


def test_a_file_as_fairchems_source_is_the_same_as_its_folder(write_npz, tmp_path):
    convert(write_npz(), tmp_path / "out", sizes=SIZES)
    of_file = fairchem_dataset(tmp_path / "out" / "val" / "data.lmdb")
    assert len(of_file) == 8
    assert of_file.get_metadata("natoms", [0, 7]) == [4, 4]
    positions = of_file[5].pos
    del of_file  # a process may open an LMDB once
    assert torch.equal(positions, fairchem_dataset(tmp_path / "out" / "val")[5].pos)


def test_records_are_plain_pickles_with_writable_tensors(write_npz, tmp_path):
    convert(write_npz(), tmp_path / "out", sizes={"train": 5})
    with lmdb.open(str(tmp_path / "out/train/data.lmdb"), subdir=False, lock=False) as env, env.begin() as transaction:
        raw = transaction.get(b"4")
        assert pickle.loads(transaction.get(b"length")) == 5
        assert transaction.stat()["entries"] == 6
    assert b"ocp_dc" not in raw
    graph = pickle.loads(raw)
    graph.pos += 1
    shapes = {
        key: (tuple(value.shape), value.dtype) for key, value in graph.to_dict().items() if torch.is_tensor(value)
    }
    assert shapes == {
        "pos": ((4, 3), torch.float32),
        "force": ((4, 3), torch.float32),
        "y": ((1,), torch.float64),
        "atomic_numbers": ((4,), torch.uint8),
        "cell": ((1, 3, 3), torch.float32),
        "pbc": ((1, 3), torch.bool),
        "tags": ((4,), torch.int32),
        "fixed": ((4,), torch.int32),
    }


def test_fairchem_batches_and_builds_the_edges_of_free_molecules(write_npz, arrays, tmp_path):
    convert(write_npz(arrays), tmp_path / "out", sizes={"train": 10})
    graphs = list(fairchem_dataset(tmp_path / "out" / "train"))
    batch = data_list_collater(graphs, otf_graph=True)
    assert batch.energy.shape == (10,)
    assert batch.energy.dtype == torch.float64
    edges, offsets, neighbors = radius_graph_pbc(batch, radius=7.0, max_num_neighbors_threshold=50)
    expected = []
    for graph in graphs:
        distances = torch.cdist(graph.pos, graph.pos)
        expected.append(int(((distances <= 7.0) & (distances > 0)).sum()))
    assert neighbors.tolist() == expected
    assert edges.shape[1] == sum(expected)
    assert not offsets.any()
    assert min(expected) < 12 or max(expected) < 12, "the cutoff must leave some pair out"


def test_cell_grows_with_the_molecule(write_npz, arrays, tmp_path):
    stretched = {**arrays, "R": arrays["R"] * 20}
    convert(write_npz(stretched), tmp_path / "out", sizes={"train": 3})
    graph = fairchem_dataset(tmp_path / "out" / "train")[0]
    extent = (graph.pos.max(0).values - graph.pos.min(0).values).max()
    assert graph.cell[0, 0, 0] == pytest.approx(float(extent) + 50)
    assert (graph.cell[0] > 0).sum() == 3


def test_manifest(write_npz, arrays, tmp_path):
    source = write_npz(arrays, theory=np.bytes_("PBE"))
    manifests = convert(source, tmp_path / "out", sizes=SIZES, seed=5)
    folder = tmp_path / "out" / "test"
    manifest = read_manifest(folder)
    assert manifest == manifests["test"] == read_manifest(folder / "data.lmdb")
    rows = np.load(folder / "metadata.npz")["source_index"]
    energies, forces = arrays["E"][rows], arrays["F"][rows]
    assert (manifest.split, manifest.count, manifest.source_count, manifest.seed) == ("test", 12, 40, 5)
    assert (manifest.theory, manifest.molecule, manifest.formula) == ("PBE", "molecule", "CH2O")
    assert manifest.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert manifest.ocp_dc_version == ocp_dc.__version__
    assert manifest.force_unit == "kcal/mol/Ang"
    assert manifest.labels.energy_mean == pytest.approx(energies.mean(), abs=1e-9)
    assert manifest.labels.energy_std == pytest.approx(energies.std(), rel=1e-9)
    assert manifest.labels.max_abs_force == np.abs(forces).max()
    assert manifest.labels.mean_abs_force == pytest.approx(np.abs(forces).mean())
    assert manifest.labels.max_abs_label == np.abs(energies).max()
    assert manifest.labels.rescaling_constant == 1e6


def test_manifest_missing_or_of_another_version(write_npz, tmp_path):
    convert(write_npz(), tmp_path / "out", sizes={"train": 5})
    file = tmp_path / "out" / "train" / "manifest.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "format_version": 99}))
    with pytest.raises(InputError, match="format_version 99"):
        read_manifest(file.parent)
    file.write_text(json.dumps({**fields, "labels": {}}))
    with pytest.raises(InputError, match="not a manifest"):
        read_manifest(file.parent)
    file.unlink()
    assert read_manifest(file.parent) is None


def test_given_splits(write_npz, arrays, tmp_path):
    given = {"train": [30, 2, 9], "valid": [0], "test": [39, 1]}
    for name, rows in given.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    manifests = convert(write_npz(arrays), tmp_path / "out", split_dir=tmp_path)
    assert {name: manifest.count for name, manifest in manifests.items()} == {"train": 3, "val": 1, "test": 2}
    assert [graph.fid for graph in fairchem_dataset(tmp_path / "out" / "train")] == [2, 9, 30]
    assert manifests["val"].split_method == "given"
    assert manifests["val"].split_files["valid.json"] == hashlib.sha256(b"[0]").hexdigest()


def test_sample(tmp_path):
    manifests = convert(sample_path(), tmp_path / "out", sizes={"train": 30, "test": 10})
    labels = manifests["train"].labels
    assert (manifests["train"].molecule, manifests["train"].formula) == ("ethanol", "C2H6O")
    assert manifests["train"].units_from == "file"
    assert labels.energy_mean == pytest.approx(-97_073.4, abs=5)
    assert labels.rescaling_constant == 1e5


def peak_of(function):
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def read_and_check(path):
    for block in open_trajectory(path).blocks():
        conformations.check_conformations(path, block)


def write_many(path, count, natoms):
    positions = np.random.default_rng(0).random(size=(count, natoms, 3)) + 3 * np.arange(natoms)[:, None]
    if path.suffix == ".npz":
        np.savez(path, E=np.ones(count), F=positions, R=positions, z=np.full(natoms, 6))
    else:
        atoms = "".join(f"C {x} 0 0 1 2 3\n" for x in range(natoms))
        path.write_text(f"{natoms}\nenergy=1 Properties=species:S:1:pos:R:3:forces:R:3\n{atoms}" * count)
    return path


@pytest.mark.parametrize("suffix", ["npz", "xyz"])
def test_memory_of_reading_does_not_grow_with_the_number_of_conformations(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(conformations, "BLOCK_ROWS", 16)
    natoms, counts = 30, (200, 500)
    paths = [write_many(tmp_path / f"{count}.{suffix}", count, natoms) for count in counts]
    few, many = (peak_of(lambda path=path: read_and_check(path)) for path in paths)
    labels_added = (counts[1] - counts[0]) * natoms * 2 * 3 * 8
    assert many - few < labels_added / 4


def test_memory_of_converting_does_not_grow_with_the_number_of_conformations(tmp_path, monkeypatch):
    monkeypatch.setattr(conformations, "BLOCK_ROWS", 32)
    natoms, counts = 30, (1200, 2400)
    paths = [write_many(tmp_path / f"{count}.npz", count, natoms) for count in counts]
    few, many = (peak_of(lambda path=path: convert(path, path.with_suffix(""), sizes={"train": 300})) for path in paths)
    labels_added = (counts[1] - counts[0]) * natoms * 2 * 3 * 8
    assert many - few < labels_added / 4


# bad input


def without_finite(arrays, key, row):
    changed = arrays[key].copy()
    changed[row].flat[0] = np.nan if key != "R" else np.inf
    return {key: changed}


def with_atoms_together(arrays):
    positions = arrays["R"].copy()
    positions[6, 2] = positions[6, 1] + 0.01
    return {"R": positions}


BAD_ARRAYS = {
    "no forces": (lambda a: {"F": None}, r"has no F; there is: E, R, z"),
    "no numbers or forces": (lambda a: {"F": None, "z": None}, r"has no F and no z"),
    "one energy less": (lambda a: {"E": a["E"][:-1]}, r"shapes disagree: E \(39, 1\)"),
    "one atom less": (lambda a: {"z": a["z"][:-1]}, r"shapes disagree.*z \(3,\)"),
    "one force less": (lambda a: {"F": a["F"][:, :-1]}, r"shapes disagree.*F \(40, 3, 3\)"),
    "no conformations": (lambda a: {key: a[key][:0] for key in "EFR"}, r"shapes disagree.*N > 0"),
    "NaN energy": (lambda a: without_finite(a, "E", 11), r"conformation 11 has NaN or infinite energies"),
    "NaN force": (lambda a: without_finite(a, "F", 39), r"conformation 39 has NaN or infinite forces"),
    "infinite position": (lambda a: without_finite(a, "R", 0), r"conformation 0 has NaN or infinite positions"),
    "atomic number 0": (lambda a: {"z": np.array([8, 1, 0, 6])}, r"atom 2 has the atomic number 0"),
    "atomic number 119": (lambda a: {"z": np.array([119, 1, 1, 6])}, r"atom 0 has the atomic number 119"),
    "numbers for each": (lambda a: {"z": np.tile(a["z"], (40, 1))}, r"atomic numbers are uint8 of shape \(40, 4\)"),
    "atoms together": (with_atoms_together, r"conformation 6, atoms 1 and 2 are 0\.017\d* Angstrom apart"),
    "objects": (lambda a: {"E": np.array([{}] * 40, dtype=object)}, r"E holds pickled objects"),
    "text": (lambda a: {"E": np.array(["low"] * 40)}, r"E holds <U3"),
    "unit": (lambda a: {"e_unit": "furlong"}, r"e_unit is 'furlong'"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_npz_is_refused_and_nothing_is_left(write_npz, arrays, tmp_path, case):
    change, message = BAD_ARRAYS[case]
    source = write_npz(arrays, **change(arrays))
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "made" / "out", sizes={"train": 40})
    assert list(tmp_path.iterdir()) == [source]


def test_only_chosen_conformations_need_to_be_sound(write_npz, arrays, tmp_path):
    for name, rows in {"train": [0, 2], "valid": [3], "test": [4]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    source = write_npz(arrays, **without_finite(arrays, "E", 1))
    assert convert(source, tmp_path / "out", split_dir=tmp_path)["train"].count == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "not an npz file"), (b"PK\x03\x04 and no more", "not an npz file")],
)
def test_missing_file_and_no_npz(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "a.npz", tmp_path / "out", sizes={"train": 1})
    assert not (tmp_path / "out").exists()


def test_files_of_other_endings_are_refused_with_the_known_ones(tmp_path):
    (tmp_path / "molecule.pdb").write_text("ATOM")
    with pytest.raises(InputError, match=r"molecule\.pdb: only \.npz, \.xyz, \.extxyz files of a molecule are read"):
        open_trajectory(tmp_path / "molecule.pdb")


def test_damaged_npz(write_npz, tmp_path):
    source = write_npz()
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 0xFF
    source.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        convert(source, tmp_path / "out", sizes=SIZES)
    assert list(tmp_path.iterdir()) == [source]


XYZ_FRAME = """2
Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 pbc="F F F"
H 0.0 0.0 0.0 0.1 0.2 0.3
O 0.0 0.0 1.0 0.1 0.2 0.3
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("two\n", "conformation 0 starts with 'two'"),
        (XYZ_FRAME + "2\nenergy=1\nH 0", "conformation 1 is cut short"),
        (XYZ_FRAME.replace("energy", "Energy"), "conformation 0 cannot be read: it needs energy"),
        (XYZ_FRAME.replace("forces", "gradient"), "it needs energy=... and the columns"),
        (XYZ_FRAME.replace("F F F", "T T T"), "it is periodic"),
        (XYZ_FRAME.replace("O 0.0", "Oq 0.0"), "there is no element 'Oq'"),
        (XYZ_FRAME.replace("O 0.0", "O a.0"), "could not convert string to float"),
        (XYZ_FRAME.replace("1.0 0.1 0.2 0.3", "1.0 0.1"), "conformation 0 cannot be read"),
        (XYZ_FRAME + XYZ_FRAME.replace("O ", "N "), "conformation 1 has other atoms than conformation 0"),
        (XYZ_FRAME.replace("H", "X"), "atomic number 0"),
    ],
)
def test_bad_xyz_is_refused_and_nothing_is_left(tmp_path, text, message):
    source = tmp_path / "molecule.xyz"
    source.write_text(text)
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "out", sizes={"train": 1})
    assert list(tmp_path.iterdir()) == [source]


def test_more_conformations_than_there_are(write_npz, tmp_path):
    with pytest.raises(InputError, match=r"30 train \+ 11 test = 41 conformations, but there are 40"):
        convert(write_npz(), tmp_path / "out", sizes={"train": 30, "test": 11})
    assert not (tmp_path / "out").exists()
    assert sample_path().is_file()
