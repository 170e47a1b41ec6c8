"""What predicting alone needs: larger batches than training's, and metrics of many batches at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

# of a batch: a CPU is fastest while what belongs to its edges stays in the caches, a GPU wants to be filled
EDGES = {"cpu": 4096, "cuda": 32768}
USUAL_MAX_NEIGHBORS = 50
# what metrics read of a batch besides its labels
STRUCTURES = ("natoms", "atomic_numbers", "fixed")
HELD_AT_MOST = 64


def evaluation_batch_size(structure: Data, device: torch.device) -> int:
    """How many structures like this one to predict at once: those with some ``EDGES``, one at least.

    It bounds memory: predictions keep a third of what a training step of the same batch keeps. Edges are taken to be
    those to all other atoms, or to 50 of them where there are more or the structure is periodic.
    """
    atoms = int(structure.natoms)
    periodic = "pbc" not in structure or bool(structure.pbc.any())
    neighbors = USUAL_MAX_NEIGHBORS if periodic else min(USUAL_MAX_NEIGHBORS, atoms - 1)
    return max(1, EDGES[device.type] // (atoms * max(1, neighbors)))


class HeldPredictions:
    """Predictions, labels and losses of batches, kept for a while: a metric of one costs as much as one of fifty.

    Args:
        targets: the outputs that have labels.
        compute_metrics: ``(out, batch, metrics)`` adds a batch's to ``metrics``, as fairchem's trainers keep them.
    """

    def __init__(self, targets: list[str], compute_metrics: Callable[[dict, Data, dict], dict]) -> None:
        self._fields = (*STRUCTURES, *targets)
        self._compute_metrics = compute_metrics
        self._held: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self._losses: list[Tensor] = []
        self._loss_sum: Tensor | float = 0.0
        self._count = 0
        self._metrics: dict[str, dict] = {}

    def add(self, batch: Batch, out: dict[str, Tensor], loss: Tensor) -> None:
        """A batch with its predictions and its loss; nothing waits for the device that computes them."""
        fields = {name: batch[name] for name in self._fields}
        self._held.append((fields, {name: value.detach() for name, value in out.items()}))
        self._losses.append(loss.detach())
        if len(self._held) == HELD_AT_MOST:
            self._fold()

    def metrics(self) -> dict[str, dict]:
        """``metric``, ``total`` and ``numel`` of each metric, over all batches; of ``loss``, over their number."""
        if self._held:
            self._fold()
        total = float(self._loss_sum)
        return {**self._metrics, "loss": {"metric": total / self._count, "total": total, "numel": self._count}}

    def _fold(self) -> None:
        fields, out = (_joined(parts) for parts in zip(*self._held, strict=True))
        self._loss_sum = self._loss_sum + torch.stack(self._losses).double().sum()
        self._count += len(self._losses)
        self._held, self._losses = [], []
        natoms = fields["natoms"]
        structure = torch.arange(len(natoms), device=natoms.device).repeat_interleave(natoms)
        self._metrics = self._compute_metrics(out, Data(**fields, batch=structure), self._metrics)


def _joined(parts: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
