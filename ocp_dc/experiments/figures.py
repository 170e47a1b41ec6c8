"""Figures 1 and 2 of the paper from our runs, and plots of each run's test errors, as PNG."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import viridis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ocp_dc.evaluation import EFWT_ENERGY_EV, EFWT_FORCE_EV_PER_ANGSTROM
from ocp_dc.experiments.definitions import MOLECULES, Experiment, PaperValue
from ocp_dc.experiments.plan import PREDICTIONS_NAME, training_conformations
from ocp_dc.runs.rendering import Picture
from ocp_dc.runs.results import Cell, Measure, RunResult
from ocp_dc.units import ENERGY_UNITS_IN_EV

DOTS_PER_INCH = 110
# of Okabe and Ito, distinct for the colour-blind
PALETTE = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#999999")
MARKERS = "osD^vPX*"
BLUE, ORANGE = PALETTE[5], PALETTE[6]
# Fig. 1 divides energies by this, since they are that much larger than forces
ENERGY_DIVISOR = 1000
CURVE_POINTS = 200
OUTSIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1)}


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
    figure, (curves, errors) = _panels(2)
    for number, (beta, cell) in enumerate(cells.items()):
        color = viridis(number / max(1, len(cells) - 1) * 0.9)
        _plot_training_loss(curves, cell.runs[0], f"β = {beta:g}", color)
    curves.set(xlabel="optimizer step", ylabel=f"training loss, |ΔE| + β |ΔF| ({energy.unit}; β in Å)")
    _set_log(curves.yaxis)
    _legend(curves, **OUTSIDE)

    energy_label = f"energy / {ENERGY_DIVISOR} ({energy.unit})"
    _plot_means(errors, cells.items(), energy, ENERGY_DIVISOR, label=energy_label, color=BLUE, marker="o")
    _plot_means(errors, cells.items(), force, label=f"force ({force.unit})", color=ORANGE, marker="s")
    errors.set(xlabel="weight β of the force loss (Å)", ylabel="MAE on the test set (unit in the legend)")
    _set_log(errors.xaxis)
    _set_log(errors.yaxis)
    _legend(errors)
    _note_diverged(figure, [(f"β = {beta:g}", cell) for beta, cell in cells.items()])
    return _png(figure)


def plot_sizes(
    cells: Mapping[str, Sequence[Cell]], papers: Mapping[Experiment, PaperValue], measures: tuple[Measure, Measure]
) -> bytes:
    """Fig. 2: test errors by the number of training conformations.

    Args:
        cells: of each molecule, by size.
        papers: what the paper reports.
        measures: energy and force.
    """
    figure, panels = _panels(2)
    for axes, measure in zip(panels, measures, strict=True):
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
        _set_log(axes.xaxis)
        _set_log(axes.yaxis)
    _legend(panels[-1], **OUTSIDE)
    named = [
        (f"{molecule}, {training_conformations(cell):,}", cell) for molecule, found in cells.items() for cell in found
    ]
    _note_diverged(figure, named)
    return _png(figure)


def plot_parity(run: RunResult, predictions: Mapping[str, np.ndarray]) -> bytes:
    """Predicted against true energies and force components of a run's test set.

    Energies are relative to their means, true and predicted, whose difference is stated: where all predictions are
    off by much the same, nothing else would be seen.
    """
    unit = run.record["quantities"]["energy MAE"]["unit"]
    true, predicted = predictions["energy_true"], predictions["energy_predicted"]
    figure, (energies, forces) = _panels(2, title=run.name)
    _plot_parity(energies, true - true.mean(), predicted - predicted.mean())
    energies.set(xlabel=f"true energy − its mean ({unit})", ylabel=f"predicted energy − its mean ({unit})")
    energies.set_title(f"mean predicted − mean true: {predicted.mean() - true.mean():.3g} {unit}", fontsize=9)
    _plot_parity(forces, predictions["forces_true"], predictions["forces_predicted"])
    forces.set(xlabel=f"true force component ({unit}/Å)", ylabel=f"predicted force component ({unit}/Å)")
    return _png(figure)


def plot_error_distribution(run: RunResult, predictions: Mapping[str, np.ndarray]) -> bytes:
    """Histograms of the test conformations' errors, with their means and the limits of EFwT."""
    unit = run.record["quantities"]["energy MAE"]["unit"]
    in_ev = ENERGY_UNITS_IN_EV[unit]
    figure, panels = _panels(3, title=run.name)
    for axes, key, label, limit in zip(
        panels,
        ("energy_error", "force_error", "largest_force_error"),
        (f"energy ({unit})", f"mean of the force components ({unit}/Å)", f"largest force component ({unit}/Å)"),
        (EFWT_ENERGY_EV / in_ev, None, EFWT_FORCE_EV_PER_ANGSTROM / in_ev),
        strict=True,
    ):
        _plot_histogram(axes, predictions[key], limit)
        axes.set(xlabel=f"error of the {label}", ylabel="test conformations")
    return _png(figure)


def _panels(count: int, title: str | None = None) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(4.8 * count, 3.8), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure, figure.subplots(1, count)


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


def _plot_parity(axes: Axes, true: np.ndarray, predicted: np.ndarray) -> None:
    axes.plot(true, predicted, ".", markersize=3, alpha=0.4, color=BLUE)
    ends = [true.min(), true.max()]
    axes.plot(ends, ends, color="black", linewidth=0.8, label="predicted = true")
    _legend(axes)


def _plot_histogram(axes: Axes, errors: np.ndarray, limit: float | None) -> None:
    shown = errors[errors > 0]
    if limit is not None:
        shown = np.append(shown, limit)
    low, high = (shown.min(), shown.max()) if len(shown) else (1e-3, 1.0)
    # errors of exactly 0 are counted with the smallest
    axes.hist(np.clip(errors, low, None), bins=np.geomspace(low, max(high, 1.01 * low), 41), color=BLUE, alpha=0.8)
    axes.axvline(errors.mean(), color="black", linewidth=1, label=f"mean {errors.mean():.3g}")
    if limit is not None:
        axes.axvline(limit, color=ORANGE, linestyle="--", linewidth=1, label=f"EFwT limit {limit:.3g}")
    _set_log(axes.xaxis)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)


def _set_log(axis: Axis) -> None:
    """A logarithmic axis whose ticks are plain numbers, as many as fit."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if decades < 1:
        axis.set_major_locator(MaxNLocator(5))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _note_diverged(figure: Figure, cells: Sequence[tuple[str, Cell]]) -> None:
    notes = [f"{name} at step {run.step:,}" for name, cell in cells for run in cell.diverged]
    if notes:
        figure.supxlabel(textwrap.fill(f"diverged: {'; '.join(notes)}", 150), fontsize=7)


def _legend(axes: Axes, **place) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7, frameon=False, **place)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
