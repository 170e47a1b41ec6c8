#!/usr/bin/env python
"""Make the sample of thin oxide slabs with an adsorbate: periodic cells, fixed atoms and tags as OC22 has them.

Geometries and labels come from GFN1-xTB at the Γ point (tblite), along Langevin dynamics (ASE) that start at the
bulk-terminated slab and are heated. Hydrogen has the mass of tritium, for a longer time step:

    pip install "ocp_dc[sample]"
    python scripts/generate_sample_oxides.py oxide_slabs_gfn1.traj

A semi-empirical method at the Γ point of a small cell gives a smooth and self-consistent energy surface to train on,
not a good description of these surfaces. Energies, eV, are GFN1-xTB's own total energies, of valence electrons only:
hundreds of eV below zero. Forces, eV/Å, are their negative gradient on every atom, fixed atoms included.

``atoms.info`` has "system" and "temperature", the heat bath's in K; frames of a system are in order of time. Repeat a
killed command to continue it: OUT.partial keeps every system that is complete.
"""

from __future__ import annotations

import argparse
import shutil
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule, surface
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.trajectory import TrajectoryWriter
from ase.spacegroup import crystal
from tqdm import tqdm

from ocp_dc.datasets.generation.dynamics import draw_momenta, langevin_dynamics
from ocp_dc.datasets.generation.install import tblite_remedy
from ocp_dc.datasets.generation.partial_results import check_absent, check_positive, partial_results
from ocp_dc.datasets.generation.processes import Workers, cores, limit_threads
from ocp_dc.errors import InputError

METHOD = "GFN1-xTB at the Γ point (tblite), electronic temperature 300 K"
BULK, SURFACE, ADSORBATE = 0, 1, 2  # the tags of OC20 and OC22
VACUUM = 16.0  # Å above the slab, so that 10 Å remain above the adsorbate
TRITIUM = 3.016  # u; configurations at equilibrium do not depend on the mass
ACCURACY = 0.01  # tblite's; forces then agree with finite differences of the energy to 2e-4 eV/Å
SCF_CYCLES = 500
CLOSEST = 0.7  # Å, less than any bond here
ADSORBED = 4.0  # Å from the adsorbate to the slab, atom to atom


