"""Structures of all kinds of files, as ASE's atoms in eV and eV/Å."""

from __future__ import annotations

import json
import logging
import pickle

import ase.db
import ase.io
import lmdb
import numpy as np
import pytest
import torch
from ase.constraints import FixAtoms
from torch_geometric.data import Data

from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.structure_conversion import convert_structures
from ocp_dc.datasets.structure_files import read_structures
from ocp_dc.errors import InputError
from ocp_dc.units import ENERGY_UNITS_IN_EV

KCAL = ENERGY_UNITS_IN_EV["kcal/mol"]


def assert_same(atoms, expected, decimals=12):
    assert np.array_equal(atoms.numbers, expected.numbers)
    assert np.array_equal(atoms.pbc, expected.pbc)
    assert np.array_equal(atoms.get_tags(), expected.get_tags())
    np.testing.assert_allclose(atoms.positions, expected.positions, atol=10.0**-decimals)
    np.testing.assert_allclose(atoms.cell.array, expected.cell.array, atol=10.0**-decimals)
    assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), rel=1e-14)
    own, theirs = (each.get_forces(apply_constraint=False) for each in (atoms, expected))
    np.testing.assert_allclose(own, theirs, atol=10.0**-decimals)
    (constraint,) = atoms.constraints
    assert isinstance(constraint, FixAtoms)
    assert constraint.get_indices().tolist() == expected.constraints[0].get_indices().tolist()


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "db", "json"])
def test_frames_of_files_that_ase_reads(frames, tmp_path, suffix):
    path = tmp_path / f"slabs.{suffix}"
    if suffix in ("db", "json"):
        with ase.db.connect(path) as database:
            for atoms in frames:
                database.write(atoms)
    else:
        ase.io.write(path, frames)
    structures = read_structures(path)
    assert len(structures) == len(frames)
    for atoms, expected in zip(structures, frames, strict=True):
        # what extended XYZ rounds
        assert_same(atoms, expected, decimals=7 if suffix == "extxyz" else 12)
    assert len(structures[2:5]) == 3
    assert_same(structures[-1], frames[-1], decimals=7)
    with pytest.raises(IndexError):
        structures[len(frames)]


@pytest.mark.parametrize("unit", ["kcal/mol", "Hartree"])
def test_labels_are_converted_from_a_given_unit(frames, tmp_path, unit):
    ase.io.write(tmp_path / "slabs.traj", frames[:2])
    for atoms, expected in zip(read_structures(tmp_path / "slabs.traj", unit), frames, strict=False):
        factor = ENERGY_UNITS_IN_EV[unit]
        assert atoms.get_potential_energy() == pytest.approx(factor * expected.get_potential_energy(), rel=1e-14)
        own, theirs = (each.get_forces(apply_constraint=False) for each in (atoms, expected))
        np.testing.assert_allclose(own, factor * theirs, rtol=1e-14)


