#!/usr/bin/env python
"""Make a small MD17-style file for any small molecule, without a download.

Conformations come from GFN2-xTB Langevin dynamics (ASE, tblite), labels from density-fitted DFT (PySCF):

    pip install "ocp_dc[sample]"
    python scripts/generate_sample_md17.py CH3CH2OH ethanol.npz --jobs 4

The file has MD17's keys and units: E (N, 1) kcal/mol, F (N, A, 3) kcal/mol/Å, R (N, A, 3) Å in trajectory order,
z (A,), and name, theory, type, r_unit, e_unit. Repeat a killed command to continue it: OUT.partial keeps the
trajectory, once it is complete, and every labelled frame.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.constraints import FixCom
from sample_generation import (
    INSTALL,
    SampleError,
    check_absent,
    check_positive,
    check_same_settings,
    langevin_dynamics,
    option_parser,
    run_script,
    run_tasks,
)
from tqdm import tqdm

HARTREE = 627.5094740631  # kcal/mol, CODATA 2018
BOHR = 0.529177210903  # Å, CODATA 2018
FITTING_BASIS = "def2-universal-jkfit"  # for every functional; PySCF's own choice shifts energies by 0.1 kcal/mol
SCF_TOLERANCE = 1e-8  # Hartree
SCF_CYCLES = 100


@dataclass(frozen=True)
class PyscfLabeller:
    """Kohn-Sham energy and forces (the negative nuclear gradient); unrestricted where electrons are unpaired."""

    options: argparse.Namespace

    @property
    def method(self) -> str:
        import pyscf

        o = self.options
        electrons = f", charge {o.charge}, {o.spin} unpaired electrons" if o.charge or o.spin else ""
        return f"{o.xc}/{o.basis} (density fitting, grid level {o.grid_level}{electrons}), PySCF {pyscf.__version__}"

    def __call__(self, numbers: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Numbers (A,) and positions (A, 3) in Å to an energy in kcal/mol and forces (A, 3) in kcal/mol/Å."""
        try:
            from pyscf import dft, gto
        except ImportError as error:
            raise SampleError(f"labelling needs PySCF ({error}); {INSTALL}") from error
        o = self.options
        atoms = [(int(number), position) for number, position in zip(numbers, positions / BOHR, strict=True)]
        structure = gto.M(atom=atoms, unit="Bohr", basis=o.basis, charge=o.charge, spin=o.spin, verbose=0)
        scf = dft.KS(structure, xc=o.xc).density_fit(auxbasis=FITTING_BASIS)
        scf.grids.level, scf.conv_tol, scf.max_cycle = o.grid_level, SCF_TOLERANCE, SCF_CYCLES
        energy = scf.kernel()
        if not scf.converged:
            raise SampleError(f"the SCF did not converge to {SCF_TOLERANCE} Hartree in {SCF_CYCLES} cycles")
        return energy * HARTREE, -scf.nuc_grad_method().kernel() * (HARTREE / BOHR)


def xtb_calculator(options: argparse.Namespace) -> Calculator:
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise SampleError(f"GFN2-xTB dynamics need tblite ({error}); {INSTALL}") from error
    return TBLite(method="GFN2-xTB", charge=options.charge, multiplicity=options.spin + 1, verbosity=0)


def read_molecule(source: str) -> Atoms:
    """Elements and positions of an .xyz file or of a molecule that ``ase.build.molecule`` knows by name."""
    try:
        found = ase.io.read(source) if source.endswith(".xyz") else molecule(source)
    except (KeyError, OSError) as error:
        raise SampleError(
            f"{source}: neither an .xyz file that can be read nor a name that ase.build.molecule knows"
        ) from error
    return Atoms(found.numbers, found.positions)


def check_electrons(atoms: Atoms, charge: int, spin: int) -> None:
    electrons = int(atoms.numbers.sum()) - charge
    if electrons < max(spin, 1) or (electrons - spin) % 2:
        raise SampleError(
            f"{atoms.get_chemical_formula()} with --charge {charge} has {electrons} electrons, which cannot leave "
            f"--spin {spin} unpaired; give another --charge or --spin"
        )


def check_schedule(options: argparse.Namespace) -> int:
    """Steps from one frame to the next."""
    check_positive(options, "frames", "temperature", "timestep", "interval", "friction", "jobs")
    steps = round(options.interval / options.timestep)
    if steps < 1 or abs(steps * options.timestep - options.interval) > 1e-9:
        raise SampleError(f"--interval {options.interval} is not a whole number of --timestep {options.timestep}")
    return steps


def simulate(atoms: Atoms, calculator: Calculator, steps: int, options: argparse.Namespace) -> np.ndarray:
    """Langevin dynamics with the centre of mass at rest: positions (N, A, 3) in Å."""
    atoms = atoms.copy()
    atoms.calc = calculator
    atoms.set_constraint(FixCom())
    rng = np.random.default_rng(options.seed)
    dynamics = langevin_dynamics(atoms, options.temperature, options.timestep, options.friction, rng)
    dynamics.run(options.equilibrate)
    trajectory = np.empty((options.frames, len(atoms), 3))
    for frame in tqdm(trajectory, desc="dynamics", unit="frame"):
        dynamics.run(steps)
        frame[:] = atoms.positions
    return trajectory


