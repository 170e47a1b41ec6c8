"""Small made-up molecules and structures in the files that the converters read."""

import argparse
import gc

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from ocp_dc.datasets.md17_commands import add_md17_commands
from ocp_dc.datasets.oc22_commands import add_oc22_commands

# about where aspirin's energies are: float32 cannot resolve 0.03 there
ENERGY_OFFSET = -406_737.28
NUMBERS = np.array([8, 1, 1, 6])
GEOMETRY = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0], [7.0, 0.5, 0.3]])


@pytest.fixture(autouse=True)
def _release_lmdbs():
    # an LMDB that is still open cannot be opened by the next test
    yield
    gc.collect()


def make_arrays(count, seed=0):
    random = np.random.default_rng(seed)
    return {
        "E": ENERGY_OFFSET + 5 * random.normal(size=(count, 1)),
        "F": 20 * random.normal(size=(count, len(NUMBERS), 3)),
        "R": GEOMETRY + 0.05 * random.normal(size=(count, len(NUMBERS), 3)),
        "z": NUMBERS.astype(np.uint8),
    }


@pytest.fixture
def arrays():
    return make_arrays(40)


@pytest.fixture
def write_npz(tmp_path):
    """Writes an MD17 file, with arrays changed, added or (None) left out."""

    def write(arrays=None, name="molecule.npz", **changes):
        merged = {**(make_arrays(40) if arrays is None else arrays), **changes}
        np.savez_compressed(tmp_path / name, **{key: value for key, value in merged.items() if value is not None})
        return tmp_path / name

    return write


def make_frame(seed, symbols="Mg2O2C", pbc=True):
    """With an energy, forces, fixed atoms and tags; where it is periodic, some atoms are outside of its cell."""
    random = np.random.default_rng(seed)
    cell = np.diag([4.2, 4.3, 12.0]) + 0.3 * random.normal(size=(3, 3))
    grid = np.array([[0.1, 0.1, 0.1], [0.6, 0.6, 0.1], [0.6, 0.1, 0.1], [0.1, 0.6, 0.1], [0.1, 0.1, 0.3]])
    count = len(Atoms(symbols))
    atoms = Atoms(symbols, cell=cell, pbc=pbc, tags=[0, 0, 1, 1, 2][:count])
    shifts = random.integers(-1, 2, size=(count, 3)) * atoms.pbc
    atoms.positions = (grid[:count] + 0.01 * random.normal(size=(count, 3)) + shifts) @ cell
    forces, energy = random.normal(size=(count, 3)), -430.0 + 5 * random.normal()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    atoms.set_constraint(FixAtoms([0, 1]))
    return atoms


@pytest.fixture
def frames():
    """Structures of 4 and of 5 atoms, periodic along three lattice vectors, along two, or not at all."""
    kinds = [("Mg2O2C", True), ("Mg2O2", True), ("Mg2O2C", (True, True, False)), ("Zn2O2", False)]
    return [make_frame(seed, *kinds[seed % 4]) for seed in range(24)]


@pytest.fixture
def run_command():
    """Runs an ``md17`` command as the command line would."""
    return _runner(add_md17_commands, "md17")


@pytest.fixture
def run_oc22():
    """Runs an ``oc22`` command as the command line would."""
    return _runner(add_oc22_commands, "oc22")


def _runner(add_commands, command):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())

    def run(*words):
        args = parser.parse_args([command, *map(str, words)])
        return args.func(args)

    return run
