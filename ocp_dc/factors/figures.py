"""The errors of all combinations as one PNG."""

from __future__ import annotations

from matplotlib.axes import Axes

from ocp_dc.evaluation_figures import legend_below, panels, png, set_log
from ocp_dc.experiments.figures import MARKERS, PALETTE
from ocp_dc.factors.definitions import FACTORS
from ocp_dc.factors.tables import MEASURES, cell_of
from ocp_dc.runs.results import Measure, Results

# between the points of one activation, which lie at whole numbers
APART = 0.08


def plot_factors(molecule: str, results: Results) -> bytes:
    """For each error a panel: activations side by side, labels by colour, rates by marker; bars from seed to seed."""
    figure, axes = panels(len(MEASURES))
    for each, measure in zip(axes, MEASURES, strict=True):
        _plot(each, molecule, measure, results)
    legend_below(axes[-1], columns=3)
    return png(figure)


def _plot(axes: Axes, molecule: str, measure: Measure, results: Results) -> None:
    activations = FACTORS["activation"]
    for row, labels in enumerate(FACTORS["labels"]):
        for column, rate in enumerate(FACTORS["rate"]):
            cells = [cell_of(results, molecule, (activation, labels, rate)) for activation in activations]
            ended = [(place, cell) for place, cell in enumerate(cells) if cell.mean(measure) and cell.finished]
            if ended:
                axes.errorbar(
                    [place + APART * (3 * row + column - 4) for place, _ in ended],
                    [cell.mean(measure) for _, cell in ended],
                    yerr=list(zip(*(cell.extent(measure) for _, cell in ended), strict=True)),
                    **{"color": PALETTE[2 * row + 1], "marker": MARKERS[column], "linestyle": "none"},
                    **{"capsize": 2, "markersize": 4, "label": f"{labels} / {rate}"},
                )
    axes.set_xticks(range(len(activations)), activations.values(), rotation=30, ha="right", fontsize=7)
    axes.set(ylabel=measure.title)
    set_log(axes.yaxis)
