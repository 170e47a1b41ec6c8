"""Simulations: replicas in one batch, conservation, going on after a kill, and what cannot be simulated."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal

import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from simulated import Harmonic, settings

from ocp_dc.calculator import load
from ocp_dc.datasets.structure_files import read_structures
from ocp_dc.errors import InputError
from ocp_dc.simulate import running
from ocp_dc.simulate.folder import locked, trajectory_path
from ocp_dc.simulate.metrics import energy_drift
from ocp_dc.simulate.running import simulate

KINDS = (
    {"ensemble": "nve"},
    {"ensemble": "nvt", "thermostat": "nose-hoover"},
    {"ensemble": "nvt", "thermostat": "langevin"},
)


def frames(folder, replica):
    return ase.io.read(trajectory_path(folder, replica), ":")


def contents(folder, replicas=3):
    return [trajectory_path(folder, replica).read_bytes() for replica in range(replicas)]


@pytest.fixture
def every_state(monkeypatch):
    """The state is saved at each frame."""
    monkeypatch.setattr(running, "SECONDS_BETWEEN_STATES", 0)


class Stopping(Harmonic):
    """Stops a simulation when it has been asked so often."""

    def __init__(self, centres, calls, stop):
        super().__init__(centres)
        self.calls, self.stop = calls, stop

    def evaluate(self, structures):
        if len(self.batches) == self.calls:
            self.stop()
        return super().evaluate(structures)


def stop():
    raise KeyboardInterrupt


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_in_a_batch_are_those_simulated_alone(schnet, tmp_path, kind):
    model = load(schnet, "cpu")
    model._model.double()
    start = read_structures("sample")
    simulate(model, start, settings(**kind), tmp_path / "all", {}, show_progress=False)
    simulate(model, start, settings(**kind, replicas=1), tmp_path / "one", {}, show_progress=False)
    for together, alone in zip(frames(tmp_path / "all", 0), frames(tmp_path / "one", 0), strict=True):
        np.testing.assert_allclose(together.positions, alone.positions, atol=2e-8)
        np.testing.assert_allclose(together.get_momenta(), alone.get_momenta(), atol=2e-8)
        assert together.get_potential_energy() == pytest.approx(alone.get_potential_energy(), abs=1e-7)
    starts = [frames(tmp_path / "all", replica)[0].positions for replica in range(3)]
    assert all(any(np.allclose(own, atoms.positions, atol=1e-7) for atoms in start) for own in starts)
    assert abs(starts[0] - starts[1]).max() > 0.1


def test_each_step_is_one_batch(cluster, tmp_path):
    model = Harmonic(cluster.positions)
    simulate(model, [cluster], settings(), tmp_path, {}, show_progress=False)
    assert set(model.batches) == {3}
    # 40 steps, and what tracing takes
    assert len(model.batches) == 40 + running.CALLS_BEFORE_TRACING + 1


def test_a_simulation_from_a_minimum_is_traced(schnet, tmp_path):
    atoms = read_structures("sample")[0].copy()
    atoms.calc = model = load(schnet, "cpu")
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=300)
    simulate(model, [atoms], settings(), tmp_path, {}, show_progress=False)
    # of one molecule, from the search for the minimum, and of three
    assert list(model._trainer.traced_predictions._replays.values())[-1] is not None


def test_frames_have_energy_forces_momenta_and_time(cluster, tmp_path):
    cluster.set_constraint(FixAtoms([2]))
    simulate(Harmonic(cluster.positions), [cluster], settings(), tmp_path, {}, show_progress=False)
    read = frames(tmp_path, 0)
    assert [frame.info["time_fs"] for frame in read] == [2.0 * n for n in range(11)]
    last = read[-1]
    assert last.constraints[0].get_indices().tolist() == [2]
    displaced = last.positions - cluster.positions
    np.testing.assert_allclose(last.get_forces(), -5 * displaced, atol=1e-6)
    assert last.get_potential_energy() == pytest.approx(2.5 * (displaced**2).sum(), abs=1e-6)
    assert not displaced[2].any()
    assert abs(last.get_momenta()).max() > 0.01


def drift_of(checkpoint, folder):
    """Of each replica, meV/atom/ps, and how much of the kinetic energy's range the total energy changes by."""
    asked = settings(length_ps=0.15, temperature_K=100)
    simulate(load(checkpoint, "cpu"), read_structures("sample"), asked, folder, {}, show_progress=False)
    for replica in range(3):
        read = frames(folder, replica)
        times = np.array([frame.info["time_fs"] for frame in read]) / 1000
        energies = np.array([frame.get_total_energy() for frame in read])
        kinetic = np.array([frame.get_kinetic_energy() for frame in read])
        yield abs(energy_drift(times, energies, 9).slope), np.ptp(energies) / np.ptp(kinetic)


