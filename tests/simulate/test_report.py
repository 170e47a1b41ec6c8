"""The two commands, and what a report says of simulations."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from simulated import settings

from ocp_dc.cli import main
from ocp_dc.errors import InputError
from ocp_dc.simulate.measuring import measure
from ocp_dc.simulate.metrics import BINS, FARTHEST
from ocp_dc.simulate.reading import Reference, Simulation, Trajectory, read_simulation

SIMULATE = ("--start", "sample", "--length", "0.01", "--every", "1", "--replicas", "2", "--cpu")


def simulate(checkpoint: Path, out: Path, *options: str) -> int:
    return main(["simulate", str(checkpoint), "--out", str(out), *SIMULATE, *options])


def trajectory_of(positions: np.ndarray, drift: float = 0.0, ended_ps: float | None = None) -> Trajectory:
    """Of ethanol, a frame each ps."""
    first = molecule("CH3CH2OH")
    first.positions = positions[0]
    times = np.arange(len(positions), dtype=float)
    return Trajectory(first, times, positions, 9e-3 * drift * times, np.full(len(times), 300.0), ended_ps, None)


def simulation_of(**changes) -> Simulation:
    asked = settings(length_ps=10, every_fs=1000, **changes)
    return Simulation("made", Path("made"), asked, {}, 10.0, 1.0, ())


@pytest.fixture
def reference() -> Reference:
    return Reference("ethanol", [molecule("CH3CH2OH")])


def test_a_molecule_that_stays_as_it_is_has_no_error(reference):
    still = np.repeat(molecule("CH3CH2OH").positions[None], 11, axis=0)
    metrics = measure(trajectory_of(still, drift=2.5), simulation_of(), reference)
    assert (metrics.stability, metrics.broken, metrics.distribution_error) == (10.0, False, 0.0)
    assert metrics.drift == pytest.approx(2.5)
    assert metrics.drift_residual == pytest.approx(0, abs=1e-9)
    assert metrics.temperature == 300
    assert measure(trajectory_of(still), simulation_of(ensemble="nvt"), reference).drift is None


def test_what_comes_after_a_broken_bond_counts_for_nothing(reference):
    positions = np.repeat(molecule("CH3CH2OH").positions[None], 11, axis=0)
    positions[7:, 3:] += 5
    trajectory = trajectory_of(positions, drift=1.0)
    trajectory.energies[7:] += 100
    metrics = measure(trajectory, simulation_of(), reference)
    assert (metrics.stability, metrics.broken, metrics.distribution_error) == (7.0, True, 0.0)
    assert metrics.drift == pytest.approx(1.0)


def test_a_trajectory_that_ended_is_stable_until_then(reference):
    still = np.repeat(molecule("CH3CH2OH").positions[None], 5, axis=0)
    metrics = measure(trajectory_of(still, ended_ps=4.5), simulation_of(), reference)
    assert (metrics.stability, metrics.broken) == (4.5, True)


def test_one_that_is_broken_from_the_start_has_no_distribution(reference):
    positions = np.repeat(molecule("CH3CH2OH").positions[None], 5, axis=0)
    positions[:, 0, 0] -= 0.7
    metrics = measure(trajectory_of(positions), simulation_of(), reference)
    assert (metrics.stability, metrics.distribution_error, metrics.drift, metrics.temperature) == (0, None, None, None)


def test_periodic_structures_have_no_bonds(reference):
    still = np.repeat(molecule("CH3CH2OH").positions[None], 11, axis=0)
    trajectory = trajectory_of(still)
    trajectory.first.pbc = True
    metrics = measure(trajectory, simulation_of(), reference)
    assert (metrics.stability, metrics.broken, metrics.distribution_error) == (10.0, False, None)


def test_a_reference_of_other_atoms_is_refused():
    still = np.repeat(molecule("CH3CH2OH").positions[None], 3, axis=0)
    with pytest.raises(InputError, match="water has no C2H6O with its atoms in the order"):
        measure(trajectory_of(still), simulation_of(), Reference("water", [molecule("H2O")]))


def test_the_commands_from_a_checkpoint_to_a_report(schnet, sample_data, tmp_path, capsys):
    nve, nvt, out = tmp_path / "nve", tmp_path / "nvt", tmp_path / "report"
    assert simulate(schnet, nve, "--temperature", "300", "--ensemble", "nve") == 0
    assert simulate(schnet, nvt, "--temperature", "500", "--thermostat", "langevin") == 0
    assert f"2 of 2 replicas reached 0.01 ps: {nvt}" in capsys.readouterr().out
    described = json.loads((nve / "simulation.json").read_text())
    assert described["checkpoint"] == str(schnet)
    assert len(described["identity"]["checkpoint_sha256"]) == 64
    assert described["units"]["energy"] == "eV"
    assert ase.io.read(nve / "replica_1.extxyz").info["time_fs"] == 10

    runs = [str(nve), str(nvt), "--reference", "sample", "--test", str(sample_data / "test")]
    assert main(["md-report", *runs, "--names", "one", "two", "--out", str(out), "--cpu"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^one +NVE, 300 K, 0\.5 fs +0\.01 +2 of 2 +0\.01 ± 0 ", shown, re.MULTILINE)
    assert "Force MAE: on 20 of" in shown
    written = json.loads((out / "report.json").read_text())["runs"]
    assert [run["name"] for run in written] == ["one", "two"]
    assert written[0]["drift"]["mean"] is not None
    assert written[1]["drift"]["mean"] is None
    assert written[0]["stability"] == {"unit": "ps", "mean": 0.01, "deviation": 0.0, "values": [0.01, 0.01]}
    assert main(["evaluate", "--checkpoint", str(schnet), "--data", str(sample_data / "test"), "--cpu"]) == 0
    expected = json.loads((schnet.parent / "result.json").read_text())["force_mae_eV_per_angstrom"]
    assert written[0]["force MAE"]["value"] == pytest.approx(expected, rel=1e-6)
    assert "| one | NVE" in (out / "report.md").read_text()
    for name in ("energy", "hr", "stability"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_simulation_that_grows_is_read_up_to_its_state(schnet, tmp_path):
    assert simulate(schnet, tmp_path, "--temperature", "300") == 0
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**state, "step": 10}))
    simulation = read_simulation(tmp_path, "it")
    assert (simulation.done_ps, simulation.trajectories[0].times[-1]) == (0.005, 0.005)


def test_a_report_names_what_it_cannot_use(schnet, tmp_path, capsys):
    assert main(["md-report", str(tmp_path), "--reference", "sample"]) == 2
    assert "has no simulation; give the --out of `ocp-dc simulate`" in capsys.readouterr().err
    assert simulate(schnet, tmp_path / "run", "--temperature", "300") == 0
    assert main(["md-report", str(tmp_path / "run"), "--reference", "sample", "--names", "a", "b"]) == 2
    assert "--names has 2 names for 1 runs" in capsys.readouterr().err
    assert simulate(schnet, tmp_path / "run", "--temperature", "301") == 2
    assert "temperature_K 300.0, not 301.0" in capsys.readouterr().err


def test_bins_are_of_a_fiftieth_of_an_angstrom():
    assert FARTHEST / BINS == 0.02
