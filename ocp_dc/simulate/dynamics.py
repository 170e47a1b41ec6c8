"""The start of a trajectory, and ASE's integrators."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.verlet import VelocityVerlet

from ocp_dc.errors import InputError
from ocp_dc.simulate.settings import Settings

# of the largest: a smaller moment of inertia is that of a line about itself
SMALLEST_MOMENT = 1e-6


def fixed_atoms(atoms: Atoms) -> np.ndarray:
    """Their indices."""
    indices = [constraint.get_indices() for constraint in atoms.constraints if isinstance(constraint, FixAtoms)]
    return np.unique(np.concatenate(indices)) if indices else np.array([], int)


def start_momenta(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> None:
    """Gives momenta from Maxwell and Boltzmann's distribution.

    The centre of mass is at rest, and a molecule does not rotate. Where atoms are fixed, all others move freely.
    """
    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature_K)
    fixed = fixed_atoms(atoms)
    momenta[fixed] = 0
    if not len(fixed):
        momenta -= masses * (momenta.sum(0) / masses.sum())
        if not atoms.pbc.any():
            arms = atoms.positions - atoms.get_center_of_mass()
            turning = np.linalg.pinv(_inertia(atoms), rcond=SMALLEST_MOMENT) @ np.cross(arms, momenta).sum(0)
            momenta -= masses * np.cross(turning, arms)
    atoms.set_momenta(momenta)


def degrees_of_freedom(atoms: Atoms, settings: Settings) -> int:
    """Those that a kinetic energy is shared by.

    Three of each free atom. Forces of a model push neither the centre of mass nor the rotation of a molecule; noise
    does, and so does what is fixed.

    Raises:
        InputError: there are none.
    """
    fixed = fixed_atoms(atoms)
    free = 3 * (len(atoms) - len(fixed))
    with_noise = settings.ensemble == "nvt" and settings.thermostat == "langevin"
    if not with_noise and not len(fixed):
        free -= 3
        if not atoms.pbc.any():
            free -= np.linalg.matrix_rank(_inertia(atoms), tol=SMALLEST_MOMENT * np.trace(_inertia(atoms)))
    if free < 1:
        raise InputError(f"{atoms.get_chemical_formula()}: nothing in it can move; start from another structure")
    return int(free)


def temperature(atoms: Atoms, freedom: int) -> float:
    """In K, of atoms with as many degrees of freedom."""
    return 2 * atoms.get_kinetic_energy() / (freedom * units.kB)


def build_dynamics(atoms: Atoms, settings: Settings, rng: np.random.Generator) -> MolecularDynamics:
    """ASE's integrator for atoms that have momenta.

    Args:
        rng: of Langevin's noise.
    """
    timestep = settings.timestep_fs * units.fs
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    relaxation = settings.relaxation_fs * units.fs
    if settings.thermostat == "langevin":
        friction = 1 / relaxation
        return Langevin(atoms, timestep, temperature_K=settings.temperature_K, friction=friction, fixcm=False, rng=rng)
    dynamics = NoseHooverChainNVT(atoms, timestep, temperature_K=settings.temperature_K, tdamp=relaxation)
    # ASE's chain counts three degrees of freedom for every atom. A molecule at rest has six fewer, over which it would
    # spread the energy of all: ethanol would be at 643 K instead of 500 K.
    dynamics._thermostat = NoseHooverChainThermostat(
        num_atoms_global=degrees_of_freedom(atoms, settings) / 3,
        masses=dynamics.masses,
        temperature_K=settings.temperature_K,
        tdamp=relaxation,
    )
    return dynamics


def thermostat_state(dynamics: MolecularDynamics) -> dict[str, Any]:
    """What an integrator knows beyond positions, momenta and its random numbers; for JSON."""
    if not isinstance(dynamics, NoseHooverChainNVT):
        return {}
    thermostat = dynamics._thermostat
    return {"eta": thermostat._eta.tolist(), "p_eta": thermostat._p_eta.tolist()}


def restore_thermostat(dynamics: MolecularDynamics, state: dict[str, Any]) -> None:
    """Undoes :func:`thermostat_state`."""
    if state:
        dynamics._thermostat._eta[:] = state["eta"]
        dynamics._thermostat._p_eta[:] = state["p_eta"]


def _inertia(atoms: Atoms) -> np.ndarray:
    """The tensor (3, 3) about the centre of mass."""
    arms = atoms.positions - atoms.get_center_of_mass()
    outer = np.einsum("n,ni,nj->ij", atoms.get_masses(), arms, arms)
    return np.trace(outer) * np.eye(3) - outer
