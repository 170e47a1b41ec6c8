"""The sample generator with stand-ins for GFN2-xTB (a spring network) and for PySCF."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.io import write

SCRIPTS = Path(__file__).parents[2] / "scripts"
HARTREE_IN_KCAL_MOL = 627.5094740631
BOHR_IN_ANGSTROM = 0.529177210903


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("generate_sample_md17")


@dataclass
class Springs:
    """E = stiffness / 2 Σ_{i<j} (|r_i - r_j| - d_ij)², d the distances in ASE's water."""

    stiffness: float = 500.0
    method: str = "springs"

    def __call__(self, numbers, positions):
        lengths = molecule("H2O").get_all_distances()
        vectors = positions[:, None] - positions[None]
        distances = np.linalg.norm(vectors, axis=-1)
        stretch = distances - lengths
        directions = vectors / np.where(distances == 0, 1, distances)[..., None]
        return self.stiffness / 4 * (stretch**2).sum(), -self.stiffness * (stretch[..., None] * directions).sum(1)


class SpringCalculator(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = Springs(stiffness=40.0)(atoms.numbers, atoms.positions)  # eV/Å²
        self.results = {"energy": energy, "forces": forces}


class InterruptedSprings(Springs):
    """Killed, as by Ctrl-C, once it has labelled the starting structure and two frames."""

    calls = 0

    def __call__(self, numbers, positions):
        self.calls += 1
        if self.calls > 3:
            raise KeyboardInterrupt
        return super().__call__(numbers, positions)


class CountingSprings(InterruptedSprings):
    def __call__(self, numbers, positions):
        self.calls += 1
        return Springs.__call__(self, numbers, positions)


def run(script, out, *arguments, source="H2O", label=None):
    options = script.parse_options([source, str(out), "--frames", "5", "--equilibrate", "20", *arguments])
    script.generate(options, lambda _: SpringCalculator(), lambda _: label or Springs())
    with np.load(out) as written:
        return dict(written)


def test_file_has_md17_keys_shapes_dtypes_and_units(script, tmp_path):
    data = run(script, tmp_path / "water.npz")
    assert {key: (value.dtype.str.lstrip("<|"), value.shape) for key, value in data.items() if key in "EFRz"} == {
        "E": ("f8", (5, 1)),
        "F": ("f4", (5, 3, 3)),
        "R": ("f8", (5, 3, 3)),
        "z": ("u1", (3,)),
    }
    assert {key: str(value) for key, value in data.items() if key not in "EFRz"} == {
        "name": "H2O",
        "theory": "springs; geometries: 500 K GFN2-xTB Langevin MD",
        "r_unit": "Ang",
        "e_unit": "kcal/mol",
        "type": "d",
    }
    np.testing.assert_array_equal(data["z"], [8, 1, 1])
    assert [path.name for path in tmp_path.iterdir()] == ["water.npz"]


def test_each_label_belongs_to_its_frame(script, tmp_path):
    data = run(script, tmp_path / "water.npz")
    for energy, forces, positions in zip(data["E"], data["F"], data["R"], strict=True):
        expected_energy, expected_forces = Springs()(data["z"], positions)
        assert energy[0] == expected_energy
        np.testing.assert_allclose(forces, expected_forces, rtol=1e-6, atol=1e-6)


def test_trajectory_moves_follows_the_seed_and_keeps_its_centre_of_mass(script, tmp_path):
    first = run(script, tmp_path / "first.npz", "--seed", "1")["R"]
    np.testing.assert_array_equal(first, run(script, tmp_path / "again.npz", "--seed", "1")["R"])
    assert np.abs(first - run(script, tmp_path / "other.npz", "--seed", "2")["R"]).max() > 1e-3
    assert np.abs(np.diff(first, axis=0)).max(axis=(1, 2)).min() > 1e-3
    water = molecule("H2O")
    centres = [Atoms(water.numbers, frame).get_center_of_mass() for frame in first]
    np.testing.assert_allclose(centres, np.tile(water.get_center_of_mass(), (5, 1)), atol=1e-8)


def test_interval_sets_the_steps_between_frames(script, tmp_path):
    wide = run(script, tmp_path / "wide.npz", "--frames", "2", "--interval", "20")["R"]
    dense = run(script, tmp_path / "dense.npz", "--frames", "4", "--interval", "10")["R"]
    np.testing.assert_allclose(wide, dense[1::2], atol=1e-12)


def test_temperature_of_the_dynamics(script):
    """Equipartition: the three vibrations of a spring network of three atoms store kT/2 each, on average."""
    options = script.parse_options(["H2O", "unused", "--frames", "150", "--friction", "0.1", "--equilibrate", "100"])
    trajectory = script.simulate(molecule("H2O"), SpringCalculator(), 6, options)
    stored = [Springs(stiffness=40.0)(molecule("H2O").numbers, frame)[0] for frame in trajectory]
    assert np.mean(stored) == pytest.approx(1.5 * 8.617333e-5 * 500, rel=0.3)


def test_resumes_after_an_interruption(script, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(script, tmp_path / "water.npz", label=InterruptedSprings())
    assert not (tmp_path / "water.npz").exists()
    assert (tmp_path / "water.npz.partial" / "frame_1.npz").exists()
    rest = CountingSprings()
    resumed = run(script, tmp_path / "water.npz", label=rest)
    assert rest.calls == 3
    whole = run(script, tmp_path / "whole.npz")
    for key in whole:
        np.testing.assert_array_equal(resumed[key], whole[key])


def test_refuses_to_continue_with_other_settings(script, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(script, tmp_path / "water.npz", label=InterruptedSprings())
    with pytest.raises(script.SampleError, match=r"water\.npz\.partial .*basis was def2-SVP, is def2-TZVP"):
        run(script, tmp_path / "water.npz", "--basis", "def2-TZVP")


def test_several_processes_give_the_same_file(script, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = run(script, tmp_path / "alone.npz")
    together = run(script, tmp_path / "together.npz", "--jobs", "2")
    for key in alone:
        np.testing.assert_array_equal(together[key], alone[key])


def test_overwrites_only_when_told(script, tmp_path):
    out = tmp_path / "water.npz"
    run(script, out, "--seed", "1")
    before = out.read_bytes()
    with pytest.raises(script.SampleError, match=r"water\.npz exists; --overwrite"):
        run(script, out, "--seed", "2")
    assert out.read_bytes() == before
    run(script, out, "--seed", "2", "--overwrite")
    assert out.read_bytes() != before


def test_reads_an_xyz_file(script, tmp_path):
    write(tmp_path / "mine.xyz", molecule("H2O"))
    data = run(script, tmp_path / "mine.npz", source=str(tmp_path / "mine.xyz"))
    assert str(data["name"]) == "mine"
    np.testing.assert_array_equal(data["z"], [8, 1, 1])


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("CH3", [], "CH3 with --charge 0 has 9 electrons, which cannot leave --spin 0 unpaired"),
        ("H2O", ["--charge", "1"], "9 electrons"),
        ("H2O", ["--spin", "12"], "--spin 12"),
        ("no_such_molecule", [], "no_such_molecule: neither"),
        ("absent.xyz", [], "absent.xyz: neither"),
        ("H2O", ["--interval", "1.2"], "--interval 1.2 is not a whole number"),
        ("H2O", ["--frames", "0"], "--frames 0 is not positive"),
    ],
)
def test_refuses_what_cannot_work(script, tmp_path, source, arguments, message):
    with pytest.raises(script.SampleError, match=message):
        run(script, tmp_path / "out.npz", *arguments, source=source)
    assert list(tmp_path.iterdir()) == []


def test_radicals_and_ions_pass_with_their_spin_and_charge(script):
    script.check_electrons(molecule("CH3"), charge=0, spin=1)
    script.check_electrons(molecule("CH3"), charge=1, spin=0)
    script.check_electrons(molecule("O2"), charge=0, spin=2)


def test_missing_packages_say_how_to_install_them(script, tmp_path, monkeypatch, capsys):
    arguments = ["generate_sample_md17.py", "H2O", str(tmp_path / "water.npz")]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(SystemExit, match=r'tblite.*pip install "ocp_dc\[sample\]"'):
        script.main()
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(script.SampleError, match=r'PySCF.*pip install "ocp_dc\[sample\]"'):
        script.generate(script.parse_options(arguments[1:]), lambda _: SpringCalculator())
    assert list(tmp_path.iterdir()) == []


class AtomicUnitsPyscf(ModuleType):
    """PySCF's calls as the labeller makes them; its energy is Springs with lengths in Bohr and energy in Hartree."""

    def __init__(self, converged):
        super().__init__("pyscf")
        self.__version__ = "0"
        self.converged = converged
        self.gto = SimpleNamespace(M=self.build)
        self.dft = SimpleNamespace(KS=self.kohn_sham)

    def build(self, atom, unit, **settings):
        assert unit == "Bohr"
        self.numbers, self.positions = [number for number, _ in atom], np.array([position for _, position in atom])
        return settings

    def kohn_sham(self, structure, xc):
        energy, forces = Springs()(self.numbers, self.positions)
        gradient = SimpleNamespace(kernel=lambda: -forces)
        scf = SimpleNamespace(grids=SimpleNamespace(), converged=self.converged, nuc_grad_method=lambda: gradient)
        scf.kernel, scf.density_fit = lambda: energy, lambda auxbasis: scf
        return scf


def test_labels_are_converted_from_atomic_units(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyscf", AtomicUnitsPyscf(converged=True))
    water = molecule("H2O")
    label = script.PyscfLabeller(script.parse_options(["H2O", "unused"]))
    energy, forces = label(water.numbers, water.positions)
    atomic_energy, _ = Springs()(water.numbers, water.positions / BOHR_IN_ANGSTROM)
    assert energy == pytest.approx(atomic_energy * HARTREE_IN_KCAL_MOL, rel=1e-12)
    step = 1e-5
    for atom, axis in np.ndindex(3, 3):
        shift = np.zeros((3, 3))
        shift[atom, axis] = step
        rise = label(water.numbers, water.positions + shift)[0] - label(water.numbers, water.positions - shift)[0]
        assert forces[atom, axis] == pytest.approx(-rise / (2 * step), rel=1e-6, abs=1e-3)


def test_an_unconverged_scf_stops_and_names_its_frame(script, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyscf", AtomicUnitsPyscf(converged=True))
    out = tmp_path / "water.npz"
    with pytest.raises(KeyboardInterrupt):
        run(script, out, label=InterruptedSprings())
    monkeypatch.setitem(sys.modules, "pyscf", AtomicUnitsPyscf(converged=False))
    label = script.PyscfLabeller(script.parse_options(["H2O", "unused"]))
    with pytest.raises(script.SampleError, match=r"frame_2: the SCF did not converge.*--seed"):
        run(script, out, label=label)
    assert not out.exists()
