"""The metrics of a simulation, replica by replica."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocp_dc.simulate.metrics import (
    bond_lengths,
    bonds_of,
    distance_distribution,
    distribution_error,
    energy_drift,
    first_broken,
)
from ocp_dc.simulate.reading import Reference, Simulation, Trajectory

WARM_UP_PART = 0.1


@dataclass(frozen=True)
class ReplicaMetrics:
    """Of one trajectory.

    Attributes:
        stability: ps until a bond broke or the trajectory ended; its length where neither happened.
        broken: whether a bond broke or it ended.
        distribution: h(r) of the stable part; None of periodic structures.
        distribution_error: of h(r) against the reference.
        drift: slope of the total energy, meV/atom/ps, of the stable part of an NVE trajectory.
        drift_residual: meV/atom.
        temperature: mean of the stable part, K.
    """

    stability: float
    broken: bool
    distribution: np.ndarray | None
    distribution_error: float | None
    drift: float | None
    drift_residual: float | None
    temperature: float | None


@dataclass(frozen=True)
class Measured:
    """A simulation with its metrics.

    Attributes:
        force_mae: of its checkpoint on labelled structures, eV/Å; None where it cannot be had.
    """

    simulation: Simulation
    replicas: tuple[ReplicaMetrics, ...]
    force_mae: float | None


def measure(
    trajectory: Trajectory, simulation: Simulation, reference: Reference, warm_up: float | None = None
) -> ReplicaMetrics:
    """The metrics of a trajectory. Of periodic structures there are no bonds and no h(r): they are stable to their end.

    Args:
        warm_up: left out of drift and temperature, in ps; None for a tenth of the simulation.

    Raises:
        InputError: the reference has not its atoms.
    """
    periodic = trajectory.first.pbc.any()
    broken, stable = None, len(trajectory.times)
    if not periodic:
        expected = reference.positions(trajectory.first)
        bonds = bonds_of(trajectory.first)
        broken = first_broken(trajectory.positions, bonds, bond_lengths(expected, bonds).mean(axis=0))
        stable = stable if broken is None else broken
    distribution = None if periodic or not stable else distance_distribution(trajectory.positions[:stable])
    end = trajectory.times[-1] if trajectory.ended_ps is None else trajectory.ended_ps
    start = WARM_UP_PART * simulation.settings.length_ps if warm_up is None else warm_up
    settled = slice(int(np.searchsorted(trajectory.times, start)), stable)
    temperatures = trajectory.temperatures[settled]
    drift = None
    if simulation.settings.ensemble == "nve":
        drift = energy_drift(trajectory.times[settled], trajectory.energies[settled], len(trajectory.first))
    return ReplicaMetrics(
        stability=float(end if broken is None else trajectory.times[broken]),
        broken=broken is not None or trajectory.ended_ps is not None,
        distribution=distribution,
        distribution_error=None
        if distribution is None
        else distribution_error(distribution, distance_distribution(expected)),
        drift=drift and drift.slope,
        drift_residual=drift and drift.residual,
        temperature=float(temperatures.mean()) if len(temperatures) else None,
    )