def test_energy_is_conserved_by_forces_that_are_its_gradient(schnet, tmp_path):
    for drift, changed in drift_of(schnet, tmp_path):
        assert drift < 0.5
        assert changed < 0.01


def test_energy_is_not_conserved_by_forces_that_are_not(dimenetplusplus, tmp_path):
    for drift, changed in drift_of(dimenetplusplus, tmp_path):
        assert drift > 2
        assert changed > 0.1


@pytest.mark.usefixtures("every_state")
@pytest.mark.parametrize("kind", KINDS)
def test_a_simulation_goes_on_to_the_last_bit(cluster, tmp_path, kind):
    simulate(Harmonic(cluster.positions), [cluster], settings(**kind), tmp_path / "whole", {}, show_progress=False)
    # in the middle of the 14th step, between frames
    stopping = Stopping(cluster.positions, 34, stop)
    with pytest.raises(KeyboardInterrupt):
        simulate(stopping, [cluster], settings(**kind), tmp_path / "cut", {}, show_progress=False)
    model = Harmonic(cluster.positions)
    simulate(model, [cluster], settings(**kind), tmp_path / "cut", {}, show_progress=False)
    assert len(model.batches) == 28 + running.CALLS_BEFORE_TRACING + 1
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("every_state")
def test_a_trained_model_goes_on_to_the_last_bit(schnet, tmp_path):
    start = read_structures("sample")
    asked, half = (settings(ensemble="nvt", length_ps=length) for length in (0.06, 0.03))
    simulate(load(schnet, "cpu"), start, asked, tmp_path / "whole", {}, show_progress=False)
    simulate(load(schnet, "cpu"), start, half, tmp_path / "cut", {}, show_progress=False)
    # longer is the same simulation
    simulate(load(schnet, "cpu"), start, asked, tmp_path / "cut", {}, show_progress=False)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("saved", [True, False])