def test_a_file_without_labels(tmp_path):
    (tmp_path / "water.xyz").write_text("3\nwater\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    (atoms,) = read_structures(tmp_path / "water.xyz")
    assert atoms.calc is None
    assert not atoms.pbc.any()
    ase.io.write(tmp_path / "water.cif", atoms, format="cif")
    assert len(read_structures(tmp_path / "water.cif")) == 1


@pytest.mark.parametrize(
    ("stated", "given", "unit"), [("eV", None, "eV"), (None, None, "kcal/mol"), (None, "eV", "eV")]
)
def test_npz_files(write_npz, arrays, stated, given, unit):
    path = write_npz(arrays, e_unit=stated and np.array(stated))
    structures = read_structures(path, given)
    assert structures.energy_unit == unit
    factor = ENERGY_UNITS_IN_EV[unit]
    for row in (0, 39):
        atoms = structures[row]
        assert np.array_equal(atoms.positions, arrays["R"][row])
        assert not atoms.pbc.any()
        assert not atoms.cell.any()
        assert atoms.get_potential_energy() == pytest.approx(factor * arrays["E"][row, 0], rel=1e-14)
        np.testing.assert_allclose(atoms.get_forces(), factor * arrays["F"][row], rtol=1e-14)


def test_lmdbs_of_a_molecule(write_npz, arrays, tmp_path):
    convert(write_npz(arrays), tmp_path / "out", sizes={"train": 30, "val": 5, "test": 5})
    for path in (tmp_path / "out/test", tmp_path / "out/test/data.lmdb"):
        structures = read_structures(path)
        assert len(structures) == 5
        for atoms in structures:
            row = atoms.info["fid"]
            np.testing.assert_allclose(atoms.positions, arrays["R"][row], atol=1e-5)
            assert atoms.get_potential_energy() == pytest.approx(KCAL * arrays["E"][row, 0], rel=1e-14)
            np.testing.assert_allclose(atoms.get_forces(), KCAL * arrays["F"][row], atol=1e-5)
            assert not atoms.pbc.any()
            assert not atoms.cell.any()


def test_lmdbs_of_structures_in_shards(frames, tmp_path):
    ase.io.write(tmp_path / "slabs.traj", frames)
    convert_structures(
        [tmp_path / "slabs.traj"], tmp_path / "out", sizes={"train": 14, "val": 4, "test": 6}, shard_size=4
    )
    structures = read_structures(tmp_path / "out/train")
    assert len(structures) == 14
    # two structures' files are never open at once
    for atoms, _ in zip(structures, structures, strict=True):
        expected = frames[atoms.info["fid"]]
        # converted structures are float32, and wrapped into their cells
        apart = atoms.positions - expected.positions
        assert np.abs(apart - np.round(apart @ np.linalg.inv(expected.cell)) @ expected.cell).max() < 1e-5
        assert atoms.get_potential_energy() == expected.get_potential_energy()
        assert np.array_equal(atoms.get_tags(), expected.get_tags())
        assert atoms.constraints[0].get_indices().tolist() == [0, 1]
        assert np.array_equal(atoms.pbc, expected.pbc)


def write_lmdb(path, *records):
    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment, environment.begin(write=True) as writing:
        for index, record in enumerate(records):
            writing.put(str(index).encode(), pickle.dumps(record))
        writing.put(b"length", pickle.dumps(len(records)))


def test_fairchems_records_without_manifest_labels_or_periodicity(tmp_path, caplog):
    record = Data(
        pos=torch.tensor([[0.0, 0, 0], [1, 1, 1]]),
        cell=4 * torch.eye(3)[None],
        atomic_numbers=torch.tensor([12.0, 8.0]),
    )
    write_lmdb(tmp_path / "data.lmdb", record)
    with caplog.at_level(logging.WARNING):
        (atoms,) = read_structures(tmp_path)
    assert "has no manifest: energies taken to be in eV" in caplog.text
    assert atoms.pbc.all()
    assert atoms.calc is None
    assert atoms.numbers.tolist() == [12, 8]


def test_the_sample():
    structures = read_structures("sample")
    assert len(structures) == 1000
    assert structures[0].get_chemical_formula() == "C2H6O"
    assert structures[0].get_potential_energy() == pytest.approx(-97_073 * KCAL, rel=1e-3)


def refused(path, energy_unit=None):
    with pytest.raises(InputError) as raised:
        list(read_structures(path, energy_unit))
    return str(raised.value)


def test_what_cannot_be_read_is_refused(tmp_path, write_npz, frames):
    assert "no.traj: there is no such file or folder" in refused(tmp_path / "no.traj")
    assert "no.lmdb: there is no such file" in refused(tmp_path / "no.lmdb")
    assert "no LMDB there; give the folder of one split" in refused(tmp_path)
    for name in ("notes.txt", "damaged.traj", "damaged.xyz", "damaged.cif", "damaged.npz", "damaged.lmdb", "POSCAR"):
        (tmp_path / name).write_text("nothing of this kind\n")
        assert name in refused(tmp_path / name)
        (tmp_path / name).write_text("")
        assert name in refused(tmp_path / name)
    write_lmdb(tmp_path / "empty.lmdb")
    assert "empty.lmdb has no records" in refused(tmp_path / "empty.lmdb")
    ase.io.write(tmp_path / "slabs.traj", frames[:2])
    assert "energy unit 'furlong' is unknown" in refused(tmp_path / "slabs.traj", "furlong")
    assert "states its energies in eV, the given energy unit is kcal/mol" in refused(
        write_npz(e_unit=np.array("eV")), "kcal/mol"
    )


def test_structures_that_no_model_can_take_are_refused(tmp_path, frames):
    frames[1].positions[0, 0] = np.nan
    ase.io.write(tmp_path / "slabs.traj", frames[:2])
    assert "slabs.traj: structure 1: NaN or infinite positions" in refused(tmp_path / "slabs.traj")
    (tmp_path / "close.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.01\n")
    assert "structure 0: atoms 0 and 1 are 0.01 Angstrom apart" in refused(tmp_path / "close.xyz")


def test_data_in_other_lengths_are_refused(write_npz, tmp_path):
    convert(write_npz(), tmp_path / "out", sizes={"test": 5})
    manifest = tmp_path / "out/test/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "length_unit": "Bohr"}))
    assert "has lengths in Bohr" in refused(tmp_path / "out/test")
