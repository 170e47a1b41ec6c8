"""Replicas of a simulation, step by step in one batch, from their start or from where they were."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase import Atoms
from tqdm import tqdm

import ocp_dc
from ocp_dc.datasets.manifest import sha256_of
from ocp_dc.errors import InputError
from ocp_dc.simulate.dynamics import (
    build_dynamics,
    degrees_of_freedom,
    fixed_atoms,
    restore_thermostat,
    start_momenta,
    temperature,
    thermostat_state,
)
from ocp_dc.simulate.folder import (
    UNITS,
    TrajectoryWriter,
    atoms_from_json,
    atoms_to_json,
    claim,
    locked,
    trajectory_path,
    write_state,
)
from ocp_dc.simulate.lockstep import BrokenError, Model, Pausing, PausingCalculator, Results, run_together
from ocp_dc.simulate.settings import FS_PER_PS, Settings
from ocp_dc.trainers.traced_prediction import CALLS_BEFORE_TRACING

SECONDS_BETWEEN_STATES = 10
# a molecule that is this hot, or ten times as hot as it ought to be, is no molecule any more
HOTTEST_K = 10_000
HOTTEST_TIMES = 10
# of atoms in structures that stand for those of the simulation, in Å
DISPLACEMENT = 0.05


class Replica:
    """One trajectory: atoms, their integrator, and where it writes.

    Args:
        number: from 0.
        atoms: with momenta.
        settings: of the simulation.
        rng: of its noise.
    """

    def __init__(self, number: int, atoms: Atoms, settings: Settings, rng: np.random.Generator) -> None:
        self.number = number
        self.atoms = atoms
        self.rng = rng
        self.ended: dict[str, Any] | None = None
        self.writer: TrajectoryWriter | None = None
        self.pausing = Pausing()
        self.calculator = PausingCalculator(self.pausing, fixed_atoms(atoms))
        atoms.calc = self.calculator
        self.freedom = degrees_of_freedom(atoms, settings)
        self.dynamics = build_dynamics(atoms, settings, rng)
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._hottest = max(HOTTEST_K, HOTTEST_TIMES * settings.temperature_K)

    @classmethod
    def started(cls, number: int, atoms: Atoms, settings: Settings) -> Replica:
        """With random momenta, which depend on the seed and the number alone."""
        rng = np.random.default_rng([settings.seed, number])
        atoms = atoms.copy()
        atoms.info = {}
        start_momenta(atoms, settings.temperature_K, rng)
        return cls(number, atoms, settings, rng)

    @classmethod
    def restored(cls, number: int, state: Mapping[str, Any], settings: Settings, step: int) -> Replica:
        """As it was, to the last bit."""
        rng = np.random.default_rng()
        rng.bit_generator.state = state["rng"]
        replica = cls(number, atoms_from_json(state["atoms"]), settings, rng)
        replica.ended = state["ended"]
        replica.dynamics.nsteps = step
        restore_thermostat(replica.dynamics, state["thermostat"])
        if replica.ended is None:
            replica.calculator.know(replica.atoms, state["results"])
        return replica

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "bytes": self.writer.size(),
            "ended": self.ended,
            "atoms": atoms_to_json(self.atoms),
            "results": {"energy": self.calculator.energy, "forces": self.calculator.forces.tolist()},
            "thermostat": thermostat_state(self.dynamics),
            "rng": self.rng.bit_generator.state,
        }

    def advance(self) -> None:
        """One step.

        Raises:
            BrokenError: the atoms are no longer what they were.
        """
        self._before = self.atoms.positions.copy(), self.atoms.get_momenta()
        self.dynamics.run(1)
        reached = self.temperature()
        if not reached < self._hottest:
            raise BrokenError(f"{reached:,.0f} K")

    def temperature(self) -> float:
        """In K."""
        return temperature(self.atoms, self.freedom)

    def end(self, step: int, time_fs: float, reason: Exception) -> None:
        """It broke in this step, and stays as it was before."""
        self.ended = {"step": step, "time_fs": time_fs, "reason": str(reason)}
        self.atoms.positions[:], self.atoms.arrays["momenta"][:] = self._before

    def write_frame(self, step: int, time_fs: float) -> None:
        self.writer.write(self.atoms, self.calculator.energy, self.calculator.forces, step, time_fs)


def simulate(
    model: Model,
    structures: Sequence[Atoms],
    settings: Settings,
    folder: Path,
    origin: Mapping[str, Any],
    show_progress: bool = True,
) -> list[dict[str, Any] | None]:
    """Simulates replicas, or goes on with those of a folder where they were.

    A trajectory that goes on is the one that was never stopped; on the CPU, bit for bit. Replicas whose numbers are not
    finite, or that are beyond 10,000 K, end, and the others go on.

    Args:
        model: its results are asked for in batches of all replicas.
        structures: of which random ones are started from, as many as there are replicas.
        settings: those of a folder may differ from them in ``length_ps`` alone.
        folder: to write to, see :mod:`ocp_dc.simulate.folder`.
        origin: what else a simulation is known by: ``checkpoint``, its ``checkpoint_sha256``, ``start``.

    Returns:
        For each replica None, or how it ended: ``step``, ``time_fs`` and ``reason``.

    Raises:
        InputError: settings that do not fit the folder, or structures that do not fit the model.
    """
    with locked(folder):
        state = claim(folder, _description(settings, origin))
        if state is None:
            step, seconds, replicas = 0, 0.0, _started(structures, settings)
        else:
            step, seconds = state["step"], state["seconds"]
            replicas = [Replica.restored(n, own, settings, step) for n, own in enumerate(state["replicas"])]
            if step > settings.steps:
                raise InputError(f"{folder} has {settings.time_fs(step) / FS_PER_PS:g} ps already; give no less")
        for replica in replicas:
            size = state["replicas"][replica.number]["bytes"] if state else 0
            replica.writer = TrajectoryWriter(trajectory_path(folder, replica.number), size)
        try:
            if state is None:
                _begin(model, replicas, folder)
            elif step < settings.steps and (living := _living(replicas)):
                _prepare(model, living)
            _run(model, replicas, settings, folder, step, seconds, show_progress)
        finally:
            for replica in replicas:
                replica.writer.close()
                replica.pausing.close()
    return [replica.ended for replica in replicas]


def _description(settings: Settings, origin: Mapping[str, Any]) -> dict[str, Any]:
    identity = {**vars(settings), **origin}
    # a checkpoint is known by what is in it, and a simulation can be made longer
    others = {name: identity.pop(name) for name in ("length_ps", "checkpoint") if name in identity}
    return {
        "identity": identity,
        **others,
        "versions": {"ocp_dc": ocp_dc.__version__, "ase": ase.__version__, "torch": torch.__version__},
        "units": UNITS,
    }


def _started(structures: Sequence[Atoms], settings: Settings) -> list[Replica]:
    rows = np.random.default_rng(settings.seed).permutation(len(structures))
    return [
        Replica.started(number, structures[int(rows[number % len(rows)])], settings)
        for number in range(settings.replicas)
    ]


def _living(replicas: Sequence[Replica]) -> list[Replica]:
    return [replica for replica in replicas if replica.ended is None]


def _begin(model: Model, replicas: Sequence[Replica], folder: Path) -> None:
    """The frames and the state of step 0."""
    for replica, results in zip(replicas, _prepare(model, replicas), strict=True):
        replica.calculator.know(replica.atoms, results)
        replica.write_frame(0, 0.0)
    _save(folder, replicas, step=0, seconds=0.0)


def _run(
    model: Model,
    replicas: Sequence[Replica],
    settings: Settings,
    folder: Path,
    step: int,
    seconds: float,
    show_progress: bool,
) -> None:
    living = _living(replicas)
    saved = resumed = time.monotonic()
    with _Progress(settings, step, show_progress) as progress:
        while step < settings.steps and living:
            failed = run_together({replica.pausing: replica.advance for replica in living}, model)
            step += 1
            if failed:
                for replica in living:
                    if error := failed.get(replica.pausing):
                        replica.end(step, settings.time_fs(step), _broken(error))
                        progress.say(f"replica {replica.number} ended at {settings.time_fs(step):g} fs: {error}")
                living = _living(living)
                if living:
                    _prepare(model, living)
            if step % settings.steps_per_frame == 0:
                for replica in living:
                    replica.write_frame(step, settings.time_fs(step))
                now = time.monotonic()
                progress.show(step, now - resumed, living)
                if now - saved >= SECONDS_BETWEEN_STATES:
                    _save(folder, replicas, step, seconds + now - resumed)
                    saved = now
    _save(folder, replicas, step, seconds + time.monotonic() - resumed)


def _prepare(model: Model, replicas: Sequence[Replica]) -> Sequence[Results]:
    """Asks a model so often for a batch that a molecule's is traced: its later results are all computed alike.

    Otherwise a simulation that goes on would begin with results of the network itself, which differ in the last digit.
    """
    structures = [replica.atoms for replica in replicas]
    if not any(atoms.pbc.any() for atoms in structures):
        moved = [atoms.copy() for atoms in structures]
        for number, atoms in enumerate(moved):
            # a trace is compared with the network by its forces, of which a minimum has none
            atoms.rattle(DISPLACEMENT, seed=number)
        for _ in range(CALLS_BEFORE_TRACING):
            model.evaluate(moved)
    return model.evaluate(structures)


def _broken(error: Exception) -> BrokenError:
    """An error that is no fault of the atoms is raised."""
    if not isinstance(error, BrokenError):
        raise error
    return error


def _save(folder: Path, replicas: Sequence[Replica], step: int, seconds: float) -> None:
    write_state(folder, {"step": step, "seconds": seconds, "replicas": [replica.state() for replica in replicas]})


class _Progress:
    """A bar: ps done, steps a second, temperature."""

    def __init__(self, settings: Settings, step: int, shown: bool) -> None:
        self._settings = settings
        self._first = step
        self._bar = tqdm(
            total=settings.length_ps,
            initial=settings.time_fs(step) / FS_PER_PS,
            disable=not shown,
            desc=settings.ensemble.upper(),
            mininterval=0.5,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.3g}/{total:g} ps [{elapsed}<{remaining}{postfix}]",
        )

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def show(self, step: int, seconds: float, living: Sequence[Replica]) -> None:
        if self._bar.disable or not living:
            return
        mean = np.mean([replica.temperature() for replica in living])
        rate = (step - self._first) / seconds
        self._bar.set_postfix_str(f"{rate:,.0f} steps/s, {mean:.0f} K, {len(living)} replicas", refresh=False)
        self._bar.update(self._settings.time_fs(step) / FS_PER_PS - self._bar.n)

    def say(self, message: str) -> None:
        tqdm.write(message)


def origin_of(checkpoint: Path, start: str) -> dict[str, str]:
    """What :func:`simulate` keeps of where a model and its structures come from."""
    return {"checkpoint": str(checkpoint), "checkpoint_sha256": sha256_of(checkpoint), "start": start}
