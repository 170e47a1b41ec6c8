"""The training steps that have not been shown yet: their metrics, and whether all was finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

# what metrics need of a batch besides its labels
STRUCTURES = ("natoms", "atomic_numbers", "fixed")
IDENTIFIERS = ("sid", "fid")
# no more are held, however seldom steps are shown
HELD_AT_MOST = 100


@dataclass(eq=False)
class _Step:
    number: int
    fields: dict[str, Tensor]
    identifiers: dict[str, Tensor | list]
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

    A metric of one batch costs as much as one of ten: metrics are computed of all steps together.

    Args:
        targets: the outputs that have labels.
        compute_metrics: ``(out, batch, metrics)`` adds the batch's to ``metrics``, as fairchem's trainers keep them.
    """

    def __init__(self, targets: list[str], compute_metrics: Callable[[dict, Data, dict], dict]) -> None:
        self._fields = (*STRUCTURES, *targets)
        self._compute_metrics = compute_metrics
        self._held: list[_Step] = []
        self._unchecked: list[_Step] = []
        self._metrics: dict = {}
        self._losses: list[float] = []

    def add(self, number: int, batch: Batch, out: dict[str, Tensor], loss: Tensor) -> None:
        """A step, before its gradients are known."""
        if len(self._held) == HELD_AT_MOST:
            self._fold()
        step = _Step(
            number,
            {name: batch[name] for name in self._fields},
            {name: batch[name] for name in IDENTIFIERS if name in batch},
            {name: value.detach() for name, value in out.items()},
            loss.detach(),
        )
        self._held.append(step)
        self._unchecked.append(step)

    def add_gradients(self, gradients: list[Tensor]) -> None:
        """Those of the step that was added last."""
        step = self._held[-1]
        step.overflow = torch.zeros(1, device=step.loss.device)
        # the one operation that looks at many tensors at once; it multiplies them by 1
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, step.overflow, torch.ones_like(step.overflow))
        if step not in self._unchecked:
            self._unchecked.append(step)

    def first_not_finite(self) -> tuple[str, int, list[str]] | None:
        """Since this was last asked: what was not finite, at which step, and the names of its structures."""
        steps, self._unchecked = self._unchecked, []
        if all(step.is_finite() for step in steps):
            return None
        return next((what, step.number, structure_names(step.identifiers)) for step in steps if (what := step.fault()))

    def take_metrics(self) -> dict[str, float]:
        """The means over the steps, which are then forgotten."""
        self._fold()
        means = {name: float(metric["metric"]) for name, metric in self._metrics.items()}
        means["loss"] = sum(self._losses) / len(self._losses)
        self._metrics, self._losses = {}, []
        return means

    def _fold(self) -> None:
        steps, self._held = self._held, []
        fields = {name: torch.cat([step.fields[name] for step in steps]) for name in self._fields}
        natoms = fields["natoms"]
        structure = torch.arange(len(natoms), device=natoms.device).repeat_interleave(natoms)
        out = {name: torch.cat([step.out[name] for step in steps]) for name in steps[0].out}
        self._metrics = self._compute_metrics(out, Data(**fields, batch=structure), self._metrics)
        self._losses += torch.stack([step.loss for step in steps]).tolist()


def structure_names(batch: Mapping[str, Tensor | list]) -> list[str]:
    """The structures of a batch as fairchem names them: ``sid`` or ``sid_fid``."""
    columns = [batch[key] for key in IDENTIFIERS if key in batch]
    columns = [values.tolist() if isinstance(values, Tensor) else values for values in columns]
    return ["_".join(map(str, words)) for words in zip(*columns, strict=True)]
