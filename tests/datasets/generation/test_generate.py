"""The generator with stand-ins for GFN2-xTB and DFT (a spring network)."""

from __future__ import annotations

import re
from importlib.util import find_spec

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from springs import CountedLabels, SpringCalculator, SpringLabels, UnconvergedLabels, spring_energy_and_forces

from ocp_dc.datasets import open_trajectory
from ocp_dc.datasets.generation.all_electron import statistical_atom_energy
from ocp_dc.datasets.generation.generate import generate
from ocp_dc.datasets.generation.labels import DftLabels
from ocp_dc.datasets.generation.trajectories import Sampling
from ocp_dc.errors import InputError
from ocp_dc.locks import file_lock

WATER = molecule("H2O")


def run(out, labels=None, jobs=0, overwrite=False, shift_energies=False, atoms=WATER, **sampling):
    settings = {"frames": 10, "trajectories": 2, "equilibrate": 10.0, **sampling}
    labels = labels or SpringLabels()
    generated = generate(
        atoms,
        "water",
        out,
        Sampling(**settings),
        labels,
        shift_energies,
        jobs=jobs,
        overwrite=overwrite,
        make_calculator=SpringCalculator,
    )
    with np.load(out) as written:
        return generated, dict(written)


def test_file_has_md17_keys_shapes_dtypes_and_units(tmp_path):
    generated, data = run(tmp_path / "water.npz")
    shapes = {key: (value.dtype.str.lstrip("<|"), value.shape) for key, value in data.items() if value.ndim}
    assert shapes == {
        "E": ("f8", (10, 1)),
        "F": ("f4", (10, 3, 3)),
        "R": ("f8", (10, 3, 3)),
        "z": ("u1", (3,)),
        "trajectory": ("i4", (10,)),
    }
    words = {key: str(value) for key, value in data.items() if value.dtype.kind == "U"}
    assert words == {
        "name": "water",
        "theory": "springs; geometries: 500 K GFN2-xTB Langevin MD",
        "r_unit": "Ang",
        "e_unit": "kcal/mol",
        "type": "d",
        "energy_shift_source": "none",
    }
    assert data["interval_fs"] == 25.0
    assert data["energy_autocorrelation_fs"] == generated.autocorrelation_fs >= 25.0
    assert data["energy_shift"] == generated.energy_shift == 0.0
    np.testing.assert_array_equal(data["z"], [8, 1, 1])
    np.testing.assert_array_equal(data["trajectory"], [0] * 5 + [1] * 5)
    assert [path.name for path in tmp_path.iterdir()] == ["water.npz"]


def test_converter_reads_it(tmp_path):
    _, data = run(tmp_path / "water.npz", shift_energies=True)
    trajectory = open_trajectory(tmp_path / "water.npz", None)
    assert (trajectory.layout, trajectory.count, trajectory.units_from) == ("MD17", 10, "file")
    assert "energies shifted by" in trajectory.theory
    block = next(iter(trajectory.blocks()))
    np.testing.assert_array_equal(block.energies, data["E"][:, 0])


def test_each_label_belongs_to_its_frame(tmp_path):
    _, data = run(tmp_path / "water.npz")
    for energy, forces, positions in zip(data["E"], data["F"], data["R"], strict=True):
        expected_energy, expected_forces = spring_energy_and_forces(positions, 500.0)
        assert energy[0] == expected_energy
        np.testing.assert_allclose(forces, expected_forces, rtol=1e-6, atol=1e-6)


def test_shift_is_one_constant_that_the_file_states(tmp_path):
    generated, shifted = run(tmp_path / "shifted.npz", shift_energies=True)
    _, plain = run(tmp_path / "plain.npz")
    expected = statistical_atom_energy(8) + 2 * statistical_atom_energy(1) + 100 * (8 + 1 + 1)
    assert generated.energy_shift == shifted["energy_shift"] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(shifted["E"] - shifted["energy_shift"], plain["E"], atol=1e-9)
    np.testing.assert_array_equal(shifted["F"], plain["F"])
    assert "statistical atom" in str(shifted["energy_shift_source"])
    assert f"energies shifted by {expected:.6f} kcal/mol" in str(shifted["theory"])


