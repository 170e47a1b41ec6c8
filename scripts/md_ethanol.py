"""Molecular dynamics of ethanol by SchNet and DimeNet++ with three activations: trains, simulates, compares.

    python scripts/md_ethanol.py OUT            # the study of docs/md.md
    python scripts/md_ethanol.py OUT --smoke    # the same, of no use, in minutes

Everything is kept in OUT; the same command goes on where it was. Results: OUT/nvt, OUT/nve (tables and figures) and
OUT/frequencies.md, .json and .png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ocp_dc.calculator import load
from ocp_dc.datasets.structure_files import read_structures
from ocp_dc.experiments.scales import WIDTHS
from ocp_dc.files import replace_text

CONFIGS = {"schnet": "md17/schnet_irelu_recommended", "dimenetplusplus": "md17/dimenetplusplus_recommended"}
# the rate that docs/md.md has results of: from 1e-3 to zero by a cosine
RATE = ("--optim.lr_initial=1.0e-3", "--optim.scheduler=CosineAnnealingLR", "--optim.clip_grad_norm=None")
ACTIVATIONS = ("original", "irelu", "bounded_irelu")
SEED = 0
# Å that atoms are moved by for second derivatives: where these jump, frequencies depend on it
DISPLACEMENTS = (0.01, 0.002)
RIGID_MOTIONS = 6
LARGEST_FORCE = 2e-3
PALETTE = ("#000000", "#0072B2", "#D55E00")


@dataclass(frozen=True)
class Scale:
    """How much is done: epochs of 40 steps by model, and lengths in ps."""

    epochs: dict[str, int]
    nvt_ps: float
    nve_ps: float


FULL = Scale({"schnet": 500, "dimenetplusplus": 400}, nvt_ps=50, nve_ps=20)
SMOKE = Scale({"schnet": 5, "dimenetplusplus": 5}, nvt_ps=0.05, nve_ps=0.05)


@dataclass(frozen=True)
class Run:
    """A trained model with what is computed with it."""

    model: str
    activation: str
    out: Path

    @property
    def name(self) -> str:
        return f"{self.model}, {self.activation}"

    @property
    def folder(self) -> Path:
        return self.out / f"{self.model}-{self.activation}"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "train" / "checkpoint.pt"

    @property
    def minimum(self) -> Path:
        return self.folder / "minimum.extxyz"

    @property
    def frequencies(self) -> Path:
        return self.folder / "frequencies.json"


def ocp_dc(*arguments: object) -> None:
    words = [str(argument) for argument in arguments]
    print(f"$ ocp-dc {' '.join(words)}", flush=True)
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "ocp_dc.cli", *words], check=True)
    print(f"  {time.monotonic() - started:.0f} s", flush=True)


def train(run: Run, data: Path, scale: Scale) -> None:
    if (run.checkpoint.parent / "result.json").exists():
        return
    widths = [f"--model.{key}={value}" for key, value in WIDTHS["medium"][run.model].items()]
    ocp_dc(
        *("train", "--config-yml", CONFIGS[run.model], "--run-dir", run.folder, "--timestamp-id", "train"),
        *(f"--dataset.train.src={data / 'train'}", f"--dataset.val.src={data / 'val'}", f"--seed={SEED}"),
        *("--optim.num_workers=0", f"--optim.max_epochs={scale.epochs[run.model]}", "--hide_eval_progressbar=True"),
        *(f"--model.activation={run.activation}", *widths, *RATE),
        *(("--checkpoint", run.checkpoint) if run.checkpoint.exists() else ()),
    )
    ocp_dc("evaluate", "--checkpoint", run.checkpoint, "--data", data / "test")


def find_minimum(run: Run) -> None:
    """From the conformation with the lowest energy of all: every model begins in the same valley."""
    if run.minimum.exists():
        return
    atoms = min(read_structures("sample"), key=lambda atoms: atoms.get_potential_energy())
    atoms.calc = load(run.checkpoint, "cpu")
    if not BFGS(atoms, logfile=None).run(fmax=LARGEST_FORCE, steps=2000):
        print(f"  {run.name}: no minimum to {LARGEST_FORCE} eV/Å in 2,000 steps", flush=True)
    ase.io.write(run.minimum, atoms)


def find_frequencies(run: Run) -> None:
    if run.frequencies.exists():
        return
    atoms = ase.io.read(run.minimum)
    atoms.calc = load(run.checkpoint, "cpu")
    found = {"largest force": float(abs(atoms.get_forces()).max())}
    for displacement in DISPLACEMENTS:
        cache = run.folder / "vibrations"
        shutil.rmtree(cache, ignore_errors=True)
        vibrations = Vibrations(atoms, name=str(cache), delta=displacement)
        vibrations.run()
        frequencies = vibrations.get_frequencies()
        # imaginary ones as negative numbers, as is usual
        found[str(displacement)] = np.sort(frequencies.real - frequencies.imag).tolist()
    replace_text(run.frequencies, json.dumps(found, indent=2) + "\n")


def simulate(run: Run, ensemble: str, length: float, start: Path | str, temperature: float) -> None:
    ocp_dc(
        *("simulate", run.checkpoint, "--start", start, "--out", run.folder / ensemble, "--ensemble", ensemble),
        *(
            "--temperature",
            temperature,
            "--timestep",
            0.5,
            "--length",
            length,
            "--replicas",
            4,
            "--seed",
            SEED,
            "--cpu",
        ),
    )


def report(runs: Sequence[Run], ensemble: str, data: Path, out: Path) -> None:
    folders, names = [run.folder / ensemble for run in runs], [run.name for run in runs]
    where = ("--reference", "sample", "--test", data / "test", "--out", out / ensemble, "--cpu")
    ocp_dc("md-report", *folders, "--names", *names, *where)


def vibrations_of(run: Run, displacement: float) -> np.ndarray:
    """In cm⁻¹, without the six that move or turn the molecule as a whole: those nearest to 0."""
    frequencies = np.array(json.loads(run.frequencies.read_text())[str(displacement)])
    return np.sort(frequencies[np.argsort(abs(frequencies))[RIGID_MOTIONS:]])


def summarize_frequencies(runs: Sequence[Run], out: Path) -> None:
    coarse, fine = DISPLACEMENTS
    lines = [
        f"Vibrations at the minimum, cm⁻¹, by differences of forces over ± {coarse} Å. Difference: from the same model "
        "with its original activation, root mean square and largest. Displacement: largest change of a frequency where "
        f"atoms are moved by {fine} Å instead.",
        "",
        "| run | lowest | highest | imaginary | difference | largest | displacement |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    record = {}
    for run in runs:
        own = vibrations_of(run, coarse)
        differences = own - vibrations_of(Run(run.model, "original", run.out), coarse)
        moved = abs(own - vibrations_of(run, fine)).max()
        cells = (own[0], own[-1], (own < 0).sum(), np.sqrt((differences**2).mean()), abs(differences).max(), moved)
        lines.append(f"| {run.name} | {' | '.join(f'{cell:,.1f}'.removesuffix('.0') for cell in cells)} |")
        record[run.name] = own.tolist()
    replace_text(out / "frequencies.md", "\n".join(lines) + "\n")
    replace_text(out / "frequencies.json", json.dumps({"unit": "1/cm", **record}, indent=2) + "\n")
    plot_frequencies(runs, out / "frequencies.png")
    print("\n".join(lines))


def plot_frequencies(runs: Sequence[Run], path: Path) -> None:
    figure = Figure(figsize=(8, 0.6 + 0.45 * len(runs)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, run in enumerate(runs):
        color = PALETTE[ACTIVATIONS.index(run.activation)]
        axes.vlines(vibrations_of(run, DISPLACEMENTS[0]), row - 0.4, row + 0.4, color=color, linewidth=1)
    axes.set_yticks(range(len(runs)), [run.name for run in runs], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="frequency (1/cm)")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for everything")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each, to see that it runs")
    args = parser.parse_args()
    scale, data = SMOKE if args.smoke else FULL, args.out / "data"
    if not data.exists():
        ocp_dc("md17", "convert", "sample", data, "--train", 800, "--val", 100, "--test", 100, "--seed", SEED)
    runs = [Run(model, activation, args.out) for model in CONFIGS for activation in ACTIVATIONS]
    for run in runs:
        train(run, data, scale)
        find_minimum(run)
        find_frequencies(run)
        simulate(run, "nvt", scale.nvt_ps, data / "test", 500)
        # half of the kinetic energy goes to where there is none at the minimum: 300 K are left
        simulate(run, "nve", scale.nve_ps, run.minimum, 600)
    for ensemble in ("nvt", "nve"):
        report(runs, ensemble, data, args.out)
    summarize_frequencies(runs, args.out)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
