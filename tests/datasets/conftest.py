"""Small made-up molecules in the files that the converter reads."""

import argparse

import numpy as np
import pytest

from ocp_dc.datasets.commands import add_md17_commands

# about where aspirin's energies are: float32 cannot resolve 0.03 there
ENERGY_OFFSET = -406_737.28
NUMBERS = np.array([8, 1, 1, 6])
GEOMETRY = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0], [7.0, 0.5, 0.3]])


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


@pytest.fixture
def run_command():
    """Runs an ``md17`` command as the command line would."""
    parser = argparse.ArgumentParser()
    add_md17_commands(parser.add_subparsers())

    def run(*words):
        args = parser.parse_args(["md17", *map(str, words)])
        return args.func(args)

    return run