def rocksalt(a: float, metal: str) -> Atoms:
    return crystal([metal, "O"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[a, a, a, 90, 90, 90])


def mixed_rocksalt(a: float, metal: str, other: str) -> Atoms:
    """Planes of either metal alternate along b, so that a (001) layer has both."""
    cell = rocksalt(a, metal)
    cell.symbols[(cell.symbols == metal) & (cell.positions[:, 1] > a / 4)] = other
    return cell


def wurtzite(a: float, c: float, u: float, metal: str) -> Atoms:
    sites = [(1 / 3, 2 / 3, 0), (1 / 3, 2 / 3, u)]
    return crystal([metal, "O"], sites, spacegroup=186, cellpar=[a, a, c, 90, 90, 120])


def rutile(a: float, c: float, u: float, metal: str) -> Atoms:
    return crystal([metal, "O"], [(0, 0, 0), (u, u, 0)], spacegroup=136, cellpar=[a, a, c, 90, 90, 90])


@dataclass(frozen=True)
class Slab:
    """Atoms of ``bulk`` from ``bottom`` up to ``top`` along the surface normal; fixed below ``free``, all in Å."""

    bulk: Atoms
    miller: tuple[int, int, int]
    bottom: float
    top: float
    free: float
    repeat: tuple[int, int, int] = (1, 1, 1)

    def build(self) -> Atoms:
        layers = surface(self.bulk, self.miller, 5, periodic=True)
        height = layers.positions[:, 2]
        slab = layers[(height > self.bottom) & (height < self.top)] * self.repeat
        height = slab.positions[:, 2]
        slab.set_tags(np.where(height < self.free, BULK, SURFACE))
        slab.positions[:, 2] -= height.min()
        slab.cell[2, 2] = height.max() - height.min() + VACUUM
        slab.pbc = True
        slab.info.clear()
        return slab


# Lattice constants from experiment; MgZnO2 is between rocksalt MgO and rocksalt ZnO.
# Stable terminations: ZnO in dimers, TiO2 with bridging oxygen on both faces.
SLABS = {
    "MgO001": Slab(rocksalt(4.21, "Mg"), (0, 0, 1), bottom=-0.1, top=5.0, free=1.0),
    "MgZnO2001": Slab(mixed_rocksalt(4.25, "Mg", "Zn"), (0, 0, 1), bottom=-0.1, top=5.0, free=1.0),
    "ZnO1010": Slab(wurtzite(3.25, 5.207, 0.3825, "Zn"), (1, 0, 0), bottom=0.0, top=5.0, free=2.5, repeat=(2, 1, 1)),
    "TiO2110": Slab(rutile(4.594, 2.959, 0.305, "Ti"), (1, 1, 0), bottom=1.9, top=8.0, free=3.5),
}
# The binding atom, and its height over the metal in Å.
ADSORBATES = {"H2O": ("O", 2.2), "CO": ("C", 2.3), "O": ("O", 1.9)}
SYSTEMS = [
    "MgO001_H2O",
    "MgO001_O",
    "ZnO1010_H2O",
    "ZnO1010_CO",
    "TiO2110_H2O",
    "TiO2110_CO",
    "MgZnO2001_H2O",
    "MgZnO2001_O",
]


def build_system(name: str) -> Atoms:
    """The bulk-terminated slab, and the adsorbate upright over its highest metal atom."""
    slab, _, adsorbate = name.partition("_")
    if slab not in SLABS or adsorbate not in ADSORBATES:
        raise InputError(f"--systems {name}: not one of {{{','.join(SLABS)}}}_{{{','.join(ADSORBATES)}}}")
    binding, height = ADSORBATES[adsorbate]
    atoms, upright = SLABS[slab].build(), molecule(adsorbate)
    metal = max(np.flatnonzero(atoms.numbers != 8), key=lambda index: atoms.positions[index, 2].round(3))
    upright.positions -= upright.positions[upright.symbols == binding]
    upright.positions[:, 2] = np.abs(upright.positions[:, 2])
    upright.positions += atoms.positions[metal] + [0, 0, height]
    upright.set_tags(ADSORBATE)
    upright.set_initial_magnetic_moments(None)  # tblite would take the free atom's unpaired electrons from them
    atoms += upright
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == BULK))
    return atoms


def xtb_calculator() -> Calculator:
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise InputError(f"GFN1-xTB needs tblite ({error}); {tblite_remedy()}") from error
    return TBLite(method="GFN1-xTB", accuracy=ACCURACY, max_iterations=SCF_CYCLES, verbosity=0)


def check_geometry(atoms: Atoms) -> None:
    distances = atoms.get_all_distances(mic=True)
    closest = distances[np.triu_indices(len(atoms), 1)].min()
    if closest < CLOSEST:
        raise InputError(f"two atoms came within {closest:.2f} Å")
    adsorbate = atoms.get_tags() == ADSORBATE
    gap = distances[adsorbate][:, ~adsorbate].min()
    if gap > ADSORBED:
        raise InputError(f"the adsorbate left the slab: {gap:.2f} Å")


def labelled_copy(atoms: Atoms, **info) -> Atoms:
    """A frame without the dynamics' momenta and masses."""
    frame = Atoms(
        atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True, tags=atoms.get_tags(), constraint=atoms.constraints
    )
    frame.info.update(info)
    forces = atoms.get_forces(apply_constraint=False)
    frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=forces)
    return frame


def simulate(name: str, calculator: Calculator, options: argparse.Namespace) -> Iterable[Atoms]:
    """Langevin dynamics of the free atoms, the heat bath going linearly from the first temperature to the last."""
    atoms = build_system(name)
    atoms.calc = calculator
    atoms.set_masses(np.where(atoms.numbers == 1, TRITIUM, atoms.get_masses()))
    rng = np.random.default_rng([options.seed, zlib.crc32(name.encode())])
    temperatures = np.linspace(*options.temperature, options.frames_per_system)
    draw_momenta(atoms, temperatures[0], rng)
    dynamics = langevin_dynamics(atoms, temperatures[0], options.timestep, options.friction, rng)
    for temperature in temperatures:
        dynamics.set_temperature(temperature_K=temperature)
        dynamics.run(options.steps)
        check_geometry(atoms)
        yield labelled_copy(atoms, system=name, temperature=round(float(temperature), 1))