def test_trajectories_differ_move_follow_the_seed_and_keep_their_centre_of_mass(tmp_path):
    first = run(tmp_path / "first.npz", seed=1)[1]["R"]
    np.testing.assert_array_equal(first, run(tmp_path / "again.npz", seed=1)[1]["R"])
    assert np.abs(first - run(tmp_path / "other.npz", seed=2)[1]["R"]).max() > 1e-3
    assert np.abs(first[:5] - first[5:]).max(axis=(1, 2)).min() > 1e-3
    assert np.abs(np.diff(first, axis=0)).max(axis=(1, 2)).min() > 1e-3
    centres = [Atoms(WATER.numbers, frame).get_center_of_mass() for frame in first]
    np.testing.assert_allclose(centres, np.tile(WATER.get_center_of_mass(), (10, 1)), atol=1e-8)


def test_frames_that_do_not_come_out_even_and_more_trajectories_than_frames(tmp_path):
    _, data = run(tmp_path / "uneven.npz", frames=5, trajectories=3)
    np.testing.assert_array_equal(data["trajectory"], [0, 0, 1, 1, 2])
    _, data = run(tmp_path / "few.npz", frames=2, trajectories=8)
    np.testing.assert_array_equal(data["trajectory"], [0, 1])


def test_interval_sets_the_steps_between_frames(tmp_path):
    """Blocks, of two frames, start at other steps: they change nothing."""
    wide = run(tmp_path / "wide.npz", frames=4, trajectories=1, interval=20.0)[1]["R"]
    dense = run(tmp_path / "dense.npz", frames=8, trajectories=1, interval=10.0)[1]["R"]
    np.testing.assert_allclose(wide, dense[1::2], atol=1e-9)


def test_temperature_of_the_dynamics(tmp_path):
    """Equipartition: the three vibrations of a spring network of three atoms store kT/2 each, on average."""
    _, data = run(tmp_path / "water.npz", frames=200, friction=0.1, interval=3.0, equilibrate=50.0)
    stored = [spring_energy_and_forces(frame, SpringCalculator.stiffness)[0] for frame in data["R"]]
    assert np.mean(stored) == pytest.approx(1.5 * 8.617333e-5 * 500, rel=0.3)


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A run that ended after the starting structure and four of its ten frames."""
    monkeypatch.setattr(CountedLabels, "last", 5)
    monkeypatch.setattr(CountedLabels, "calls", 0)
    out = tmp_path / "water.npz"
    with pytest.raises(KeyboardInterrupt):
        run(out, CountedLabels())
    assert not out.exists()
    return out


def test_resumes_after_an_interruption_with_the_same_result(killed, tmp_path, monkeypatch):
    kept = sorted(path.name for path in killed.with_name("water.npz.partial").iterdir())
    assert kept == ["lock", "settings.json", "trajectory_0_block_0.npz", "trajectory_0_block_1.npz"]
    monkeypatch.setattr(CountedLabels, "last", 10**9)
    monkeypatch.setattr(CountedLabels, "calls", 0)
    _, resumed = run(killed, CountedLabels())
    assert CountedLabels.calls == 1 + 6
    _, whole = run(tmp_path / "whole.npz")
    for key in whole:
        np.testing.assert_array_equal(resumed[key], whole[key])


def test_refuses_to_continue_with_other_settings(killed):
    with pytest.raises(InputError, match=r"water\.npz\.partial .*stiffness was 500\.0, is 400\.0"):
        run(killed, SpringLabels(stiffness=400.0))
    with pytest.raises(InputError, match=r"structure was"):
        run(killed, SpringLabels(), atoms=Atoms("OHH", WATER.positions + 0.1))


def test_two_at_a_time_are_refused(tmp_path):
    with file_lock(tmp_path / "water.npz.partial" / "lock"), pytest.raises(InputError, match="by another process"):
        run(tmp_path / "water.npz")


def test_several_processes_give_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, alone = run(tmp_path / "alone.npz")
    _, together = run(tmp_path / "together.npz", jobs=2)
    for key in alone:
        np.testing.assert_array_equal(together[key], alone[key])


def test_overwrites_only_when_told(tmp_path):
    out = tmp_path / "water.npz"
    run(out, seed=1)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"water\.npz exists; --overwrite"):
        run(out, seed=2)
    assert out.read_bytes() == before
    run(out, seed=2, overwrite=True)
    assert out.read_bytes() != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": 1.2}, r"--interval 1\.2 is not a whole number of --timestep 0\.5"),
        ({"interval": 0.1}, r"--interval 0\.1 is not a whole number"),
        ({"equilibrate": 0.7}, r"--equilibrate 0\.7 is not a whole number"),
        ({"equilibrate": -1.0}, "--equilibrate -1.0 is negative"),
        ({"seed": -1}, "--seed -1 is negative"),
        ({"frames": 0}, "--frames 0 is not positive"),
        ({"trajectories": 0}, "--trajectories 0 is not positive"),
        ({"jobs": -1}, "--jobs -1 is negative"),
        ({"labels": SpringLabels(spin=1)}, "--spin 1"),
        ({"labels": DftLabels(), "shift_energies": True}, "--all-electron-shift: DFT energies"),
    ],
)
def test_refuses_what_cannot_work(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out.npz", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_label_that_fails_stops_and_names_its_block(tmp_path):
    with pytest.raises(InputError, match=r"trajectory 0, block 0: the SCF did not converge.*--seed"):
        run(tmp_path / "water.npz", UnconvergedLabels())
    assert not (tmp_path / "water.npz").exists()


@pytest.fixture
def command(monkeypatch, tmp_path, run_command):
    """`ocp-dc md17 generate` with springs in place of GFN2-xTB, in this process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("ocp_dc.datasets.generation.labels.Gfn2Labels", SpringLabels)
    monkeypatch.setattr("ocp_dc.datasets.generation.generate.gfn2_calculator", lambda charge, spin: SpringCalculator())
    small = ("--frames", 10, "--trajectories", 2, "--equilibrate", 10, "--jobs", 0)
    return lambda source, out, *more: run_command("generate", source, out, *small, *more)


