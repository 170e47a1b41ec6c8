"""Integrators side by side, each as if it were alone, whose forces come from one batch.

An integrator asks for forces in the middle of its step. It runs in a thread of its own that pauses there, until all
others have asked too. One thread runs at a time, in their order, so that nothing depends on timing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.abc import GetPropertiesMixin

Results = Mapping[str, Any]


class Model(Protocol):
    """What forces come from, such as :class:`ocp_dc.calculator.TrainedModel`."""

    def evaluate(self, structures: Sequence[Atoms]) -> list[Results]:
        """``energy`` (eV) and ``forces`` (A, 3) (eV/Å) of each structure."""


class BrokenError(RuntimeError):
    """A trajectory cannot go on; the message says why."""


class _ClosedError(BaseException):
    """Ends a function that is paused; no ``except Exception`` of an integrator may keep it."""


class Pausing:
    """A thread for functions that pause to ask for results."""

    def __init__(self) -> None:
        self._to_thread: SimpleQueue = SimpleQueue()
        self._from_thread: SimpleQueue = SimpleQueue()
        self.asked: Atoms | None = None
        self.error: Exception | None = None
        Thread(target=self._serve, daemon=True).start()

    def start(self, function: Callable[[], None]) -> None:
        """Runs a function until it asks (``asked`` is then of what) or ends (``asked`` is None).

        An exception of it is in ``error``.
        """
        self._resume(function)

    def answer(self, results: Results | Exception) -> None:
        """Goes on with the function that asked; an exception is raised in it."""
        self._resume(results)

    def close(self) -> None:
        """Ends the thread, and in it the function that is paused."""
        self._to_thread.put(None)

    def ask(self, atoms: Atoms) -> Results:
        """Called by the function: pauses until there is an answer."""
        self._from_thread.put((atoms, None))
        answer = self._to_thread.get()
        if answer is None:
            raise _ClosedError
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _resume(self, message: Any) -> None:
        self._to_thread.put(message)
        self.asked, self.error = self._from_thread.get()

    def _serve(self) -> None:
        while (function := self._to_thread.get()) is not None:
            try:
                function()
                self._from_thread.put((None, None))
            except _ClosedError:
                return
            except Exception as error:
                self._from_thread.put((None, error))


class PausingCalculator(GetPropertiesMixin):
    """The ASE calculator of a trajectory, which pauses for its results.

    It knows atoms by their positions, since nothing else of them changes in a simulation.

    Args:
        pausing: the thread that the integrator runs in.
        fixed: atoms on which forces are 0. Integrators of ASE give momenta to those too otherwise, of which the chain
            of thermostats takes account.
    """

    def __init__(self, pausing: Pausing, fixed: np.ndarray) -> None:
        self._pausing = pausing
        self._fixed = fixed
        self._positions: np.ndarray | None = None
        self.energy = 0.0
        self.forces = np.zeros((0, 3))

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        if self._positions is None or not np.array_equal(self._positions, atoms.positions):
            if not np.isfinite(atoms.positions).all():
                raise BrokenError("positions are not finite")
            self.know(atoms, self._pausing.ask(atoms))
        return self.forces.copy() if name == "forces" else self.energy

    def know(self, atoms: Atoms, results: Results) -> None:
        """Takes results for the positions of atoms.

        Raises:
            BrokenError: they are not finite.
        """
        if not (np.isfinite(results["energy"]) and np.isfinite(results["forces"]).all()):
            raise BrokenError("energy or forces are not finite")
        self.energy = float(results["energy"])
        self.forces = np.array(results["forces"], float)
        self.forces[self._fixed] = 0
        self._positions = atoms.positions.copy()


def run_together(functions: Mapping[Pausing, Callable[[], None]], model: Model) -> dict[Pausing, Exception]:
    """Runs functions to their ends, each in its thread, with one batch for all that ask at the same time.

    Returns:
        The exceptions of those that failed; the others are not disturbed.
    """
    for pausing, function in functions.items():
        pausing.start(function)
    while asking := [pausing for pausing in functions if pausing.asked is not None]:
        answers = evaluate_each([pausing.asked for pausing in asking], model)
        for pausing, answer in zip(asking, answers, strict=True):
            pausing.answer(answer)
    return {pausing: pausing.error for pausing in functions if pausing.error is not None}


def evaluate_each(structures: Sequence[Atoms], model: Model) -> Sequence[Results | Exception]:
    """Results of a batch; where it fails, of each structure alone, with an exception for each that is to blame."""
    try:
        return model.evaluate(structures)
    except Exception as error:  # a torn molecule raises anything in a network
        logging.warning(f"a batch failed ({type(error).__name__}: {error}); its structures are tried one by one")
        answers = [_evaluate_alone(atoms, model) for atoms in structures]
        if not any(isinstance(answer, Exception) for answer in answers):
            raise
        return answers


def _evaluate_alone(atoms: Atoms, model: Model) -> Results | Exception:
    try:
        return model.evaluate([atoms])[0]
    except Exception as error:
        return BrokenError(f"the model cannot take it: {type(error).__name__}: {error}")