def write_frames(path: Path, frames: list[Atoms], description: dict) -> None:
    """Whatever kills the run, ``path`` is absent or whole."""
    unfinished = path.with_name(path.name + ".tmp")
    with TrajectoryWriter(unfinished, "w", properties=["energy", "forces"]) as writer:
        writer.set_description(description)
        for frame in frames:
            writer.write(frame)
    unfinished.replace(path)


def generate_system(
    name: str, path: Path, make_calculator: Callable[[], Calculator], options: argparse.Namespace
) -> None:
    frames: list[Atoms] = []
    trajectory = simulate(name, make_calculator(), options)
    try:
        for frame in tqdm(trajectory, desc=name, total=options.frames_per_system, unit="frame", leave=False):
            frames.append(frame)
    except (InputError, CalculationFailed) as error:
        raise InputError(
            f"{name}, frame {len(frames)}: {error}. Use a lower --temperature, a smaller --timestep or another --seed"
        ) from error
    write_frames(path, frames, {})


def generate_systems(
    folder: Path, make_calculator: Callable[[], Calculator], workers: Workers, options: argparse.Namespace
) -> None:
    """Generate the systems that ``folder`` lacks."""
    paths = {name: folder / f"{name}.traj" for name in options.systems}
    missing = [[(name, path, make_calculator, options)] for name, path in paths.items() if not path.exists()]
    with tqdm(total=len(paths), initial=len(paths) - len(missing), desc="systems", unit="system") as bar:
        workers.run_chains(generate_system, missing, lambda *_: bar.update())


def check_options(options: argparse.Namespace) -> None:
    check_positive(options, "frames_per_system", "timestep", "steps", "friction")
    if min(options.temperature) <= 0:
        raise InputError(f"--temperature {' '.join(f'{kelvin:g}' for kelvin in options.temperature)} is not positive")
    if len(set(options.systems)) < len(options.systems):
        raise InputError(f"--systems {' '.join(options.systems)} names a system twice")
    for name in options.systems:
        build_system(name)


def generate(options: argparse.Namespace, make_calculator: Callable[[], Calculator] = xtb_calculator) -> None:
    """Write ``options.out``, continuing what an earlier run left in ``OUT.partial``.

    Raises:
        InputError: the output exists, or the settings, a geometry, an SCF or a missing package stand in the way.
    """
    out = Path(options.out)
    check_absent(out, options.overwrite)
    check_options(options)
    kept_apart = ("out", "systems", "jobs", "overwrite")
    settings = {key: value for key, value in vars(options).items() if key not in kept_apart}
    with Workers(options.jobs) as workers:
        workers.call(make_calculator)  # a missing package fails here, before anything is written
        with partial_results(out, settings) as folder:
            generate_systems(folder, make_calculator, workers, options)
            frames = [frame for name in options.systems for frame in ase.io.read(folder / f"{name}.traj", ":")]
            write_frames(out, frames, {"method": METHOD, **settings})
            shutil.rmtree(folder)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("out", help="the .traj file to write")
    add("--systems", nargs="+", default=SYSTEMS, metavar="SYSTEM", help="SLAB_ADSORBATE")
    add("--frames-per-system", type=int, default=50, help="frames of each")
    add("--temperature", type=float, nargs=2, default=[300.0, 800.0], metavar=("FIRST", "LAST"), help="K")
    add("--timestep", type=float, default=2.5, help="fs")
    add("--steps", type=int, default=8, help="time steps from one frame to the next")
    add("--friction", type=float, default=0.01, help="Langevin friction, 1/fs")
    add("--seed", type=int, default=0, help="of the dynamics")
    add("--jobs", type=int, default=0, help="processes, whose threads share the cores; 0: this one")
    add("--overwrite", action="store_true", help="replace an existing output")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_options()
    if options.jobs:
        limit_threads(cores() // options.jobs)
    try:
        generate(options)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
