"""The generator of the oxide sample with springs in place of GFN1-xTB, and the file it made for the package."""

import importlib
import sys
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.constraints import FixAtoms
from ase.io.trajectory import TrajectoryReader
from ase.neighborlist import neighbor_list

from ocp_dc.errors import InputError

SCRIPTS = Path(__file__).parents[2] / "scripts"
SAMPLE = SCRIPTS.parent / "ocp_dc" / "datasets" / "sample" / "oxide_slabs_gfn1.traj"
SYSTEMS = [
    "MgO001_H2O",
    "MgO001_O",
    "ZnO1010_H2O",
    "ZnO1010_CO",
    "TiO2110_H2O",
    "TiO2110_CO",
    "MgZnO2001_H2O",
    "MgZnO2001_O",
]
FORMULAS = {"MgO001": "Mg6O6", "MgZnO2001": "Mg3O6Zn3", "ZnO1010": "O8Zn8", "TiO2110": "O8Ti4"}
OXYGEN_AROUND_SURFACE_METAL = {"MgO001": 5, "MgZnO2001": 5, "ZnO1010": 3, "TiO2110": 5}
LONGEST_BOND = {"MgO001": 2.2, "MgZnO2001": 2.2, "ZnO1010": 2.1, "TiO2110": 2.1}  # Å
STIFFNESS = 5.0  # eV/Å²
LIFT = np.array([0, 0, 0.01])  # Å


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("generate_sample_oxides")


class Tethers(Calculator):
    """Springs from every atom to a little above the place where it was first seen."""

    implemented_properties = ("energy", "forces")
    places = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.places is None:
            self.places = atoms.positions + LIFT
        stretch = atoms.positions - self.places
        self.results = {"energy": STIFFNESS / 2 * (stretch**2).sum(), "forces": -STIFFNESS * stretch}


