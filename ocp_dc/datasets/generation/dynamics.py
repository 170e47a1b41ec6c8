"""Langevin dynamics that start from Maxwell-Boltzmann momenta."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin


def langevin_dynamics(
    atoms: Atoms, temperature: float, timestep: float, friction: float, rng: np.random.Generator
) -> Langevin:
    """Langevin dynamics of ``atoms`` with the momenta that they have.

    Args:
        atoms: with a calculator; constraints are kept.
        temperature: of the heat bath, K.
        timestep: fs.
        friction: 1/fs.
        rng: of the random forces.
    """
    return Langevin(
        atoms,
        timestep=timestep * units.fs,
        temperature_K=temperature,
        friction=friction / units.fs,
        fixcm=False,
        rng=rng,
    )


def draw_momenta(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Gives ``atoms`` momenta of a Maxwell-Boltzmann distribution; constraints are heeded."""
    widths = np.sqrt(units.kB * temperature * atoms.get_masses())[:, None]
    atoms.set_momenta(widths * rng.standard_normal((len(atoms), 3)))
