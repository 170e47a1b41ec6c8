"""Labels in kcal/mol and Å; GFN2-xTB's by tblite itself, DFT's with a stand-in for PySCF."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from ase.build import molecule
from springs import spring_energy_and_forces

from ocp_dc.datasets.generation.all_electron import all_electron_shift, statistical_atom_energy
from ocp_dc.datasets.generation.labels import DftLabels, Gfn2Labels, gfn2_calculator
from ocp_dc.datasets.generation.processes import Workers
from ocp_dc.errors import InputError

HARTREE_IN_KCAL_MOL = 627.5094740631
BOHR_IN_ANGSTROM = 0.529177210903
WATER = molecule("H2O")


@pytest.fixture(scope="module")
def in_own_process():
    """Calls a function in a process without torch, after which tblite cannot be loaded."""
    if find_spec("tblite") is None:
        pytest.skip("tblite, of the extras `test` and `sample`, is not installed")
    with Workers(1) as workers:
        yield workers.call


class AtomicUnitsPyscf(ModuleType):
    """PySCF's calls as the labels make them; its energy is that of springs, lengths in Bohr and energy in Hartree."""

    def __init__(self, converged):
        super().__init__("pyscf")
        self.converged = converged
        self.gto = SimpleNamespace(M=self.build)
        self.dft = SimpleNamespace(KS=self.kohn_sham)

    def build(self, atom, unit, basis, **settings):
        assert unit == "Bohr"
        if basis == "no-such-basis":
            raise BasisNotFoundError("Unknown basis")
        self.numbers, self.positions = [number for number, _ in atom], np.array([position for _, position in atom])
        return settings

    def kohn_sham(self, structure, xc):
        energy, forces = spring_energy_and_forces(self.positions, 500.0)
        gradient = SimpleNamespace(kernel=lambda: -forces)
        scf = SimpleNamespace(grids=SimpleNamespace(), converged=self.converged, nuc_grad_method=lambda: gradient)
        scf.kernel, scf.density_fit = lambda: energy, lambda auxbasis: scf
        return scf


class BasisNotFoundError(RuntimeError):
    pass


@pytest.fixture
def pyscf(monkeypatch):
    def install(converged=True):
        monkeypatch.setitem(sys.modules, "pyscf", AtomicUnitsPyscf(converged))
        monkeypatch.setitem(sys.modules, "pyscf.lib", ModuleType("pyscf.lib"))
        exceptions = ModuleType("pyscf.lib.exceptions")
        exceptions.BasisNotFoundError = BasisNotFoundError
        monkeypatch.setitem(sys.modules, "pyscf.lib.exceptions", exceptions)

    return install


def check_forces_are_the_negative_gradient(labels, positions, tolerance):
    _, forces = labels(WATER.numbers, positions)
    step = 1e-4
    for atom, axis in np.ndindex(3, 3):
        shift = np.zeros((3, 3))
        shift[atom, axis] = step
        rise = labels(WATER.numbers, positions + shift)[0] - labels(WATER.numbers, positions - shift)[0]
        assert forces[atom, axis] == pytest.approx(-rise / (2 * step), abs=tolerance)


def test_dft_labels_are_converted_from_atomic_units(pyscf):
    pyscf()
    energy, _ = DftLabels()(WATER.numbers, WATER.positions)
    atomic_energy, _ = spring_energy_and_forces(WATER.positions / BOHR_IN_ANGSTROM, 500.0)
    assert energy == pytest.approx(atomic_energy * HARTREE_IN_KCAL_MOL, rel=1e-12)
    check_forces_are_the_negative_gradient(DftLabels(), WATER.positions, tolerance=0.5)


def test_dft_says_what_stands_in_its_way(pyscf, monkeypatch):
    pyscf(converged=False)
    with pytest.raises(InputError, match="the SCF did not converge to 1e-08 Hartree in 100 cycles"):
        DftLabels()(WATER.numbers, WATER.positions)
    with pytest.raises(InputError, match="--basis no-such-basis"):
        DftLabels(basis="no-such-basis")(WATER.numbers, WATER.positions)
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(InputError, match=r'PySCF.*pip install "ocp_dc\[sample\]"'):
        DftLabels()(WATER.numbers, WATER.positions)


def test_without_tblite_it_is_said_how_to_install_it(monkeypatch):
    for module in ("tblite", "tblite.ase", "tblite.interface", "tblite.exceptions"):
        monkeypatch.setitem(sys.modules, module, None)
    for use in (lambda: gfn2_calculator(0, 0), lambda: Gfn2Labels()(WATER.numbers, WATER.positions)):
        with pytest.raises(InputError, match=r'tblite.*pip install "ocp_dc\[sample\]"'):
            use()


def energy_and_forces_of_calculator(positions):
    """eV and eV/Å."""
    atoms = WATER.copy()
    atoms.positions = positions
    atoms.calc = gfn2_calculator(0, 0)
    return atoms.get_potential_energy(), atoms.get_forces()


def test_gfn2_labels_are_those_of_its_calculator_in_kcal_mol(in_own_process):
    positions = WATER.positions + 0.05 * np.random.default_rng(0).normal(size=(3, 3))
    energy, forces = in_own_process(Gfn2Labels(), WATER.numbers, positions)
    energy_ev, forces_ev = in_own_process(energy_and_forces_of_calculator, positions)
    kcal_mol = HARTREE_IN_KCAL_MOL / 27.211386246
    assert energy == pytest.approx(energy_ev * kcal_mol, rel=1e-7)
    np.testing.assert_allclose(forces, forces_ev * kcal_mol, atol=0.02)
    in_own_process(check_forces_are_the_negative_gradient, Gfn2Labels(), positions, 2e-3)


def test_gfn2_method_says_charge_and_spin(in_own_process):
    assert Gfn2Labels().method.startswith("GFN2-xTB, tblite ")
    assert "charge 1, 1 unpaired electrons" in Gfn2Labels(charge=1, spin=1).method


def shift_of_gfn2(numbers):
    return all_electron_shift(numbers, Gfn2Labels().atom_energy)


def test_shifted_gfn2_energies_have_the_magnitude_of_all_electron_ones(in_own_process):
    """PBE/def2-SVP has -97,073 kcal/mol on average for ethanol at 500 K (the embedded sample)."""
    ethanol = molecule("CH3CH2OH")
    energy, _ = in_own_process(Gfn2Labels(), ethanol.numbers, ethanol.positions)
    assert energy == pytest.approx(-7_150, abs=20)
    assert energy + in_own_process(shift_of_gfn2, ethanol.numbers) == pytest.approx(-97_073, rel=0.01)


def test_the_shift_knows_every_element_of_gfn2(in_own_process):
    assert np.isfinite(in_own_process(shift_of_gfn2, np.arange(1, 87)))
    with pytest.raises(InputError, match="GFN2-xTB fails"):
        in_own_process(Gfn2Labels().atom_energy, 87)


@pytest.mark.parametrize(
    ("number", "hartree_fock"), [(6, -37.692), (7, -54.403), (8, -74.816), (16, -397.502), (36, -2752.003)]
)
def test_statistical_atoms_beside_hartree_fock(number, hartree_fock):
    """Unrestricted Hartree-Fock in def2-TZVP, Hartree."""
    assert statistical_atom_energy(number) / HARTREE_IN_KCAL_MOL == pytest.approx(hartree_fock, rel=0.007)
