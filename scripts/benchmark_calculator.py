#!/usr/bin/env python
"""Time molecular dynamics with trained models: this package's ASE calculator against fairchem's `OCPCalculator`.

    python scripts/benchmark_calculator.py
    python scripts/benchmark_calculator.py --models schnet --atoms 9 60 --slabs 1 --steps 50

For each model and structure it prints a row of a Markdown table with the steps a second of ASE's velocity Verlet: of
ethanol (9 atoms), of made-up molecules of other sizes (a random chain of carbon and hydrogen) and of a slab of the
embedded oxide sample, 15 atoms, repeated along its surface. Weights are random and the same on both sides, activations
original, which is what fairchem has; CGCNN and ForceNet, which it has not, are timed alone.

The sides take turns in this process, --steps steps each, --repeats times after one that is not counted, in which ours
traces what it traces. On one thread seconds are those of the processor, so that other work on the machine counts
little. The ratio is that of the medians; in brackets, its range over the repeats. "forces" is the largest difference
between the sides' forces at the start, of the largest force.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import ase.units
import numpy as np
import torch
from ase import Atoms
from ase.md.verlet import VelocityVerlet
from benchmark_sides import MODELS, add_options, check_options, clock, machine, ratio, trainers_of, write_molecule
from fairchem.core.common.relaxation.ase_utils import OCPCalculator

from ocp_dc.calculator import load
from ocp_dc.datasets.ase_files import open_frames
from ocp_dc.datasets.molecule_files import open_trajectory
from ocp_dc.datasets.samples import oxide_sample_path, sample_path
from ocp_dc.units import energy_factor

HEADER = ["model", "structure", "atoms", "ours, steps/s", "stock, steps/s", "stock / ours (range)", "forces"]
# beside the small widths of the other benchmarks
WIDTHS = {"schnet": {"hidden_channels": 128, "num_filters": 128, "num_interactions": 3, "num_gaussians": 50}}
ETHANOL = 9
# of 300 K, and half a femtosecond
TEMPERATURE, TIMESTEP = 300 * ase.units.kB, 0.5 * ase.units.fs


def molecule(atoms: int, folder: Path) -> Atoms:
    path = sample_path()
    if atoms != ETHANOL:
        path = folder / f"{atoms}.npz"
        write_molecule(path, atoms, 1)
    trajectory = open_trajectory(path, "kcal/mol")
    return Atoms(trajectory.atomic_numbers, next(trajectory.blocks()).positions[0])


def slab(repeats: int) -> Atoms:
    atoms = open_frames(oxide_sample_path()).read(0).repeat((repeats, repeats, 1))
    atoms.calc, atoms.constraints = None, []
    return atoms


@contextlib.contextmanager
def calculators(options: argparse.Namespace, model: str, folder: Path, *overrides: str) -> Iterator[dict[str, object]]:
    """``ours`` and, where fairchem has the model, ``stock``, with the same weights."""
    if options.width == "small":
        overrides = (*(f"--model.{key}={value}" for key, value in WIDTHS.get(model, {}).items()), *overrides)
    sizes = {"train": 20, "val": 1, "test": 1}
    with trainers_of(["ours", "stock"], options, model, sample_path(), sizes, folder, *overrides) as trainers:
        weights = trainers["ours"]._unwrapped_model.state_dict()
        for name, values in weights.items():
            # DimeNet++ starts with zeros, and without forces
            if name.endswith("weight") and not values.any():
                values.normal_(std=0.1)
        if "stock" in trainers:
            trainers["stock"]._unwrapped_model.load_state_dict(weights)
        saved = {side: trainer.save(checkpoint_file="random.pt") for side, trainer in trainers.items()}
        device = "cuda" if options.gpu else "cpu"
        # fairchem's prints its whole config
        with contextlib.redirect_stdout(io.StringIO()):
            both = {"ours": load(saved["ours"], device, energy_unit="kcal/mol", any_element=True)}
            if "stock" in saved:
                both["stock"] = OCPCalculator(checkpoint_path=saved["stock"], trainer="ocp", cpu=not options.gpu)
        yield both


def seconds_of_dynamics(start: Atoms, calculator, steps: int, now: Callable[[], float]) -> float:
    atoms = start.copy()
    spread = np.sqrt(atoms.get_masses() * TEMPERATURE)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    atoms.calc = calculator
    began = now()
    VelocityVerlet(atoms, TIMESTEP).run(steps)
    return now() - began


def row(options: argparse.Namespace, name: list[str], start: Atoms, sides: dict[str, object]) -> list[str]:
    seconds = {side: [] for side in sides}
    for repeat in range(options.repeats + 1):
        for side, calculator in sides.items():
            torch.set_flush_denormal(side == "ours")
            # fairchem's needs no warming up
            steps = max(options.steps, 25) if not repeat and side == "ours" else options.steps
            taken = seconds_of_dynamics(start, calculator, steps, clock(options))
            if repeat:
                seconds[side].append(taken)
    each = {side: f"{options.steps / statistics.median(taken):,.0f}" for side, taken in seconds.items()}
    if "stock" not in sides:
        return [*name, str(len(start)), each["ours"], "", "", ""]
    compared = ratio(seconds["ours"], seconds["stock"])
    return [*name, str(len(start)), each["ours"], each["stock"], compared, f"{difference(start, sides):.0e}"]


def difference(start: Atoms, sides: dict[str, object]) -> float:
    forces = {}
    for side, calculator in sides.items():
        atoms = start.copy()
        atoms.calc = calculator
        forces[side] = atoms.get_forces()
    # fairchem's gives ASE the model's kcal/mol
    stock = forces["stock"] * energy_factor("kcal/mol", "eV")
    return abs(forces["ours"] - stock).max() / abs(stock).max()


def rows(options: argparse.Namespace, model: str, folder: Path) -> Iterator[list[str]]:
    with calculators(options, model, folder / "molecules") as sides:
        for atoms in options.atoms:
            yield row(options, [model, "molecule"], molecule(atoms, folder), sides)
    if options.slabs:
        with calculators(options, model, folder / "slabs", "--model.use_pbc=true") as sides:
            for repeats in options.slabs:
                yield row(options, [model, "slab"], slab(repeats), sides)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="default: all")
    add_options(parser)
    parser.set_defaults(activation="original")
    parser.add_argument("--atoms", nargs="+", type=int, default=[9, 21, 60, 200], help="of molecules (9 21 60 200)")
    parser.add_argument("--slabs", nargs="*", type=int, default=[1, 2], help="repeats along the surface (1 2)")
    parser.add_argument("--steps", type=int, default=20, help="default 20")
    parser.add_argument("--repeats", type=int, default=5, help="default 5")
    options = parser.parse_args(arguments)
    check_options(parser, options, options.models)

    logging.disable()
    print(f"{options.width} width, {options.activation}, {options.steps} steps; {machine(options)}\n")
    print(f"{markdown(HEADER)}\n{'|---' * len(HEADER)}|")
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            for cells in rows(options, model, Path(folder)):
                print(markdown(cells), flush=True)


def markdown(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
