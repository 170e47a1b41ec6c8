from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from ocp_dc.datasets.generation.molecules import check_electrons, molecule_from_smiles, read_molecule
from ocp_dc.errors import InputError


def test_a_name_of_ase():
    atoms = read_molecule("CH3CH2OH")
    assert atoms.get_chemical_formula() == "C2H6O"
    assert set(atoms.arrays) == {"numbers", "positions"}


@pytest.mark.parametrize("suffix", ["xyz", "extxyz", "traj", "cif"])
def test_any_file_that_ase_reads(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    water = molecule("H2O", cell=[30, 30, 30]) if suffix == "cif" else molecule("H2O")
    write(path, water)
    if suffix == "cif":
        with pytest.raises(InputError, match=r"mine\.cif is periodic; a molecule is needed"):
            read_molecule(str(path))
    else:
        np.testing.assert_allclose(read_molecule(str(path)).positions, water.positions, atol=1e-7)


def test_refuses_what_is_no_molecule(tmp_path):
    for name in ("no_such_molecule", "absent.xyz", "CCO"):
        with pytest.raises(InputError, match=f"{name}: neither a file nor a name .*--smiles"):
            read_molecule(name)
    damaged = tmp_path / "damaged.xyz"
    damaged.write_text("3\n\nO 0 0 0\n")
    with pytest.raises(InputError, match=r"damaged\.xyz: ASE cannot read it"):
        read_molecule(str(damaged))
    write(tmp_path / "crystal.traj", bulk("Cu"))
    with pytest.raises(InputError, match="periodic"):
        read_molecule(str(tmp_path / "crystal.traj"))
    write(tmp_path / "in_nm.xyz", Atoms("OHH", molecule("H2O").positions / 10))
    with pytest.raises(InputError, match=r"in_nm\.xyz: two atoms are 0\.10 Å apart; .*Angstrom"):
        read_molecule(str(tmp_path / "in_nm.xyz"))
    with pytest.raises(InputError, match="H is a single atom"):
        read_molecule("H")


@pytest.mark.parametrize(
    ("formula", "charge", "spin"), [("CH3", 0, 0), ("H2O", 1, 0), ("H2O", 0, 12), ("H2O", 0, -2), ("H2", 2, 0)]
)
def test_refuses_electrons_that_cannot_be(formula, charge, spin):
    with pytest.raises(InputError, match=f"{formula} .*--spin"):
        check_electrons(Atoms(formula), charge, spin)


def test_radicals_and_ions_pass_with_their_spin_and_charge():
    check_electrons(molecule("CH3"), charge=0, spin=1)
    check_electrons(molecule("CH3"), charge=1, spin=0)
    check_electrons(molecule("O2"), charge=0, spin=2)


def test_smiles_without_rdkit_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(InputError, match=r'--smiles needs RDKit .*pip install "ocp_dc\[sample\]"'):
        molecule_from_smiles("CCO", seed=0)


def test_smiles_with_rdkit():
    pytest.importorskip("rdkit", reason="RDKit is in the extra `sample`")
    ethanol = molecule_from_smiles("CCO", seed=0)
    assert ethanol.get_chemical_formula() == "C2H6O"
    distances = ethanol.get_all_distances()[np.triu_indices(9, 1)]
    assert 0.9 < distances.min() < 1.0  # O-H
    np.testing.assert_array_equal(ethanol.positions, molecule_from_smiles("CCO", seed=0).positions)
    for smiles, message in (("C1CC", "cannot read it"), ("C.C", "more than one molecule"), ("", "cannot read it")):
        with pytest.raises(InputError, match=message):
            molecule_from_smiles(smiles, seed=0)
