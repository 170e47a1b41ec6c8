"""Metrics of trajectories whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ocp_dc.simulate import metrics
from ocp_dc.simulate.metrics import (
    bond_lengths,
    bonds_of,
    distance_distribution,
    distribution_error,
    energy_drift,
    first_broken,
    mean_and_deviation,
)


def test_ethanol_has_its_eight_bonds():
    ethanol = molecule("CH3CH2OH")
    bonds = bonds_of(ethanol)
    kinds = sorted("".join(sorted(ethanol[pair].get_chemical_symbols())) for pair in bonds.tolist())
    assert kinds == ["CC", "CH", "CH", "CH", "CH", "CH", "CO", "HO"]


def test_an_atom_alone_has_no_bonds():
    assert bonds_of(Atoms("H")).shape == (0, 2)


def stretched(lengths: list[float]) -> np.ndarray:
    """Positions of two atoms, at these distances, which turn and move."""
    angles = np.linspace(0, 2, len(lengths))
    direction = np.stack([np.cos(angles), np.sin(angles), np.zeros(len(lengths))], axis=1)
    start = np.linspace(0, 7, 3 * len(lengths)).reshape(-1, 3)
    return np.stack([start, start + np.array(lengths)[:, None] * direction], axis=1)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([1.1, 1.0, 1.49, 0.51], None), ([1.1, 1.0, 1.51, 1.0], 2), ([1.0, 0.49, 1.0, 3.0], 1), ([1.6, 1.0], 0)],
)
def test_a_bond_breaks_half_an_angstrom_from_its_mean(lengths, expected):
    positions, bonds = stretched(lengths), np.array([[0, 1]])
    np.testing.assert_allclose(bond_lengths(positions, bonds)[:, 0], lengths)
    assert first_broken(positions, bonds, np.array([1.0])) == expected


def test_distances_of_a_rigid_molecule_are_where_they_are():
    # a triangle with sides 3, 4 and 5, of no bin's edge
    triangle = np.array([[0, 0, 0], [3.01, 0, 0], [0, 4.01, 0]])
    distribution = distance_distribution(np.stack([triangle, triangle + 2.5]))
    width = metrics.FARTHEST / metrics.BINS
    assert distribution.sum() * width == pytest.approx(1)
    distances = (3.01, 4.01, np.hypot(3.01, 4.01))
    assert np.flatnonzero(distribution).tolist() == [int(distance / width) for distance in distances]
    np.testing.assert_allclose(distribution[distribution > 0], 1 / 3 / width)


def test_distances_beyond_ten_angstroms_are_not_counted():
    positions = np.array([[[0, 0, 0], [1.01, 0, 0], [12, 0, 0]]], float)
    assert distance_distribution(positions).sum() * metrics.FARTHEST / metrics.BINS == pytest.approx(1 / 3)


def test_distances_are_counted_in_parts(monkeypatch):
    positions = np.random.default_rng(0).normal(scale=2, size=(7, 5, 3))
    expected = distance_distribution(positions)
    monkeypatch.setattr(metrics, "DISTANCES_AT_ONCE", 20)
    np.testing.assert_allclose(distance_distribution(positions), expected)


def test_distributions_apart_differ_by_two_and_half_shared_by_one():
    near, far = (distance_distribution(np.array([[[0, 0, 0], [r, 0, 0]]])) for r in (1.01, 2.01))
    assert distribution_error(near, near) == 0
    assert distribution_error(near, far) == pytest.approx(2)
    assert distribution_error(near, (near + far) / 2) == pytest.approx(1)


def test_a_straight_drift_is_found_with_what_it_leaves():
    times = np.arange(0, 10, 0.01)
    # a whole number of periods
    waves = 0.002 * np.sin(2 * np.pi * times)
    drift = energy_drift(times, -4209 + 9 * (0.003 * times + waves), atoms=9)
    assert drift.slope == pytest.approx(3, rel=0.05)
    straight = energy_drift(times, -4209 + 9 * 0.003 * times, atoms=9)
    assert straight.slope == pytest.approx(3, rel=1e-6)
    assert straight.residual == pytest.approx(0, abs=1e-6)
    assert drift.residual == pytest.approx(2 / np.sqrt(2), rel=0.02)
    assert energy_drift(times[:2], times[:2], atoms=1) is None


def test_mean_and_deviation_are_those_of_a_sample():
    assert mean_and_deviation([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_deviation([4.0]) == (4.0, None)