class Interrupted(Tethers):
    """Ctrl-C at the first zinc."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if "Zn" in atoms.symbols:
            raise KeyboardInterrupt
        super().calculate(atoms, properties, system_changes)


class Pushed(Tethers):
    """Pushes the adsorbate along the surface normal, eV/Å."""

    push = 2.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = np.zeros((len(atoms), 3))
        self.results["forces"][atoms.get_tags() == 2, 2] = self.push


class Pressed(Pushed):
    push = -5.0


class Unconverged(Tethers):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        raise CalculationFailed("SCF not converged in 500 cycles")


def run(script, out, *arguments, systems=("MgO001_H2O", "ZnO1010_CO"), calculator=Tethers):
    small = ["--systems", *systems, "--frames-per-system", "4", "--steps", "3"]
    script.generate(script.parse_options([str(out), *small, *arguments]), calculator)
    return ase.io.read(out, ":")


def positions_of(frames):
    return np.concatenate([frame.positions for frame in frames])


@pytest.mark.parametrize("name", SYSTEMS)
def test_slabs_are_stoichiometric_and_periodic_with_fixed_bulk_and_vacuum(script, name):
    atoms = script.build_system(name)
    slab, adsorbate = name.split("_")
    tags, heights = atoms.get_tags(), atoms.positions[:, 2]
    assert atoms[tags < 2].get_chemical_formula() == FORMULAS[slab]
    assert sorted(atoms[tags == 2].symbols) == sorted({"H2O": "HHO", "CO": "CO", "O": "O"}[adsorbate])
    assert not atoms.get_initial_magnetic_moments().any()  # tblite counts unpaired electrons by them
    assert atoms.pbc.all()
    assert atoms.cell[2, 2] - np.ptp(heights) > 11
    assert heights[tags == 0].max() < heights[tags == 1].min() < heights[tags == 1].max() < heights[tags == 2].min()
    assert sorted(atoms.constraints[0].index) == sorted(np.flatnonzero(tags == 0))


@pytest.mark.parametrize("name", SYSTEMS)
def test_adsorbates_stand_over_the_metal_atom_that_the_cut_leaves_open(script, name):
    atoms = script.build_system(name)
    slab = name.split("_")[0]
    distances = atoms.get_all_distances(mic=True)
    adsorbate = np.flatnonzero(atoms.get_tags() == 2)
    metals = np.flatnonzero(~np.isin(atoms.symbols, ["O", "C", "H"]))
    binding, metal = np.unravel_index(distances[np.ix_(adsorbate, metals)].argmin(), (len(adsorbate), len(metals)))
    assert distances[adsorbate[binding], metals[metal]] == pytest.approx(2.1, abs=0.21)
    neighbours = neighbor_list("i", atoms[atoms.get_tags() < 2], LONGEST_BOND[slab])
    assert np.count_nonzero(neighbours == metals[metal]) == OXYGEN_AROUND_SURFACE_METAL[slab]


def test_default_systems_are_those_of_the_package(script):
    assert script.SYSTEMS == SYSTEMS


def test_frames_have_info_tags_constraints_and_nothing_of_the_dynamics(script, tmp_path):
    frames = run(script, tmp_path / "slabs.traj")
    assert [frame.info for frame in frames] == [
        {"system": system, "temperature": temperature}
        for system in ("MgO001_H2O", "ZnO1010_CO")
        for temperature in (300.0, 466.7, 633.3, 800.0)
    ]
    for frame in frames:
        built = script.build_system(frame.info["system"])
        np.testing.assert_array_equal(frame.numbers, built.numbers)
        np.testing.assert_array_equal(frame.get_tags(), built.get_tags())
        np.testing.assert_array_equal(frame.constraints[0].index, built.constraints[0].index)
        np.testing.assert_array_equal(frame.cell, built.cell)
        assert set(frame.arrays) == {"numbers", "positions", "tags"}
    description = TrajectoryReader(tmp_path / "slabs.traj").description
    assert description["method"].startswith("GFN1-xTB at the Γ point")
    assert description["seed"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["slabs.traj"]


def test_labels_belong_to_their_frame_and_forces_on_fixed_atoms_are_kept(script, tmp_path):
    for frame in run(script, tmp_path / "slabs.traj"):
        built = script.build_system(frame.info["system"])
        stretch = frame.positions - built.positions - LIFT
        forces = frame.get_forces(apply_constraint=False)
        np.testing.assert_allclose(forces, -STIFFNESS * stretch, atol=1e-12)
        assert frame.get_potential_energy() == pytest.approx(STIFFNESS / 2 * (stretch**2).sum())
        fixed = frame.constraints[0].index
        np.testing.assert_array_equal(frame.positions[fixed], built.positions[fixed])
        assert np.abs(forces[fixed, 2] - STIFFNESS * LIFT[2]).max() < 1e-12
        free = np.setdiff1d(np.arange(len(frame)), fixed)
        assert np.linalg.norm(frame.positions - built.positions, axis=1)[free].min() > 1e-4


def test_frames_follow_the_seed_and_do_not_depend_on_the_other_systems(script, tmp_path):
    first = run(script, tmp_path / "first.traj", "--seed", "1")
    alone = run(script, tmp_path / "alone.traj", "--seed", "1", systems=["ZnO1010_CO"])
    np.testing.assert_array_equal(positions_of(first[4:]), positions_of(alone))
    other = run(script, tmp_path / "other.traj", "--seed", "2", systems=["ZnO1010_CO"])
    assert np.abs(positions_of(alone) - positions_of(other)).max() > 1e-3


def test_steps_between_frames(script, tmp_path):
    bath = ["--temperature", "300", "300"]
    wide = run(script, tmp_path / "wide.traj", *bath, "--steps", "6", "--frames-per-system", "2")
    dense = run(script, tmp_path / "dense.traj", *bath)
    np.testing.assert_allclose(positions_of(wide), positions_of(dense[1::2]), atol=1e-12)


def test_temperature_of_the_dynamics(script, tmp_path):
    """Equipartition: a free atom on its spring stores 3kT/2 on average."""
    arguments = ["--temperature", "400", "400", "--friction", "0.1", "--frames-per-system", "150", "--steps", "6"]
    frames = run(script, tmp_path / "slabs.traj", *arguments, systems=["MgO001_O"])[20:]
    free = np.setdiff1d(np.arange(len(frames[0])), frames[0].constraints[0].index)
    places = script.build_system("MgO001_O").positions + LIFT
    stored = [STIFFNESS / 2 * ((frame.positions - places)[free] ** 2).sum() for frame in frames]
    assert np.mean(stored) == pytest.approx(1.5 * units.kB * 400 * len(free), rel=0.2)


def test_resumes_after_an_interruption(script, tmp_path):
    out = tmp_path / "slabs.traj"
    with pytest.raises(KeyboardInterrupt):
        run(script, out, calculator=Interrupted)
    assert not out.exists()
    kept = tmp_path / "slabs.traj.partial" / "MgO001_H2O.traj"
    marked = kept.stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        run(script, out, calculator=Interrupted)
    assert kept.stat().st_mtime_ns == marked
    resumed = run(script, out)
    assert not kept.exists()
    np.testing.assert_array_equal(positions_of(resumed), positions_of(run(script, tmp_path / "whole.traj")))


def test_refuses_to_continue_with_other_settings(script, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(script, tmp_path / "slabs.traj", calculator=Interrupted)
    with pytest.raises(InputError, match=r"slabs\.traj\.partial .*\(timestep was 2\.5, is 1\.0\)"):
        run(script, tmp_path / "slabs.traj", "--timestep", "1")


def test_several_processes_give_the_same_file(script, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(script, tmp_path / "alone.traj")
    run(script, tmp_path / "together.traj", "--jobs", "2")
    assert (tmp_path / "together.traj").read_bytes() == (tmp_path / "alone.traj").read_bytes()


def test_overwrites_only_when_told(script, tmp_path):
    out = tmp_path / "slabs.traj"
    run(script, out, "--seed", "1")
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"slabs\.traj exists; --overwrite"):
        run(script, out, "--seed", "2")
    assert out.read_bytes() == before
    run(script, out, "--seed", "2", "--overwrite")
    assert out.read_bytes() != before


@pytest.mark.parametrize(
    ("calculator", "message"),
    [
        (Pushed, r"MgO001_O, frame \d+: the adsorbate left the slab: \d\.\d\d Å.*lower --temperature"),
        (Pressed, r"MgO001_O, frame \d+: two atoms came within 0\.\d\d Å"),
        (Unconverged, r"MgO001_O, frame 0: SCF not converged in 500 cycles"),
    ],
)
def test_bad_geometries_and_scfs_stop_and_name_their_frame(script, tmp_path, calculator, message):
    with pytest.raises(InputError, match=message):
        run(script, tmp_path / "slabs.traj", "--frames-per-system", "99", systems=["MgO001_O"], calculator=calculator)
    assert {path.name for path in (tmp_path / "slabs.traj.partial").iterdir()} == {"lock", "settings.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "MgO001_N2"], r"--systems MgO001_N2: not one of \{MgO001,.*\}_\{H2O,"),
        (["--systems", "MgO001_O", "MgO001_O"], "twice"),
        (["--frames-per-system", "0"], "--frames-per-system 0 is not positive"),
        (["--temperature", "300", "-1"], "--temperature 300 -1 is not positive"),
    ],
)
def test_refuses_what_cannot_work(script, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        run(script, tmp_path / "slabs.traj", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_missing_tblite_says_how_to_install_it(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["generate_sample_oxides.py", str(tmp_path / "slabs.traj")])
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(SystemExit, match=r'tblite.*pip install "ocp_dc\[sample\]"'):
        script.main()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def shipped():
    return ase.io.read(SAMPLE, ":")


def test_shipped_file_is_small_and_has_fifty_frames_of_each_system(shipped):
    assert SAMPLE.stat().st_size < 2e6
    assert Counter(frame.info["system"] for frame in shipped) == dict.fromkeys(SYSTEMS, 50)
    assert TrajectoryReader(SAMPLE).description["method"].startswith("GFN1-xTB at the Γ point (tblite)")


def test_shipped_frames_are_the_scripts_systems(script, shipped):
    built = {name: script.build_system(name) for name in SYSTEMS}
    for frame in shipped:
        start = built[frame.info["system"]]
        assert frame.pbc.all()
        assert str(frame.symbols) == str(start.symbols)
        np.testing.assert_array_equal(frame.get_tags(), start.get_tags())
        np.testing.assert_allclose(frame.cell, start.cell, atol=1e-9)
        assert isinstance(frame.constraints[0], FixAtoms)
        fixed = frame.get_tags() == 0
        np.testing.assert_array_equal(np.sort(frame.constraints[0].index), np.flatnonzero(fixed))
        np.testing.assert_allclose(frame.positions[fixed], start.positions[fixed], atol=1e-9)


def test_shipped_labels_are_whole_and_without_outliers(shipped):
    for name in SYSTEMS:
        frames = [frame for frame in shipped if frame.info["system"] == name]
        energies = np.array([frame.get_potential_energy() for frame in frames])
        forces = np.array([frame.get_forces(apply_constraint=False) for frame in frames])
        assert np.isfinite(forces).all()
        assert np.abs(energies - np.median(energies)).max() < 6
        assert 0.1 < energies.std() < 2.5
        assert 2 < np.abs(forces).max() < 20
        assert np.abs(forces.sum(1)).max() < 1e-8
        assert np.abs(forces[:, frames[0].get_tags() == 0]).max() > 0.1


def test_shipped_geometries_are_bound_apart_and_under_vacuum(shipped):
    for frame in shipped:
        distances, adsorbate = frame.get_all_distances(mic=True), frame.get_tags() == 2
        assert distances[np.triu_indices(len(frame), 1)].min() > 0.8
        assert distances[adsorbate][:, ~adsorbate].min() < 4
        assert frame.cell[2, 2] - np.ptp(frame.positions[:, 2]) > 10
