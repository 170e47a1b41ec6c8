"""Figures 1 and 2 of the paper from our runs, and plots of each run's test errors, as PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import viridis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ocp_dc.evaluation_figures import BLUE, ORANGE, draw_errors, draw_parity, legend, legend_below, panels, png, set_log
from ocp_dc.experiments.definitions import MOLECULES, Experiment, PaperValue
from ocp_dc.experiments.plan import PREDICTIONS_NAME, training_conformations
from ocp_dc.experiments.validation import validation_errors
from ocp_dc.runs.rendering import Picture
from ocp_dc.runs.results import Cell, Measure, RunResult

# of Okabe and Ito, distinct for the colour-blind
PALETTE = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", BLUE, ORANGE, "#999999")
MARKERS = "osD^vPX*"
# Fig. 1 divides energies by this, since they are that much larger than forces
ENERGY_DIVISOR = 1000
CURVE_POINTS = 200


def run_pictures(run: RunResult) -> list[Picture]:
    """Plots of the test errors of a run that has finished."""
    predictions = read_predictions(run)
    if run.status != "finished" or predictions is None:
        return []
    return [
        Picture(f"{run.name}-parity", f"{run.name}: parity", plot_parity(run, predictions)),
        Picture(f"{run.name}-errors", f"{run.name}: errors", plot_error_distribution(run, predictions)),
    ]


def read_predictions(run: RunResult) -> dict[str, np.ndarray] | None:
    """``errors.npz``, None where there is none."""
    path = run.folder / PREDICTIONS_NAME
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return dict(arrays)


def plot_betas(cells: Mapping[float, Cell], measures: tuple[Measure, Measure]) -> bytes:
    """Fig. 1: training loss by step (the first seed's), and test errors by β.

    Args:
        cells: by β.
        measures: energy and force.
    """
    energy, force = measures
    figure, (curves, errors) = panels(2)
    for number, (beta, cell) in enumerate(cells.items()):
        color = viridis(number / max(1, len(cells) - 1) * 0.9)
        _plot_training_loss(curves, cell.runs[0], f"β = {beta:g}", color)
    curves.set(xlabel="optimizer step", ylabel=f"training loss, |ΔE| + β |ΔF| ({energy.unit}; β in Å)")
    set_log(curves.yaxis)
    legend_below(curves, columns=4)

    energy_label = f"energy / {ENERGY_DIVISOR} ({energy.unit})"
    _plot_means(errors, cells.items(), energy, ENERGY_DIVISOR, label=energy_label, color=BLUE, marker="o")
    _plot_means(errors, cells.items(), force, label=f"force ({force.unit})", color=ORANGE, marker="s")
    errors.set(xlabel="weight β of the force loss (Å)", ylabel="MAE on the test set (unit in the legend)")
    set_log(errors.xaxis)
    set_log(errors.yaxis)
    legend(errors)
    _note_diverged(figure, [(f"β = {beta:g}", cell) for beta, cell in cells.items()])
    return png(figure)


def plot_sizes(
    cells: Mapping[str, Sequence[Cell]], papers: Mapping[Experiment, PaperValue], measures: tuple[Measure, Measure]
) -> bytes:
    """Fig. 2: test errors by the number of training conformations.

    Args:
        cells: of each molecule, by size.
        papers: what the paper reports.
        measures: energy and force.
    """
    figure, both = panels(2)
    for axes, measure in zip(both, measures, strict=True):
        for molecule, of_sizes in cells.items():
            number = list(MOLECULES).index(molecule)
            style = {"color": PALETTE[number], "marker": MARKERS[number]}
            sizes = [(training_conformations(cell), cell) for cell in of_sizes]
            _plot_means(axes, sizes, measure, label=molecule, **style)
            reported = [(of.train_size, paper) for of, paper in papers.items() if of.molecule == molecule]
            values = [paper.published[measure.name] for _, paper in reported]
            axes.plot([size for size, _ in reported], values, **style, linestyle=":", alpha=0.6, markerfacecolor="none")
        axes.plot([], [], color="grey", linestyle=":", marker="o", markerfacecolor="none", label="the paper's")
        axes.set(xlabel="training conformations", ylabel=f"{measure.name} on the test set ({measure.unit})")
        set_log(axes.xaxis)
        set_log(axes.yaxis)
    legend_below(both[-1], columns=5)
    named = [
        (f"{molecule}, {training_conformations(cell):,}", cell) for molecule, found in cells.items() for cell in found
    ]
    _note_diverged(figure, named)
    return png(figure)


def plot_learning_curves(cells: Mapping[str, Cell], measures: tuple[Measure, Measure]) -> bytes | None:
    """Errors on the validation set by step: geometric means over seeds, in bands from the lowest to the highest.

    Args:
        cells: by label. Of a cell its runs that have finished are shown, and how many diverged is said; where none
            has finished, all are shown, as far as they all have come.
        measures: energy and force.

    Returns:
        None where nothing has been validated.
    """
    figure, both = panels(2)
    for axes, measure in zip(both, measures, strict=True):
        for number, (label, cell) in enumerate(cells.items()):
            steps, errors = _validation_of_all(cell, measure)
            if len(steps):
                style = {"color": PALETTE[number % len(PALETTE)], "linewidth": 1.2}
                diverged = f", {len(cell.diverged)} diverged" if cell.diverged else ""
                shown = f"{label}, n = {len(errors)}{diverged}"
                axes.plot(steps, np.exp(np.log(errors).mean(axis=0)), **style, label=shown)
                axes.fill_between(steps, errors.min(axis=0), errors.max(axis=0), color=style["color"], alpha=0.2, lw=0)
        axes.set(xlabel="optimizer step", ylabel=f"{measure.name} on the validation set ({measure.unit})")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if axes.lines:
            set_log(axes.yaxis)
    legend_below(both[-1], columns=2)
    return png(figure) if both[0].lines else None


def _validation_of_all(cell: Cell, measure: Measure) -> tuple[np.ndarray, np.ndarray]:
    """Steps (S,) at which all seeds shown of a cell have been validated, and their errors (seeds, S)."""
    curves = [dict(zip(*validation_errors(run, measure), strict=True)) for run in cell.finished or cell.runs]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return np.array(steps), np.array([[curve[step] for step in steps] for curve in curves])


def plot_parity(run: RunResult, predictions: Mapping[str, np.ndarray]) -> bytes:
    """Predicted against true energies and force components of a run's test set."""
    energies, forces = (
        (predictions[f"{label}_true"], predictions[f"{label}_predicted"]) for label in ("energy", "forces")
    )
    return png(draw_parity(run.name, energies, forces, _energy_unit(run)))


def plot_error_distribution(run: RunResult, predictions: Mapping[str, np.ndarray]) -> bytes:
    """Histograms of the test conformations' errors, with their means and the limits of EFwT."""
    errors = (predictions[key] for key in ("energy_error", "force_error", "largest_force_error"))
    return png(draw_errors(run.name, *errors, _energy_unit(run), counted="test conformations"))


def _energy_unit(run: RunResult) -> str:
    return run.record["quantities"]["energy MAE"]["unit"]


def _plot_training_loss(axes: Axes, run: RunResult, label: str, color: tuple) -> None:
    """Means over equal stretches of the run, so that noise does not hide the curve."""
    steps, losses = run.logged("loss", split="train")
    if len(steps):
        pieces = min(CURVE_POINTS, len(steps))
        means = [[piece.mean() for piece in np.array_split(values, pieces)] for values in (steps, losses)]
        state = "" if run.status == "finished" else f" ({run.status})"
        axes.plot(*means, color=color, linewidth=1.2, label=f"{label}{state}")


def _plot_means(axes: Axes, cells: Iterable[tuple[float, Cell]], measure: Measure, divisor: float = 1, **style) -> None:
    """Means over seeds by position, joined by a line; bars of one standard deviation where there are several seeds."""
    ended = [(position, cell) for position, cell in cells if cell.finished]
    axes.errorbar(
        [position for position, _ in ended],
        [cell.mean(measure) / divisor for _, cell in ended],
        yerr=[(cell.deviation(measure) or 0.0) / divisor for _, cell in ended],
        **{"capsize": 3, "linewidth": 1.2, "markersize": 5},
        **style,
    )


def _note_diverged(figure: Figure, cells: Sequence[tuple[str, Cell]]) -> None:
    notes = [f"{name} at step {run.step:,}" for name, cell in cells for run in cell.diverged]
    if notes:
        figure.supxlabel(textwrap.fill(f"diverged: {'; '.join(notes)}", 150), fontsize=7)
