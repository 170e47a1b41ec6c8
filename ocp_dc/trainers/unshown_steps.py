"""The training steps that have not been shown yet: their metrics, and whether all was finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from ocp_dc.trainers.prediction import HeldPredictions

IDENTIFIERS = ("sid", "fid")
# held with their batches, however seldom metrics are shown
MOST_UNCHECKED = 256


@dataclass(eq=False)
class _Step:
    number: int
    batch: Batch
    out: dict[str, Tensor]
    loss: Tensor
    overflow: Tensor | None = None

    def is_finite(self) -> bool:
        return math.isfinite(self.loss.item()) and (self.overflow is None or not self.overflow.item())

    def fault(self) -> str | None:
        """What was not finite first."""
        if not all(bool(value.isfinite().all()) for value in self.out.values()):
            return "prediction"
        if not bool(self.loss.isfinite()):
            return "loss"
        return "gradient" if self.overflow is not None and bool(self.overflow) else None


class UnshownSteps:
    """Holds what steps gave until it is looked at, which makes the host wait for the device that computes it.

    Args:
        targets, compute_metrics: of :class:`~ocp_dc.trainers.prediction.HeldPredictions`.
    """

    def __init__(self, targets: list[str], compute_metrics: Callable[[dict, Data, dict], dict]) -> None:
        self._hold = partial(HeldPredictions, targets, compute_metrics)
        self._predictions = self._hold()
        self._unchecked: list[_Step] = []
        self._last: _Step | None = None

    def add(self, number: int, batch: Batch, out: dict[str, Tensor], loss: Tensor) -> None:
        """A step, before its gradients are known."""
        self._predictions.add(batch, out, loss)
        out = {name: value.detach() for name, value in out.items()}
        self._last = _Step(number, batch, out, loss.detach())
        self._unchecked.append(self._last)

    def add_gradients(self, gradients: list[Tensor]) -> None:
        """Those of the step that was added last."""
        step = self._last
        step.overflow = torch.zeros(1, device=step.loss.device)
        # the one operation that looks at many tensors at once; it multiplies them by 1
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, step.overflow, torch.ones_like(step.overflow))
        if step not in self._unchecked:
            self._unchecked.append(step)

    @property
    def must_be_checked(self) -> bool:
        """Whether as many are held as memory is meant for."""
        return len(self._unchecked) >= MOST_UNCHECKED

    def first_not_finite(self) -> tuple[str, int, Batch] | None:
        """Since this was last asked: what was not finite, at which step, and its batch."""
        steps, self._unchecked = self._unchecked, []
        if all(step.is_finite() for step in steps):
            return None
        return next((what, step.number, step.batch) for step in steps if (what := step.fault()))

    def forget(self) -> None:
        """Those that have not been shown, as if they had not been."""
        self._predictions, self._unchecked, self._last = self._hold(), [], None

    def take_metrics(self) -> dict[str, float]:
        """The means over the steps, which are then forgotten."""
        metrics, self._predictions = self._predictions.metrics(), self._hold()
        return {name: float(metric["metric"]) for name, metric in metrics.items()}


def structure_names(batch: Mapping[str, Tensor | list]) -> list[str]:
    """The structures of a batch as fairchem names them: ``sid`` or ``sid_fid``."""
    columns = [batch[key] for key in IDENTIFIERS if key in batch]
    columns = [values.tolist() if isinstance(values, Tensor) else values for values in columns]
    return ["_".join(map(str, words)) for words in zip(*columns, strict=True)]
