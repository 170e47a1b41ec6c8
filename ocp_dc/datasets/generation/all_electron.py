"""A constant that brings energies of valence electrons to the magnitude of all-electron ones.

Semi-empirical methods leave out the electrons of the cores. Their total energies are a tenth of those that DFT gives,
and the size of total energies is what label rescaling is about.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ocp_dc.datasets.generation.labels import HARTREE

SOURCE = (
    "for each atom: the all-electron energy of the statistical atom, "
    "-0.768745 Z^(7/3) + 0.5 Z^2 - 0.269900 Z^(5/3) Hartree, minus the method's own energy of the free atom"
)


def statistical_atom_energy(number: int) -> float:
    """Non-relativistic energy of a neutral atom of all its electrons, kcal/mol.

    The Thomas-Fermi energy with Scott's and Schwinger's corrections (Englert, Semiclassical Theory of Atoms, 1988). It
    is within 0.7 % of the Hartree-Fock energy from carbon to krypton; hydrogen's is 8 % too low.
    """
    return HARTREE * (-0.768745 * number ** (7 / 3) + 0.5 * number**2 - 0.269900 * number ** (5 / 3))


def all_electron_shift(numbers: np.ndarray, atom_energy: Callable[[int], float]) -> float:
    """What to add to energies of a composition, kcal/mol: the same for all of its conformations.

    Args:
        numbers: (A,) atomic numbers.
        atom_energy: the method's own energy of a free atom, from its atomic number, kcal/mol.
    """
    elements, counts = np.unique(numbers, return_counts=True)
    per_atom = [statistical_atom_energy(number) - atom_energy(number) for number in elements.tolist()]
    return float(counts @ np.array(per_atom))
