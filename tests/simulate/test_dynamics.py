"""Momenta, degrees of freedom, and the temperature that thermostats keep."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import FixAtoms
from simulated import Harmonic, settings

from ocp_dc.errors import InputError
from ocp_dc.simulate.dynamics import degrees_of_freedom, start_momenta, temperature
from ocp_dc.simulate.reading import read_simulation
from ocp_dc.simulate.running import simulate

ORIGIN = {"checkpoint": "none.pt", "checkpoint_sha256": "none"}


def test_a_molecule_starts_at_rest_with_the_temperature_of_its_degrees_of_freedom():
    ethanol, rng = molecule("CH3CH2OH"), np.random.default_rng(0)
    temperatures = []
    for _ in range(400):
        start_momenta(ethanol, 300, rng)
        np.testing.assert_allclose(ethanol.get_momenta().sum(0), 0, atol=1e-12)
        np.testing.assert_allclose(ethanol.get_angular_momentum(), 0, atol=1e-10)
        temperatures.append(temperature(ethanol, 21))
    # one deviation of the mean is 300 √(2 / 21 / 400) = 4.6 K
    assert np.mean(temperatures) == pytest.approx(300, abs=18)


def test_fixed_atoms_do_not_move_and_the_others_freely():
    atoms = molecule("CH3CH2OH")
    atoms.set_constraint(FixAtoms([0, 1]))
    start_momenta(atoms, 300, np.random.default_rng(0))
    momenta = atoms.get_momenta()
    assert not momenta[:2].any()
    assert abs(momenta.sum(0)).min() > 1e-3


@pytest.mark.parametrize(
    ("atoms", "changes", "expected"),
    [
        (molecule("CH3CH2OH"), {}, 21),
        (molecule("CH3CH2OH"), {"ensemble": "nvt"}, 21),
        (molecule("CH3CH2OH"), {"ensemble": "nvt", "thermostat": "langevin"}, 27),
        (molecule("CO2"), {}, 4),
        (molecule("H2"), {}, 1),
        (Atoms("Cu4", np.diag([1.0, 2, 3, 4])[:, :3], cell=[5, 5, 5], pbc=True), {}, 9),
        (Atoms("Cu4", np.eye(4)[:, :3], pbc=True, constraint=FixAtoms([0])), {}, 9),
    ],
)
def test_degrees_of_freedom(atoms, changes, expected):
    assert degrees_of_freedom(atoms, settings(**changes)) == expected


def test_an_atom_alone_cannot_move():
    with pytest.raises(InputError, match="nothing in it can move"):
        degrees_of_freedom(Atoms("H"), settings())
    start_momenta(atom := Atoms("H"), 300, np.random.default_rng(0))
    assert not atom.get_momenta().any()


@pytest.mark.parametrize("thermostat", ["nose-hoover", "langevin"])
def test_a_thermostat_keeps_the_temperature_of_each_replica(cluster, tmp_path, thermostat):
    cluster.set_constraint(FixAtoms([0]))
    asked = settings(
        ensemble="nvt", thermostat=thermostat, temperature_K=400, timestep_fs=4, every_fs=20, length_ps=8, replicas=3
    )
    simulate(Harmonic(cluster.positions), [cluster], asked, tmp_path, ORIGIN, show_progress=False)
    for trajectory in read_simulation(tmp_path).trajectories:
        assert not (trajectory.positions[:, 0] - cluster.positions[0]).any()
        settled = trajectory.times > 1
        assert trajectory.temperatures[settled].mean() == pytest.approx(400, rel=0.2)
        # of the five springs: kT / 2 for each of 15 coordinates
        displaced = trajectory.positions[settled] - cluster.positions
        potential = 2.5 * (displaced**2).sum((1, 2)).mean()
        assert potential == pytest.approx(7.5 * units.kB * 400, rel=0.3)
