"""Energies and forces of single conformations, in kcal/mol and kcal/mol/Å."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import ClassVar

import numpy as np
from ase.calculators.calculator import Calculator

from ocp_dc.datasets.generation.install import INSTALL, tblite_remedy
from ocp_dc.errors import InputError

HARTREE = 627.5094740631  # kcal/mol, CODATA 2018
BOHR = 0.529177210903  # Å, CODATA 2018


@dataclass(frozen=True)
class Gfn2Labels:
    """GFN2-xTB of tblite. A label depends on its conformation alone: every self-consistent field starts afresh.

    Attributes:
        charge: of the molecule.
        spin: its unpaired electrons.
    """

    charge: int = 0
    spin: int = 0
    kind: ClassVar = "gfn2"
    block_frames: ClassVar = 50
    # tblite's; energies are then converged to 1e-9 kcal/mol, forces to 1e-4 kcal/mol/Å
    accuracy: ClassVar = 0.01

    @property
    def method(self) -> str:
        """For a file's ``theory``."""
        return f"GFN2-xTB{_electrons(self.charge, self.spin)}, tblite {version('tblite')}"

    def __call__(self, numbers: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in kcal/mol and forces (A, 3) in kcal/mol/Å, from numbers (A,) and positions (A, 3) in Å.

        Raises:
            InputError: tblite is missing, or the self-consistent field does not converge.
        """
        energy, gradient = self._single_point(numbers, positions, self.charge, self.spin)
        return energy * HARTREE, -gradient * (HARTREE / BOHR)

    def atom_energy(self, number: int) -> float:
        """GFN2-xTB's energy of a free, neutral atom in its lowest spin state, kcal/mol.

        Raises:
            InputError: tblite is missing, or GFN2-xTB does not know the element (it knows H to Rn).
        """
        return self._single_point(np.array([number]), np.zeros((1, 3)), charge=0, spin=None)[0] * HARTREE

    def _single_point(
        self, numbers: np.ndarray, positions: np.ndarray, charge: int, spin: int | None
    ) -> tuple[float, np.ndarray]:
        """In Hartree and Hartree/Bohr."""
        try:
            from tblite.exceptions import TBLiteRuntimeError
            from tblite.interface import Calculator as Gfn2
        except ImportError as error:
            raise InputError(f"GFN2-xTB labels need tblite ({error}); {tblite_remedy()}") from error
        try:
            calculator = Gfn2("GFN2-xTB", numbers, positions / BOHR, charge=charge, uhf=spin)
            calculator.set("verbosity", 0)
            calculator.set("accuracy", self.accuracy)
            result = calculator.singlepoint()
        except TBLiteRuntimeError as error:
            raise InputError(f"GFN2-xTB fails: {error}") from error
        return float(result.get("energy")), result.get("gradient")


@dataclass(frozen=True)
class DftLabels:
    """Density-fitted Kohn-Sham DFT of PySCF; unrestricted where electrons are unpaired.

    Attributes:
        charge: of the molecule.
        spin: its unpaired electrons.
        xc: functional, as PySCF names it.
        basis: basis set, as PySCF names it.
        grid_level: of PySCF's integration grids, 0 (coarse) to 9.
    """

    charge: int = 0
    spin: int = 0
    xc: str = "PBE"
    basis: str = "def2-SVP"
    grid_level: int = 2
    kind: ClassVar = "dft"
    block_frames: ClassVar = 5
    # for every functional; PySCF's own choice shifts energies by 0.1 kcal/mol
    fitting_basis: ClassVar = "def2-universal-jkfit"
    tolerance: ClassVar = 1e-8  # Hartree
    cycles: ClassVar = 100

    @property
    def method(self) -> str:
        """For a file's ``theory``."""
        fitted = f"{self.xc}/{self.basis} (density fitting, grid level {self.grid_level})"
        return f"{fitted}{_electrons(self.charge, self.spin)}, PySCF {version('pyscf')}"

    def __call__(self, numbers: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in kcal/mol and forces (A, 3), the negative nuclear gradient, in kcal/mol/Å; as GFN2's.

        Raises:
            InputError: PySCF is missing, does not know functional or basis, or does not converge.
        """
        try:
            from pyscf import dft, gto
            from pyscf.lib.exceptions import BasisNotFoundError
        except ImportError as error:
            raise InputError(f"DFT labels need PySCF ({error}); {INSTALL}") from error
        atoms = [(int(number), position) for number, position in zip(numbers, positions / BOHR, strict=True)]
        try:
            structure = gto.M(atom=atoms, unit="Bohr", basis=self.basis, charge=self.charge, spin=self.spin, verbose=0)
            scf = dft.KS(structure, xc=self.xc).density_fit(auxbasis=self.fitting_basis)
            scf.grids.level, scf.conv_tol, scf.max_cycle = self.grid_level, self.tolerance, self.cycles
            energy = scf.kernel()
        except (KeyError, BasisNotFoundError) as error:
            raise InputError(f"PySCF cannot take --xc {self.xc} with --basis {self.basis}: {error}") from error
        if not scf.converged:
            raise InputError(f"the SCF did not converge to {self.tolerance} Hartree in {self.cycles} cycles")
        return energy * HARTREE, -scf.nuc_grad_method().kernel() * (HARTREE / BOHR)


Labels = Gfn2Labels | DftLabels


def gfn2_calculator(charge: int, spin: int) -> Calculator:
    """GFN2-xTB for dynamics, in ASE's units; each step starts from the electrons of the one before.

    Raises:
        InputError: tblite is missing.
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise InputError(f"GFN2-xTB dynamics need tblite ({error}); {tblite_remedy()}") from error
    return TBLite(method="GFN2-xTB", charge=charge, multiplicity=spin + 1, verbosity=0)


def _electrons(charge: int, spin: int) -> str:
    return f", charge {charge}, {spin} unpaired electrons" if charge or spin else ""
