"""Predictions of a molecule that is asked for again and again: traced once and replayed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.data import Batch, Data

from ocp_dc.edges import EdgesMixin
from ocp_dc.trainers.traced_graph import scripted, simplify, sources_forgotten
from ocp_dc.trainers.traced_step import OUTPUT_TOLERANCE, TARGETS, batch_norms_of

# to trace takes as long as some hundred predictions save
CALLS_BEFORE_TRACING = 20
COMPOSITIONS = ("natoms", "atomic_numbers")
MOST_COMPOSITIONS = 1000
# kept, some megabytes each
MOST_TRACES = 50
# Å
MOVED = 0.05


class TracedPredictions:
    """Traces a network's predictions for each composition of a batch that comes often.

    Weights are in a trace by reference, so that it follows their training. Before it is used, it is compared with the
    network on the same batch. Of more than ``MOST_TRACES``, that which has not been used for longest is dropped.

    Args:
        model: not wrapped; in evaluation mode, and none of its parameters to be learned, when this is called.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._can = isinstance(model, EdgesMixin) and not batch_norms_of(model)
        self._calls: Counter[tuple[bytes, ...]] = Counter()
        self._replays: dict[tuple[bytes, ...], Callable[..., Sequence[Tensor]] | None] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor] | None:
        """``energy`` (B, 1) and ``forces`` (N, 3) of a batch; None where the network has to be asked itself."""
        if not self._can or self._model.use_pbc or not self._model.regress_forces:
            return None
        key = tuple(batch[name].cpu().numpy().tobytes() for name in COMPOSITIONS)
        self._calls[key] += 1
        if len(self._calls) > MOST_COMPOSITIONS:
            self._calls.clear()
        if self._calls[key] == CALLS_BEFORE_TRACING and key not in self._replays:
            self._replays[key] = self._traced(batch)
            if len(self._replays) > MOST_TRACES:
                del self._replays[next(iter(self._replays))]
        replay = self._replays.get(key)
        if replay is None:
            return None
        # used last: at the end
        self._replays[key] = self._replays.pop(key)
        with torch.no_grad():
            return dict(zip(TARGETS, replay(batch.pos.detach()), strict=True))

    def _traced(self, batch: Batch) -> Callable[..., Sequence[Tensor]] | None:
        if self._model.against_fixed_edges(batch) is not None:
            return None
        try:
            with sources_forgotten():
                replay = _trace(self._model, batch)
        except Exception as error:  # of any class: what cannot be traced fails anywhere
            logging.warning(f"predictions are not traced: {type(error).__name__}: {error}")
            return None
        # at a minimum all forces are rounding: compared where they are not
        moved = batch.clone()
        moved.pos = moved.pos.detach() + MOVED * torch.arange(batch.pos.numel()).sin().view_as(batch.pos).to(batch.pos)
        usual = self._model(moved.clone())
        for target, value in zip(TARGETS, replay(moved.pos), strict=True):
            if not (value - usual[target]).abs().max() <= OUTPUT_TOLERANCE * usual[target].abs().max():
                logging.warning(f"traced predictions differ in {target}: the network is asked each time")
                return None
        return replay


def _trace(model: nn.Module, batch: Batch) -> Callable[..., Sequence[Tensor]]:
    """A function of positions that gives energies and forces."""
    parameters = dict(model.named_parameters())
    constants = {name: value for name, value in batch.items() if name != "pos"}

    def predict(*tensors: Tensor) -> list[Tensor]:
        *own, pos = tensors
        weights = dict(zip(parameters, own, strict=True))
        data = Data(pos=pos.detach(), **constants)
        out = torch.func.functional_call(model, weights, (data,), tie_weights=False)
        return [out[target].detach() for target in TARGETS]

    living = {f"parameter_{index}": parameter.detach() for index, parameter in enumerate(parameters.values())}
    with model.fixed_edges(batch):
        module = make_fx(predict)(*living.values(), batch.pos.detach())
    simplify(module, living)
    return scripted(module, [batch.pos.detach()])