def test_a_killed_simulation_goes_on(cluster, tmp_path, monkeypatch, saved):
    asked = settings(ensemble="nvt", thermostat="langevin")
    simulate(Harmonic(cluster.positions), [cluster], asked, tmp_path / "whole", {}, show_progress=False)
    # frames are there that the state knows nothing of
    times = iter([*[0.0] * 4, *[100.0 * saved] * 100])
    monkeypatch.setattr(running.time, "monotonic", lambda: next(times))
    killing = Stopping(cluster.positions, 50, kill)
    child = multiprocessing.get_context("fork").Process(
        target=simulate, args=(killing, [cluster], asked, tmp_path / "cut", {}, False)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    step = json.loads((tmp_path / "cut" / "state.json").read_text())["step"]
    assert 0 < step < 40 if saved else step == 0
    with trajectory_path(tmp_path / "cut", 1).open("a") as file:
        file.write("6\nProperties=species:S:1:po")
    simulate(Harmonic(cluster.positions), [cluster], asked, tmp_path / "cut", {}, show_progress=False)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


class Exploding(Harmonic):
    """Replica 1 gets a force that is not finite in the 10th step."""

    def evaluate(self, structures):
        results = super().evaluate(structures)
        if len(self.batches) == 10 + running.CALLS_BEFORE_TRACING + 1:
            results[1]["forces"][0, 0] = self.force
        return results

    def __init__(self, centres, force):
        super().__init__(centres)
        self.force = force


@pytest.mark.usefixtures("every_state")
@pytest.mark.parametrize(("force", "reason"), [(np.nan, "energy or forces are not finite"), (1e4, r"\d K$")])
def test_a_replica_that_breaks_ends_and_the_others_go_on(cluster, tmp_path, force, reason, capsys):
    simulate(Harmonic(cluster.positions), [cluster], settings(), tmp_path / "whole", {}, show_progress=False)
    exploding = Exploding(cluster.positions, force)
    ends = simulate(exploding, [cluster], settings(), tmp_path / "broken", {}, show_progress=False)
    assert [ended is None for ended in ends] == [True, False, True]
    assert ends[1]["step"] == 10
    assert re.search(reason, ends[1]["reason"])
    assert "replica 1 ended at 5 fs" in capsys.readouterr().out
    whole, broken = contents(tmp_path / "whole"), contents(tmp_path / "broken")
    assert (broken[0], broken[2]) == (whole[0], whole[2])
    assert whole[1].startswith(broken[1])
    assert len(frames(tmp_path / "broken", 1)) == 3
    # what has ended is not tried again
    longer = settings(length_ps=0.03)
    again = simulate(Harmonic(cluster.positions), [cluster], longer, tmp_path / "broken", {}, show_progress=False)
    assert again == ends
    assert len(frames(tmp_path / "broken", 1)) == 3
    assert len(frames(tmp_path / "broken", 0)) == 16


def test_another_simulation_is_not_written_over(cluster, tmp_path):
    model = Harmonic(cluster.positions)
    origin = {"checkpoint": "a.pt", "checkpoint_sha256": "1"}
    simulate(model, [cluster], settings(), tmp_path, origin, show_progress=False)
    with pytest.raises(InputError, match=r"has a simulation with temperature_K 300.0, not 400; choose another --out"):
        simulate(model, [cluster], settings(temperature_K=400), tmp_path, origin, show_progress=False)
    with pytest.raises(InputError, match="checkpoint_sha256 1, not 2"):
        simulate(model, [cluster], settings(), tmp_path, {**origin, "checkpoint_sha256": "2"}, show_progress=False)
    with pytest.raises(InputError, match=r"has 0\.02 ps already"):
        simulate(model, [cluster], settings(length_ps=0.01), tmp_path, origin, show_progress=False)
    before = contents(tmp_path)
    moved = {**origin, "checkpoint": "b.pt"}
    simulate(model, [cluster], settings(), tmp_path, moved, show_progress=False)
    assert contents(tmp_path) == before


def test_a_folder_that_is_in_use_or_damaged_is_refused(cluster, tmp_path):
    model = Harmonic(cluster.positions)
    with locked(tmp_path), pytest.raises(InputError, match="being written by another process"):
        simulate(model, [cluster], settings(), tmp_path, {}, show_progress=False)
    simulate(model, [cluster], settings(), tmp_path, {}, show_progress=False)
    trajectory_path(tmp_path, 0).write_text("6\n")
    with pytest.raises(InputError, match=r"replica_0\.extxyz has been cut"):
        simulate(model, [cluster], settings(), tmp_path, {}, show_progress=False)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        simulate(model, [cluster], settings(), tmp_path, {}, show_progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature_K": 0}, "--temperature 0 K: it must be positive"),
        ({"timestep_fs": float("nan")}, "--timestep nan fs"),
        ({"replicas": 0}, "--replicas 0: at least one"),
        ({"seed": -1}, "--seed -1"),
        ({"relaxation_fs": -1}, "--relaxation-time -1 fs"),
        ({"every_fs": 0.7}, r"--every 0\.7 fs is no whole number of the time step, 0\.5 fs: give 0\.5"),
        ({"length_ps": 0.0033}, r"--length 0\.0033 ps is no whole number of --every, 0\.002 ps: give 0\.004"),
    ],
)
def test_settings_that_make_no_simulation_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)
