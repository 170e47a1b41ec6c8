"""What the two sample generators share: Langevin dynamics, work in several processes, continuing a killed run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from tqdm import tqdm

INSTALL = 'install it with: pip install "ocp_dc[sample]"'


class SampleError(Exception):
    """What the user can put right; shown without a traceback."""


def langevin_dynamics(
    atoms: Atoms, temperature: float, timestep: float, friction: float, rng: np.random.Generator
) -> Langevin:
    """Dynamics of ``atoms`` from Maxwell-Boltzmann momenta; temperature in K, timestep in fs, friction in 1/fs."""
    maxwell_boltzmann = np.sqrt(units.kB * temperature * atoms.get_masses())[:, None]
    atoms.set_momenta(maxwell_boltzmann * rng.standard_normal((len(atoms), 3)))
    return Langevin(
        atoms,
        timestep=timestep * units.fs,
        temperature_K=temperature,
        friction=friction / units.fs,
        fixcm=False,
        rng=rng,
    )


def run_tasks(function: Callable[..., None], tasks: Sequence[tuple], jobs: int, bar: tqdm) -> None:
    """Call ``function(*task)`` for every task, in ``jobs`` processes; the first error ends the run."""
    if jobs == 1:
        for task in tasks:
            function(*task)
            bar.update()
        return
    # Read by the workers' OpenMP at start. They are spawned: OpenMP does not survive a fork.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        for done in as_completed([executor.submit(function, *task) for task in tasks]):
            done.result()
            bar.update()
    finally:
        executor.shutdown(cancel_futures=True)


def check_same_settings(folder: Path, earlier: dict, settings: dict) -> None:
    """See that ``settings`` are those of the run that ``folder`` holds, ``earlier``."""
    differing = [f"{key} was {earlier[key]}, is {now}" for key, now in settings.items() if earlier[key] != now]
    if differing:
        raise SampleError(
            f"{folder} holds a run with other settings ({'; '.join(differing)}); "
            "repeat those to continue it, or delete the directory"
        )


def check_absent(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise SampleError(f"{out} exists; --overwrite replaces it")


def check_positive(options: object, *keys: str) -> None:
    for key in keys:
        if getattr(options, key) <= 0:
            raise SampleError(f"--{key.replace('_', '-')} {getattr(options, key)} is not positive")


def option_parser(description: str) -> argparse.ArgumentParser:
    """With the options that both generators have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--friction", type=float, default=0.01, help="Langevin friction, 1/fs")
    parser.add_argument("--seed", type=int, default=0, help="of the dynamics")
    parser.add_argument("--jobs", type=int, default=1, help="processes; their threads share the cores")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def run_script(generate: Callable[[], None]) -> None:
    try:
        generate()
    except SampleError as error:
        raise SystemExit(f"error: {error}") from error