def save_npz(path: Path, **arrays) -> None:
    """Whatever kills the run, ``path`` is absent or whole."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    unfinished.replace(path)


def load_trajectory(path: Path, settings: dict) -> np.ndarray:
    with np.load(path) as kept:
        check_same_settings(path.parent, json.loads(str(kept["settings"])), settings)
        return kept["R"]


def label_frame(label: PyscfLabeller, numbers: np.ndarray, positions: np.ndarray, path: Path) -> None:
    try:
        energy, forces = label(numbers, positions)
    except SampleError as error:
        raise SampleError(
            f"{path.stem}: {error}. If its geometry is distorted, delete {path.parent} and use "
            "a lower --temperature, a smaller --timestep or another --seed"
        ) from error
    save_npz(path, E=energy, F=forces)


def label_trajectory(
    label: PyscfLabeller, numbers: np.ndarray, trajectory: np.ndarray, folder: Path, jobs: int
) -> list[Path]:
    """Label the frames that ``folder`` lacks; its label files in trajectory order."""
    paths = [folder / f"frame_{index}.npz" for index in range(len(trajectory))]
    frames = zip(trajectory, paths, strict=True)
    tasks = [(label, numbers, positions, path) for positions, path in frames if not path.exists()]
    with tqdm(total=len(paths), initial=len(paths) - len(tasks), desc="labels", unit="frame") as bar:
        run_tasks(label_frame, tasks, jobs, bar)
    return paths


def generate(
    options: argparse.Namespace,
    make_calculator: Callable[[argparse.Namespace], Calculator] = xtb_calculator,
    make_labeller: Callable[[argparse.Namespace], PyscfLabeller] = PyscfLabeller,
) -> None:
    """Write ``options.out``, continuing what an earlier run left in ``OUT.partial``.

    Raises:
        SampleError: the output exists, or the molecule, the settings, an SCF or a missing package stand in the way.
    """
    out = Path(options.out)
    check_absent(out, options.overwrite)
    atoms = read_molecule(options.molecule)
    check_electrons(atoms, options.charge, options.spin)
    steps = check_schedule(options)
    settings = {key: value for key, value in vars(options).items() if key not in ("out", "jobs", "overwrite")}
    settings["structure"] = hashlib.sha256(atoms.numbers.tobytes() + atoms.positions.tobytes()).hexdigest()[:12]
    label = make_labeller(options)
    folder = out.with_name(out.name + ".partial")
    kept = folder / "trajectory.npz"
    if not kept.exists():
        calculator = make_calculator(options)
        label(atoms.numbers, atoms.positions)  # a misspelt functional or basis fails here, not after the dynamics
        folder.mkdir(parents=True, exist_ok=True)
        save_npz(kept, R=simulate(atoms, calculator, steps, options), settings=json.dumps(settings))
    trajectory = load_trajectory(kept, settings)
    labels = [np.load(path) for path in label_trajectory(label, atoms.numbers, trajectory, folder, options.jobs)]
    save_npz(
        out,
        E=np.array([[frame["E"]] for frame in labels], dtype=np.float64),
        F=np.array([frame["F"] for frame in labels], dtype=np.float32),
        R=trajectory,
        z=atoms.numbers.astype(np.uint8),
        name=Path(options.molecule).stem,
        theory=f"{label.method}; geometries: {options.temperature:g} K GFN2-xTB Langevin MD",
        r_unit="Ang",
        e_unit="kcal/mol",
        type="d",
    )
    shutil.rmtree(folder)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = option_parser(__doc__.partition("\n")[0])
    add = parser.add_argument
    add("molecule", help="a name that ase.build.molecule knows (CH3CH2OH, C6H6, ...) or an .xyz file")
    add("out", help="the .npz file to write")
    add("--frames", type=int, default=1000, help="conformations")
    add("--temperature", type=float, default=500.0, help="K")
    add("--timestep", type=float, default=0.5, help="fs")
    add("--interval", type=float, default=25.0, help="fs from one frame to the next")
    add("--equilibrate", type=int, default=2000, help="steps before the first interval")
    add("--xc", default="PBE", help="functional, as PySCF names it")
    add("--basis", default="def2-SVP", help="basis set, as PySCF names it")
    add("--grid-level", type=int, default=2, help="PySCF integration grid, 0 (coarse) to 9")
    add("--charge", type=int, default=0, help="total charge")
    add("--spin", type=int, default=0, help="unpaired electrons")
    return parser.parse_args(arguments)


def main() -> None:
    run_script(lambda: generate(parse_options()))


if __name__ == "__main__":
    main()
