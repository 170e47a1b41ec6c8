"""Figures of runs: fields, loss terms, and how the networks of a table compare, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ocp_dc.pinn.equations import EQUATIONS
from ocp_dc.pinn.protocols import DERIVATIVE, NRMSE
from ocp_dc.runs.results import RunResult

DOTS_PER_INCH = 110
# of Okabe and Ito, distinct for the colour-blind
PALETTE = ("#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#000000", "#999999")
FIELDS = "fields.npz"


def plot_fields(run: RunResult) -> bytes:
    """True and predicted fields and their difference, a row for each component.

    In one dimension over x and t, in two over x and y at the last time.
    """
    equation = EQUATIONS[run.description["equation"]]
    with np.load(run.folder / FIELDS) as arrays:
        horizontal, vertical, true, predicted = (
            arrays[name] for name in ("horizontal", "vertical", "true", "predicted")
        )
    figure, panels = _panels(len(equation.components), 3, run.name)
    labels = ("x", "t") if equation.space == 1 else ("x", "y")
    extent = (horizontal[0], horizontal[-1], vertical[0], vertical[-1])
    for component, (name, row) in enumerate(zip(equation.components, panels, strict=True)):
        here, there = true[..., component], predicted[..., component]
        limits = {"vmin": min(here.min(), there.min()), "vmax": max(here.max(), there.max())}
        largest = np.abs(there - here).max()
        for axes, values, title, style in (
            (row[0], here, f"true {name}", {"cmap": "viridis", **limits}),
            (row[1], there, f"predicted {name}", {"cmap": "viridis", **limits}),
            (row[2], there - here, "predicted − true", {"cmap": "RdBu", "vmin": -largest, "vmax": largest}),
        ):
            image = axes.imshow(values, origin="lower", aspect="auto", extent=extent, **style)
            axes.set_title(title, fontsize=9)
            axes.set(xlabel=labels[0], ylabel=labels[1])
            figure.colorbar(image, ax=axes)
    return _png(figure)


def plot_losses(run: RunResult) -> bytes:
    """Every loss term by iteration; those with derivatives of the network are dashed."""
    figure, ((axes,),) = _panels(1, 1, run.name, width=6.0)
    terms = [name for name in run.record["quantities"] if name.startswith("L_")]
    for number, term in enumerate(terms):
        style = "--" if DERIVATIVE in term else "-"
        _plot_logged(axes, run, term, label=term, color=PALETTE[number % len(PALETTE)], linestyle=style)
    _finish(axes, "loss term", loc="upper left", bbox_to_anchor=(1, 1))
    return _png(figure)


def compare_runs(runs: Mapping[str, RunResult]) -> bytes:
    """nRMSE and the loss term of the residuals by iteration, for some networks by their labels."""
    figure, ((errors, residuals),) = _panels(1, 2)
    for number, (label, run) in enumerate(runs.items()):
        style = {"label": label, "color": PALETTE[number % len(PALETTE)]}
        _plot_logged(errors, run, NRMSE, marker=".", **style)
        _plot_logged(residuals, run, f"L_f{DERIVATIVE}", **style)
    errors.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    _finish(errors, "nRMSE of the last 20 times")
    _finish(residuals, f"L_f{DERIVATIVE}")
    return _png(figure)


def _plot_logged(axes: Axes, run: RunResult, key: str, **style) -> None:
    steps, values = run.logged(key)
    # a logarithmic axis has no place for 0
    shown = [(step, value) for step, value in zip(steps, values, strict=True) if value > 0]
    if shown:
        axes.plot(*zip(*shown, strict=True), linewidth=1.2, **style)


def _finish(axes: Axes, label: str, **place) -> None:
    axes.set(xlabel="iteration", ylabel=label, yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7, frameon=False, **place)


def _panels(rows: int, columns: int, title: str | None = None, width: float = 4.2) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width * columns, 3.2 * rows), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
