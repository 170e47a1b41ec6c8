"""How long a step of training may take on a GPU, from what it computes: for plans of what has not been measured."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ocp_dc.experiments.scales import PUBLISHED_WIDTH

if TYPE_CHECKING:
    from ocp_dc.experiments.plan import Run

# made by scripts/count_step_costs.py
COSTS_FILE = Path(__file__).with_name("step_costs.json")


@dataclass(frozen=True)
class Throughput:
    """What a GPU is taken to do.

    Attributes:
        tflops: 10¹² floating-point operations of matrix products a second, in float32.
        microseconds: for each operation, however small: launching it, and what autograd does for it.
    """

    # a quarter of what an A100 has at most
    tflops: float = 5.0
    # of eager PyTorch; a CUDA graph takes less
    microseconds: float = 10.0

    def seconds(self, flops: float, operations: int) -> float:
        """Of a step of so many."""
        return flops / (1e12 * self.tflops) + 1e-6 * self.microseconds * operations

    @property
    def assumption(self) -> str:
        return (
            f"of what a step at published widths computes, counted, at {self.tflops:g} TFLOP/s of matrix products and "
            f"{self.microseconds:g} µs an operation, on one GPU; --assume-tflops and --assume-microseconds change it; "
            "finished runs replace it"
        )


@functools.cache
def counted_costs() -> dict[str, dict]:
    """By config, at published widths: ``operations`` of a step, and ``flops`` of a structure, by molecule."""
    return json.loads(COSTS_FILE.read_text())["costs"]


def estimated_step_seconds(run: Run, throughput: Throughput) -> float | None:
    """Of a run at published widths; a config that was not counted is taken to cost what its model's baseline does.

    Returns:
        None at other widths, and where neither is counted for the molecule.
    """
    experiment = run.experiment
    if run.scale.width_name != PUBLISHED_WIDTH:
        return None
    baseline = f"{experiment.collection.name}/{experiment.model}"
    for cost in filter(None, map(counted_costs().get, (experiment.config, baseline))):
        if experiment.molecule in cost["flops"]:
            return throughput.seconds(run.batch_size * cost["flops"][experiment.molecule], cost["operations"])
    return None
