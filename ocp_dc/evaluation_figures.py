"""Plots of test errors: predicted against true labels, and how errors are distributed."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ocp_dc.evaluation import EFWT_ENERGY_EV, EFWT_FORCE_EV_PER_ANGSTROM
from ocp_dc.units import ENERGY_UNITS_IN_EV

DOTS_PER_INCH = 110
LEGEND = {"fontsize": 7, "frameon": False}
# inches
LEGEND_LINE = 0.2
# of Okabe and Ito, distinct for the colour-blind
BLUE, ORANGE = "#0072B2", "#D55E00"
# of which each is drawn; of more, how many lie where
MOST_POINTS = 20_000
HEXAGONS = 80


def draw_parity(
    title: str,
    energies: tuple[np.ndarray, np.ndarray],
    forces: tuple[np.ndarray, np.ndarray],
    energy_unit: str,
) -> Figure:
    """Predicted against true energies and force components.

    Energies are relative to their means, true and predicted, whose difference is stated: where all predictions are
    off by much the same, nothing else would be seen.

    Args:
        energies, forces: true and predicted ones; of forces, the components.
    """
    figure, (left, right) = panels(2, title)
    true, predicted = energies
    _plot_parity(left, true - true.mean(), predicted - predicted.mean())
    left.set(xlabel=f"true energy − its mean ({energy_unit})", ylabel=f"predicted energy − its mean ({energy_unit})")
    left.set_title(f"mean predicted − mean true: {predicted.mean() - true.mean():.3g} {energy_unit}", fontsize=9)
    _plot_parity(right, *forces)
    right.set(xlabel=f"true force component ({energy_unit}/Å)", ylabel=f"predicted force component ({energy_unit}/Å)")
    return figure


def draw_errors(
    title: str,
    energy: np.ndarray,
    force: np.ndarray,
    largest_force: np.ndarray,
    energy_unit: str,
    counted: str = "structures",
) -> Figure:
    """Histograms of the errors of structures (N,), with their means and the limits of EFwT.

    Args:
        counted: what there are N of.
    """
    in_ev = ENERGY_UNITS_IN_EV[energy_unit]
    figure, axes = panels(3, title)
    for each, errors, label, limit in zip(
        axes,
        (energy, force, largest_force),
        (
            f"energy ({energy_unit})",
            f"mean of the force components ({energy_unit}/Å)",
            f"largest force component ({energy_unit}/Å)",
        ),
        (EFWT_ENERGY_EV / in_ev, None, EFWT_FORCE_EV_PER_ANGSTROM / in_ev),
        strict=True,
    ):
        _plot_histogram(each, errors, limit)
        each.set(xlabel=f"error of the {label}", ylabel=counted)
    return figure


def _plot_parity(axes: Axes, true: np.ndarray, predicted: np.ndarray) -> None:
    if len(true) > MOST_POINTS:
        hexagons = axes.hexbin(true, predicted, gridsize=HEXAGONS, bins="log", mincnt=1, linewidths=0.1)
        axes.figure.colorbar(hexagons, ax=axes, label="number")
    else:
        axes.plot(true, predicted, ".", markersize=3, alpha=0.4, color=BLUE)
    ends = [true.min(), true.max()]
    axes.plot(ends, ends, color="black", linewidth=0.8, label="predicted = true")
    legend(axes)


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
    set_log(axes.xaxis)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)


# --- for figures of any kind ----------------------------------------------------------------------------------------


def panels(count: int, title: str | None = None) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(4.8 * count, 3.8), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure, figure.subplots(1, count)


def set_log(axis: Axis) -> None:
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


def legend(axes: Axes) -> None:
    """A legend in a panel, where something has a label."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(**LEGEND)


def legend_below(axes: Axes, columns: int) -> None:
    """A panel's legend below all panels, which keep their height, where something has a label."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure = axes.figure
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * math.ceil(len(labels) / columns))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, **LEGEND)


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