def test_command_generates_and_prints_shift_and_autocorrelation_time(command, run_command, tmp_path, capsys):
    assert command("H2O", tmp_path / "water.npz", "--seed", 3) == 0
    printed = capsys.readouterr()
    assert "10 conformations" in printed.out
    assert "energies shifted by -46," in printed.out
    assert "autocorrelation time of the energies: " in printed.out
    assert "10/10" in printed.err
    _, data = run(tmp_path / "direct.npz", seed=3, shift_energies=True)
    with np.load(tmp_path / "water.npz") as written:
        assert str(written["name"]) == "H2O"
        for key in "EFRz":
            np.testing.assert_array_equal(written[key], data[key])
    worth = re.search(r"worth about \d+ independent conformations", printed.out)[0]
    run_command("inspect", tmp_path / "water.npz")
    inspected = capsys.readouterr().out
    assert re.search(r"interval \(fs\) +25\n", inspected)
    assert re.search(rf"energy autocorrelation \(fs\) +{round(float(data['energy_autocorrelation_fs']))}\n", inspected)
    assert worth.removeprefix("worth ") in inspected


def test_command_without_the_shift_and_from_a_file(command, tmp_path, capsys):
    write(tmp_path / "mine.xyz", WATER)
    assert command(tmp_path / "mine.xyz", tmp_path / "water.npz", "--no-all-electron-shift") == 0
    assert "shifted" not in capsys.readouterr().out
    with np.load(tmp_path / "water.npz") as written:
        assert (str(written["name"]), written["energy_shift"]) == ("mine", 0.0)
        assert np.abs(written["E"]).max() < 1000


@pytest.mark.skipif(find_spec("tblite") is None, reason="tblite, of the extras `test` and `sample`, is not installed")
def test_command_with_gfn2_itself(run_command, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = ("--frames", 8, "--trajectories", 2, "--equilibrate", 20, "--jobs", 1)
    assert run_command("generate", "H2O", tmp_path / "water.npz", *small) == 0
    with np.load(tmp_path / "water.npz") as written:
        assert "GFN2-xTB, tblite " in str(written["theory"])
        # GFN2-xTB's minimum is at -3,182; all electrons of water have about -47,900
        assert -48_300 < written["E"].min() < written["E"].max() < -47_700
        assert 5 < np.abs(written["F"]).mean() < 60
