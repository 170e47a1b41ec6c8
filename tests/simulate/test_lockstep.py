"""Functions that ask for results side by side."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from ocp_dc.simulate.lockstep import BrokenError, Pausing, PausingCalculator, run_together


class Heights:
    """The energy of an atom is its height; an atom below the ground cannot be had."""

    def __init__(self) -> None:
        self.batches = []

    def evaluate(self, structures):
        self.batches.append([atoms.positions[0, 2] for atoms in structures])
        if min(self.batches[-1]) < 0:
            raise ValueError("below the ground")
        return [{"energy": height, "forces": np.zeros((1, 3))} for height in self.batches[-1]]


@pytest.fixture
def pausings():
    made = [Pausing() for _ in range(3)]
    yield made
    for pausing in made:
        pausing.close()


def climb(pausing: Pausing, heights: list[float], seen: list[float]):
    def function() -> None:
        for height in heights:
            seen.append(pausing.ask(Atoms("H", [[0, 0, height]]))["energy"])

    return function


def test_those_that_ask_are_one_batch_and_get_their_own(pausings):
    model, seen = Heights(), [[], [], []]
    heights = ([1, 2], [3], [4, 5, 6])
    functions = {p: climb(p, h, s) for p, h, s in zip(pausings, heights, seen, strict=True)}
    assert run_together(functions, model) == {}
    assert model.batches == [[1, 3, 4], [2, 5], [6]]
    assert tuple(seen) == heights


def test_one_that_fails_disturbs_no_other(pausings):
    model, seen = Heights(), [[], []]

    def fail():
        pausings[1].ask(Atoms("H"))
        raise RuntimeError("broken")

    functions = {pausings[0]: climb(pausings[0], [1, 2], seen[0]), pausings[1]: fail}
    functions[pausings[2]] = climb(pausings[2], [3, 4], seen[1])
    failed = run_together(functions, model)
    assert list(failed) == [pausings[1]]
    assert seen == [[1, 2], [3, 4]]
    # threads are there for the next functions
    assert run_together({pausings[1]: climb(pausings[1], [5], seen[0])}, model) == {}


def test_what_the_model_cannot_take_is_sorted_out(pausings):
    model, seen = Heights(), [[], [], []]
    functions = {p: climb(p, h, s) for p, h, s in zip(pausings, ([1, 2], [-1], [3, 4]), seen, strict=True)}
    failed = run_together(functions, model)
    assert "below the ground" in str(failed[pausings[1]])
    assert seen == [[1, 2], [], [3, 4]]


def test_a_fault_of_the_batch_is_raised(pausings):
    class Broken(Heights):
        def evaluate(self, structures):
            if len(structures) > 1:
                raise MemoryError("no memory")
            return super().evaluate(structures)

    with pytest.raises(MemoryError):
        run_together({p: climb(p, [1], []) for p in pausings}, Broken())


def test_what_is_not_finite_breaks(pausings):
    calculator = PausingCalculator(pausings[0], np.array([], int))
    atoms = Atoms("H")
    for energy, force in ((np.nan, 0.0), (0.0, np.inf)):
        with pytest.raises(BrokenError, match="not finite"):
            calculator.know(atoms, {"energy": energy, "forces": np.full((1, 3), force)})
    atoms.positions[0, 0] = np.nan
    with pytest.raises(BrokenError, match="positions are not finite"):
        calculator.get_forces(atoms)


def test_fixed_atoms_have_no_force_and_a_known_geometry_is_not_asked_for_again(pausings):
    calculator = PausingCalculator(pausings[0], np.array([1]))
    atoms = Atoms("HH", [[0, 0, 0], [0, 0, 1]])
    calculator.know(atoms, {"energy": 1.0, "forces": np.ones((2, 3))})
    assert calculator.get_potential_energy(atoms) == 1.0
    assert calculator.get_forces(atoms).tolist() == [[1, 1, 1], [0, 0, 0]]
