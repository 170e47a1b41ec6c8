"""From a molecule to a file of labelled conformations in MD17's keys and units."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from tqdm import tqdm

from ocp_dc.datasets.generation.all_electron import SOURCE, all_electron_shift
from ocp_dc.datasets.generation.autocorrelation import autocorrelation_time, independent_count
from ocp_dc.datasets.generation.labels import DftLabels, Labels, gfn2_calculator
from ocp_dc.datasets.generation.molecules import check_electrons
from ocp_dc.datasets.generation.partial_results import check_absent, partial_results
from ocp_dc.datasets.generation.processes import Workers
from ocp_dc.datasets.generation.trajectories import Sampling, TrajectoryWriter, save_npz
from ocp_dc.errors import InputError


@dataclass(frozen=True)
class Generated:
    """What was written.

    Attributes:
        frames: conformations.
        energy_shift: added to the method's energies, kcal/mol.
        autocorrelation_frames: integrated autocorrelation time of the energies, in frames, at least 1.
        autocorrelation_fs: the same in fs, at least the interval.
    """

    frames: int
    energy_shift: float
    autocorrelation_frames: float
    autocorrelation_fs: float

    def __str__(self) -> str:
        """For the terminal."""
        independent = independent_count(self.frames, self.autocorrelation_frames)
        shift = f"energies shifted by {self.energy_shift:,.4f} kcal/mol to an all-electron magnitude\n"
        return (
            f"{self.frames:,} conformations\n"
            f"{shift if self.energy_shift else ''}"
            f"autocorrelation time of the energies: {self.autocorrelation_fs:,.0f} fs "
            f"({self.autocorrelation_frames:.1f} conformations): worth about {independent:,} independent conformations"
        )


def generate(
    atoms: Atoms,
    name: str,
    out: str | Path,
    sampling: Sampling,
    labels: Labels,
    shift_energies: bool,
    jobs: int = 1,
    overwrite: bool = False,
    show_progress: bool = False,
    make_calculator: Callable[[], Calculator] | None = None,
) -> Generated:
    """Writes conformations of Langevin dynamics with their energies and forces.

    What is finished is kept in ``OUT.partial`` until the file is written; the same call goes on from there after a
    kill. The file does not depend on ``jobs``, nor on being continued, where processes have one OpenMP thread each.

    ``out`` has E (N, 1) kcal/mol, F (N, A, 3) kcal/mol/Å (float32), R (N, A, 3) Å, z (A,), trajectory (N,), and what
    MD17 says in words: name, theory, r_unit, e_unit, type. Frames stand in order of time, trajectory by trajectory.
    energy_shift (kcal/mol, with energy_shift_source) is part of E; interval_fs and energy_autocorrelation_fs say how
    far frames are apart and for how long energies remember.

    Args:
        atoms: to start from.
        name: of the molecule, for the file.
        out: the npz file.
        sampling: which conformations.
        labels: their energies and forces.
        shift_energies: by :func:`~ocp_dc.datasets.generation.all_electron.all_electron_shift`; GFN2-xTB only.
        jobs: processes; 0: this one, see :class:`~ocp_dc.datasets.generation.processes.Workers`.
        overwrite: replace an earlier file.
        show_progress: show a progress bar.
        make_calculator: of the dynamics, picklable; GFN2-xTB if None.

    Raises:
        InputError: the output exists, or the molecule, the settings, a self-consistent field or a missing package stand
            in the way.
    """
    out = Path(out)
    check_absent(out, overwrite)
    sampling.check()
    check_electrons(atoms, labels.charge, labels.spin)
    if jobs < 0:
        raise InputError(f"--jobs {jobs} is negative")
    if shift_energies and isinstance(labels, DftLabels):
        raise InputError("--all-electron-shift: DFT energies are of all electrons already; leave it out")
    make_calculator = make_calculator or partial(gfn2_calculator, labels.charge, labels.spin)
    with Workers(jobs) as workers:
        shift = workers.call(_try_out, atoms, labels, make_calculator, shift_energies)
        with partial_results(out, _settings(atoms, sampling, labels)) as folder:
            writer = TrajectoryWriter(atoms, sampling, labels, make_calculator, folder)
            _write_blocks(writer, workers, show_progress)
            generated = _assemble(writer, name, out, shift)
            shutil.rmtree(folder)
    return generated


def _try_out(atoms: Atoms, labels: Labels, make_calculator: Callable[[], Calculator], shift_energies: bool) -> float:
    """The energies' shift; what is missing or misspelt fails here, before anything is written."""
    make_calculator()
    labels(atoms.numbers, atoms.positions)
    return all_electron_shift(atoms.numbers, labels.atom_energy) if shift_energies else 0.0


def _settings(atoms: Atoms, sampling: Sampling, labels: Labels) -> dict:
    structure = hashlib.sha256(atoms.numbers.tobytes() + atoms.positions.tobytes()).hexdigest()[:12]
    return {"structure": structure, "labels": labels.kind, **asdict(sampling), **asdict(labels)}


def _write_blocks(writer: TrajectoryWriter, workers: Workers, show_progress: bool) -> None:
    trajectories = range(len(writer.sampling.frames_of_trajectories()))
    missing = [list(writer.missing(trajectory)) for trajectory in trajectories]
    total = writer.sampling.frames
    there = total - sum(frames for chain in missing for _, _, frames in chain)
    with tqdm(total=total, initial=there, desc="conformations", unit="", disable=not show_progress) as bar:
        workers.run_chains(writer.write, missing, lambda trajectory, block, frames: bar.update(frames))


def _assemble(writer: TrajectoryWriter, name: str, out: Path, shift: float) -> Generated:
    parts, trajectory_of = [], []
    for trajectory, frames in enumerate(writer.sampling.frames_of_trajectories()):
        for block in range(len(writer.blocks(trajectory))):
            with np.load(writer.path(trajectory, block)) as file:
                parts.append({key: file[key] for key in "REF"})
        trajectory_of.append(np.full(frames, trajectory, dtype=np.int32))
    positions, energies, forces = (np.concatenate([part[key] for part in parts]) for key in "REF")
    ends = np.cumsum([len(numbers) for numbers in trajectory_of])[:-1]
    memory = autocorrelation_time(np.split(energies, ends))
    interval = writer.sampling.interval
    save_npz(
        out,
        E=(energies + shift)[:, None],
        F=forces.astype(np.float32),
        R=positions,
        z=writer.atoms.numbers.astype(np.uint8),
        trajectory=np.concatenate(trajectory_of),
        name=name,
        theory=_theory(writer, shift),
        r_unit="Ang",
        e_unit="kcal/mol",
        type="d",
        interval_fs=interval,
        energy_autocorrelation_fs=memory * interval,
        energy_shift=shift,
        energy_shift_source=SOURCE if shift else "none",
    )
    return Generated(len(energies), shift, memory, memory * interval)


def _theory(writer: TrajectoryWriter, shift: float) -> str:
    shifted = f"; energies shifted by {shift:.6f} kcal/mol to an all-electron magnitude" if shift else ""
    geometries = f"{writer.sampling.temperature:g} K GFN2-xTB Langevin MD"
    return f"{writer.labels.method}{shifted}; geometries: {geometries}"
