"""Independent trajectories of one molecule, made and labelled block by block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.constraints import FixCom

from ocp_dc.datasets.generation.dynamics import draw_momenta, langevin_dynamics
from ocp_dc.datasets.generation.labels import Labels
from ocp_dc.datasets.generation.partial_results import check_positive
from ocp_dc.errors import InputError
from ocp_dc.files import replacing, write_npz


@dataclass(frozen=True)
class Sampling:
    """What conformations are taken.

    Attributes:
        frames: conformations, of all trajectories together.
        temperature: K.
        timestep: fs.
        interval: from one conformation to the next, fs; a whole number of time steps.
        equilibrate: before a trajectory's first interval, fs; the same.
        friction: of the Langevin dynamics, 1/fs.
        trajectories: that start at the same structure with momenta of their own; at most one a frame.
        seed: of momenta and random forces.
    """

    frames: int = 1000
    temperature: float = 500.0
    timestep: float = 0.5
    interval: float = 25.0
    equilibrate: float = 1000.0
    friction: float = 0.01
    trajectories: int = 8
    seed: int = 0

    def check(self) -> None:
        """Raises InputError for what cannot be, named as the command's option."""
        check_positive(self, "frames", "temperature", "timestep", "interval", "friction", "trajectories")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed} is negative")
        if self.equilibrate < 0:
            raise InputError(f"--equilibrate {self.equilibrate} is negative")
        for option in ("interval", "equilibrate"):
            time = getattr(self, option)
            if abs(self._steps(time) * self.timestep - time) > 1e-9:
                raise InputError(f"--{option} {time} is not a whole number of --timestep {self.timestep}")

    @property
    def steps_between_frames(self) -> int:
        return self._steps(self.interval)

    @property
    def steps_of_equilibration(self) -> int:
        return self._steps(self.equilibrate)

    def frames_of_trajectories(self) -> list[int]:
        """Frames of each trajectory, the first ones one longer where they do not come out even."""
        each, rest = divmod(self.frames, min(self.trajectories, self.frames))
        return [each + (index < rest) for index in range(min(self.trajectories, self.frames))]

    def _steps(self, time: float) -> int:
        return round(time / self.timestep)


@dataclass(frozen=True)
class TrajectoryWriter:
    """Writes a trajectory's blocks to files, each from the one before it.

    Nothing but positions, momenta and random numbers goes from block to block, so that a run that was killed and
    continued gives the same conformations as one that was not.

    Attributes:
        atoms: the structure to start from.
        sampling: what to take.
        labels: energy and forces of a conformation, from numbers (A,) and positions (A, 3).
        make_calculator: of the dynamics; called for each block.
        folder: of the files.
    """

    atoms: Atoms
    sampling: Sampling
    labels: Labels
    make_calculator: Callable[[], Calculator]
    folder: Path

    def blocks(self, trajectory: int) -> list[int]:
        """Frames of each block of a trajectory."""
        frames = self.sampling.frames_of_trajectories()[trajectory]
        size = self.labels.block_frames
        return [min(size, frames - start) for start in range(0, frames, size)]

    def path(self, trajectory: int, block: int) -> Path:
        """The block's file: R, E and F of its frames, momenta and the random generator's state at its end."""
        return self.folder / f"trajectory_{trajectory}_block_{block}.npz"

    def missing(self, trajectory: int) -> Iterator[tuple[int, int, int]]:
        """Arguments of :meth:`write` for the blocks that are not there, in order."""
        for block, frames in enumerate(self.blocks(trajectory)):
            if not self.path(trajectory, block).exists():
                yield trajectory, block, frames

    def write(self, trajectory: int, block: int, frames: int) -> None:
        """Makes and labels a block of so many frames; the one before it must be there.

        Raises:
            InputError: the self-consistent field of a conformation does not converge.
        """
        atoms, rng = self._start(trajectory) if block == 0 else self._continue(trajectory, block - 1)
        try:
            positions = self._run(atoms, rng, self.sampling.steps_of_equilibration if block == 0 else 0, frames)
            labels = [self.labels(atoms.numbers, frame) for frame in positions]
        except (InputError, CalculationFailed) as error:
            raise InputError(
                f"trajectory {trajectory}, block {block}: {error}. If its geometry is distorted, delete {self.folder} "
                "and use a lower --temperature, a smaller --timestep or another --seed"
            ) from error
        energies, forces = zip(*labels, strict=True)
        arrays = {"R": positions, "E": np.array(energies), "F": np.array(forces), "momenta": atoms.get_momenta()}
        save_npz(self.path(trajectory, block), random=json.dumps(rng.bit_generator.state), **arrays)

    def _start(self, trajectory: int) -> tuple[Atoms, np.random.Generator]:
        atoms = self.atoms.copy()
        atoms.set_constraint(FixCom())
        rng = np.random.default_rng([self.sampling.seed, trajectory])
        draw_momenta(atoms, self.sampling.temperature, rng)
        return atoms, rng

    def _continue(self, trajectory: int, block: int) -> tuple[Atoms, np.random.Generator]:
        atoms, rng = self.atoms.copy(), np.random.default_rng()
        with np.load(self.path(trajectory, block)) as last:
            atoms.positions = last["R"][-1]
            atoms.set_momenta(last["momenta"])
            rng.bit_generator.state = json.loads(str(last["random"]))
        atoms.set_constraint(FixCom())
        return atoms, rng

    def _run(self, atoms: Atoms, rng: np.random.Generator, first_steps: int, frames: int) -> np.ndarray:
        """Positions (frames, A, 3), Å, after these steps and an interval each."""
        sampling = self.sampling
        atoms.calc = self.make_calculator()
        dynamics = langevin_dynamics(atoms, sampling.temperature, sampling.timestep, sampling.friction, rng)
        dynamics.run(first_steps)
        positions = np.empty((frames, len(atoms), 3))
        for frame in positions:
            dynamics.run(sampling.steps_between_frames)
            frame[:] = atoms.positions
        return positions


def save_npz(path: Path, **arrays: object) -> None:
    """Whatever kills the run, ``path`` is absent or whole."""
    with replacing(path) as partial:
        write_npz(partial, **arrays)
