"""The quickstart's main job, see quickstart.sh: `ocp-dc reproduce`, its results in a table, and learning curves."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ocp_dc.runs.results import Results, RunResult, read_results
from ocp_dc.terminal import format_table

COMMAND = "reproduce table1 --model schnet --scale quickstart --data sample --with-decayed --with-recommended --out"
RUNS = {
    "schnet-original-ethanol-50000-b30-s0": ("paper's baseline", "shifted softplus"),
    "schnet-irelu_rescaled-ethanol-50000-b30-s0": ("paper's method", "IReLU"),
    "schnet-original-ethanol-50000-b30-s0-decayed": ("paper's baseline, decaying rate", "shifted softplus"),
    "schnet-irelu_rescaled-ethanol-50000-b30-s0-decayed": ("paper's method, decaying rate", "IReLU"),
    "schnet-original-ethanol-50000-b30-s0-recommended": ("recommended", "shifted softplus"),
    "schnet-irelu-ethanol-50000-b30-s0-recommended": ("recommended", "IReLU"),
    "schnet-integrated-ethanol-50000-b30-s0-recommended": ("recommended", "integrated softplus"),
}
MEASURED = {
    "energy MAE": "kcal/mol",
    "centered energy MAE": "kcal/mol",
    "force MAE": "kcal/mol/Å",
    "EFwT": "%",
}


def runs_of(results: Results) -> dict[tuple[str, str], RunResult]:
    return {labels: results.cell(name).runs[0] for name, labels in RUNS.items()}


def print_table(results: Results) -> None:
    titles = [f"{name} ({unit})" for name, unit in MEASURED.items()]
    rows = [["protocol", "activation", *titles]]
    for labels, run in runs_of(results).items():
        numbers = [_number(run, name) for name in MEASURED]
        rows.append([*labels, *(number.rjust(len(title)) for title, number in zip(titles, numbers, strict=True))])
    steps = run.description["steps"]
    print(f"\nEthanol, PBE, 800 conformations, {steps:,} steps; errors on 100 test conformations")
    print(format_table(rows))
    print(
        "\nThe paper's protocol learns total energies (-97,000 kcal/mol) from zero at a constant rate and needs its\n"
        f"125,000 steps for it; here it has {steps:,}. With a rate that decays from 1e-3 to zero energies\n"
        "settle. In the recommended protocol it falls to zero too, from a higher one, and the mean energy is removed\n"
        "from labels, in float64.\n"
        "Centered: without the mean energy error, one constant, which changes no force and no relative energy."
    )


def _number(run: RunResult, name: str) -> str:
    if run.status != "finished":
        return run.status
    # a run of an earlier version has fewer
    quantity = run.record["quantities"].get(name)
    return f"{quantity['value']:,.3f}" if quantity else "-"


def plot_learning_curves(results: Results, path: Path) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for labels, run in runs_of(results).items():
        for panel, metric in zip(panels, ("energy_mae", "forces_mae"), strict=True):
            panel.plot(*run.logged(metric, split="val"), label=", ".join(labels))
    for panel, quantity, unit in zip(panels, ("energy", "force"), ("kcal/mol", "kcal/mol/Å"), strict=True):
        panel.set(xlabel="step", ylabel=f"validation {quantity} MAE ({unit})", yscale="log")
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)
    figure.savefig(path, dpi=130)


def main(out: Path) -> None:
    started = time.monotonic()
    print(f"$ ocp-dc {COMMAND} {out}", flush=True)
    subprocess.run(["ocp-dc", *COMMAND.split(), str(out)], check=True)
    results = read_results(out)
    print_table(results)
    plot_learning_curves(results, out / "learning_curves.png")
    print(f"\nlearning curves: {out / 'learning_curves.png'}")
    print(f"everything is in {out}; remove it to start over. {(time.monotonic() - started) / 60:.1f} min in all")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
