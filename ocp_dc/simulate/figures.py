"""Figures of simulations, as PNG: energy over time, h(r) beside the reference, stability."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ocp_dc.runs.rendering import Picture
from ocp_dc.simulate.measuring import Measured
from ocp_dc.simulate.metrics import BINS, FARTHEST, distance_distribution
from ocp_dc.simulate.reading import Reference

DOTS_PER_INCH = 110
# of Okabe and Ito, distinct for the colour-blind
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MEV = 1000
PANELS_IN_ROW = 3


def pictures(measured: Sequence[Measured], reference: Reference) -> list[Picture]:
    """All that can be drawn; h(r) of molecules alone."""
    found = [
        Picture("energy", "Total energy of each replica, against its start", plot_energies(measured)),
        Picture("stability", "Time until a bond breaks: each replica, and the mean", plot_stability(measured)),
    ]
    if any(replica.distribution is not None for each in measured for replica in each.replicas):
        caption = "Distances between atoms, h(r), in the stable parts and in the reference"
        found.insert(1, Picture("hr", caption, plot_distributions(measured, reference)))
    return found


def plot_energies(measured: Sequence[Measured]) -> bytes:
    """A panel for each simulation, a line for each replica, in meV/atom; the part after a broken bond is dotted."""
    columns = min(PANELS_IN_ROW, len(measured))
    rows = -(-len(measured) // columns)
    figure = _figure(4.6 * columns, 3.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, each in zip(panels, measured, strict=False):
        for number, (trajectory, replica) in enumerate(zip(each.simulation.trajectories, each.replicas, strict=True)):
            relative = MEV * (trajectory.energies - trajectory.energies[0]) / len(trajectory.first)
            color = PALETTE[number % len(PALETTE)]
            stable = trajectory.times <= replica.stability
            axes.plot(trajectory.times[stable], relative[stable], color=color, linewidth=0.8, label=f"replica {number}")
            axes.plot(trajectory.times[~stable], relative[~stable], color=color, linewidth=0.8, linestyle=":")
        axes.set_title(f"{each.simulation.name}: {each.simulation.conditions}", fontsize=8)
        axes.set(xlabel="time (ps)", ylabel="total energy − its start (meV/atom)")
        axes.legend(fontsize=7, frameon=False)
    for axes in panels[len(measured) :]:
        axes.set_axis_off()
    return _png(figure)


def plot_distributions(measured: Sequence[Measured], reference: Reference) -> bytes:
    """The reference filled, and for each simulation the mean over replicas; below, what they differ by."""
    figure = _figure(8, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centres = (np.arange(BINS) + 0.5) * FARTHEST / BINS
    molecule = next(
        trajectory.first
        for each in measured
        for trajectory in each.simulation.trajectories
        if not trajectory.first.pbc.any()
    )
    expected = distance_distribution(reference.positions(molecule))
    above.fill_between(centres, expected, color="#cccccc", label=f"reference: {reference.name}")
    for number, each in enumerate(measured):
        own = [replica.distribution for replica in each.replicas if replica.distribution is not None]
        if not own:
            continue
        color = PALETTE[number % len(PALETTE)]
        above.plot(centres, np.mean(own, axis=0), color=color, linewidth=0.9, label=each.simulation.name)
        below.plot(centres, np.mean(own, axis=0) - expected, color=color, linewidth=0.9)
    last = np.flatnonzero(expected)[-1]
    below.set(xlabel="r (Å)", ylabel="difference", xlim=(0, min(FARTHEST, centres[last] + 1)))
    above.set(ylabel="h(r) (1/Å)")
    above.legend(fontsize=7, frameon=False)
    return _png(figure)


def plot_stability(measured: Sequence[Measured]) -> bytes:
    """A bar for the mean of each simulation, a point for each replica: filled where it is stable to the end."""
    figure = _figure(7, 1.2 + 0.45 * len(measured))
    axes = figure.subplots()
    for row, each in enumerate(measured):
        times = [replica.stability for replica in each.replicas]
        axes.barh(row, np.mean(times), color=PALETTE[row % len(PALETTE)], alpha=0.35)
        for replica, offset in zip(each.replicas, np.linspace(-0.25, 0.25, len(times)), strict=True):
            filled = "none" if replica.broken else "black"
            axes.plot(replica.stability, row + offset, "o", color="black", markerfacecolor=filled, markersize=4)
        axes.plot([each.simulation.done_ps] * 2, [row - 0.4, row + 0.4], color="black", linewidth=0.8)
    axes.set_yticks(range(len(measured)), [each.simulation.name for each in measured], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="stable for (ps); the stroke is the length simulated", xlim=(0, None))
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
