"""The molecule to start from: a file, a name, or a SMILES string."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io.formats import UnknownFileTypeError

from ocp_dc.datasets.generation.install import INSTALL
from ocp_dc.errors import InputError

SMALLEST_DISTANCE = 0.5  # Å, less than any bond


def read_molecule(source: str) -> Atoms:
    """Elements and positions of the first structure of a file, or of a molecule that ASE knows by name.

    Args:
        source: an existing file that ``ase.io.read`` reads, or a name of ``ase.build.molecule``.

    Raises:
        InputError: it is neither, or not a molecule.
    """
    found = _read_file(Path(source)) if Path(source).is_file() else _look_up(source)
    atoms = Atoms(found.numbers, found.positions)
    if found.pbc.any():
        raise InputError(f"{source} is periodic; a molecule is needed: take its cell out of the file")
    _check_distances(source, atoms)
    return atoms


def molecule_from_smiles(smiles: str, seed: int) -> Atoms:
    """Elements, hydrogens included, and positions of an MMFF94 (else UFF) conformer, Å.

    Args:
        smiles: of one molecule.
        seed: of the conformer.

    Raises:
        InputError: RDKit is missing, cannot read the SMILES or finds no conformer for it.
    """
    try:
        from rdkit import Chem, RDLogger
        from rdkit.Chem import AllChem
    except ImportError as error:
        raise InputError(f"--smiles needs RDKit ({error}); {INSTALL}") from error
    RDLogger.DisableLog("rdApp.*")
    bare = Chem.MolFromSmiles(smiles)
    if bare is None or not bare.GetNumAtoms():
        raise InputError(f"--smiles {smiles}: RDKit cannot read it; check brackets, ring numbers and valences")
    whole = Chem.AddHs(bare)
    if len(Chem.GetMolFrags(whole)) > 1:
        raise InputError(f"--smiles {smiles} is more than one molecule; leave out what follows the dot")
    if AllChem.EmbedMolecule(whole, randomSeed=seed) != 0:
        raise InputError(f"--smiles {smiles}: RDKit finds no conformer; try another --seed, or give an .xyz file")
    relax = AllChem.MMFFOptimizeMolecule if AllChem.MMFFHasAllMoleculeParams(whole) else AllChem.UFFOptimizeMolecule
    relax(whole, maxIters=2000)
    return Atoms([atom.GetAtomicNum() for atom in whole.GetAtoms()], whole.GetConformer().GetPositions())


def check_electrons(atoms: Atoms, charge: int, spin: int) -> None:
    """Raises InputError where a charge leaves no such number of unpaired electrons."""
    electrons = int(atoms.numbers.sum()) - charge
    if spin < 0 or electrons < max(spin, 1) or (electrons - spin) % 2:
        raise InputError(
            f"{atoms.get_chemical_formula()} with --charge {charge} has {electrons} electrons, which cannot leave "
            f"--spin {spin} unpaired; give another --charge or --spin"
        )


def _read_file(path: Path) -> Atoms:
    try:
        return ase.io.read(path, index=0)
    except (UnknownFileTypeError, ValueError, IndexError, KeyError, OSError, StopIteration) as error:
        raise InputError(f"{path}: ASE cannot read it ({error}); give an .xyz file") from error


def _look_up(name: str) -> Atoms:
    try:
        return molecule(name)
    except (KeyError, NotImplementedError) as error:
        raise InputError(
            f"{name}: neither a file nor a name that ase.build.molecule knows; for a SMILES string, add --smiles"
        ) from error


def _check_distances(source: str, atoms: Atoms) -> None:
    if len(atoms) < 2:
        raise InputError(f"{source} is a single atom, which has no conformations")
    distances = atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]
    if not distances.min() > SMALLEST_DISTANCE:
        raise InputError(
            f"{source}: two atoms are {distances.min():.2f} Å apart; check that its positions are in Angstrom"
        )
