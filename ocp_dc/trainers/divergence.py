"""What was not finite first, in a step that came to nothing, and what helps against that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from ocp_dc.edges import molecule_edges
from ocp_dc.errors import GROWTH, Cause

# Å; a direction has no meaning between atoms this close
COINCIDENT = 1e-3
BOUNDED = "model.activation bounded_irelu, whose slope is bounded, may help, or a lower optim.lr_initial"
DATA = "remove these structures, or convert the data again; --check-data finds all of them"
WEIGHTS = "go on from a checkpoint that is sound, with a lower optim.lr_initial or optim.clip_grad_norm"


def find_cause(model: nn.Module, batch: Batch, loss_of: Callable[[Batch], Tensor] | None) -> Cause | None:
    """Looks for it in the order in which a step is computed: labels, positions, weights, activations, gradients.

    Args:
        model: with the weights that the step began with, if ``loss_of`` is given.
        loss_of: computes the step again; None where that cannot be had: then only the data are looked at.

    Returns:
        None where all is finite, or seems so.
    """
    of_data = _label(batch) or _positions(batch)
    if of_data or loss_of is None:
        return of_data
    return _weights(model) or _activation(model, batch, loss_of) or _gradient(model, batch, loss_of)


def _of_structures(batch: Batch, value: Tensor) -> Tensor:
    """(B,) which structures have an entry in ``value`` (B, …) or (N, …) that is not finite."""
    wrong = ~value.isfinite().flatten(1).all(dim=1) if value.dim() > 1 else ~value.isfinite()
    count = len(batch.natoms)
    if len(wrong) == count and len(wrong) != len(batch.batch):
        return wrong
    return torch.zeros(count, device=wrong.device).index_add(0, batch.batch, wrong.float()) > 0


def _label(batch: Batch) -> Cause | None:
    for name in ("energy", "forces"):
        if name in batch and (wrong := _of_structures(batch, batch[name])).any():
            return Cause(f"label {name}", DATA, wrong.tolist())
    return None


def _positions(batch: Batch) -> Cause | None:
    if (wrong := _of_structures(batch, batch.pos)).any():
        return Cause("positions", DATA, wrong.tolist())
    edges, _ = molecule_edges(batch.pos.detach(), batch.natoms, COINCIDENT, max_neighbors=1)
    if not edges.shape[1]:
        return None
    wrong = torch.zeros(len(batch.natoms), dtype=torch.bool, device=edges.device)
    wrong[batch.batch[edges[0]]] = True
    return Cause(f"an edge shorter than {COINCIDENT} Å (atoms at the same place)", DATA, wrong.tolist())


def _weights(model: nn.Module) -> Cause | None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all() and parameter.requires_grad:
            return Cause(f"weight {name}", WEIGHTS)
    return None


def _activation(model: nn.Module, batch: Batch, loss_of: Callable[[Batch], Tensor]) -> Cause | None:
    with _first_output_not_finite(model) as found:
        loss = loss_of(batch)
    if found:
        name, kind = found[0]
        advice = BOUNDED if "IReLU" in kind or "Integrated" in kind else GROWTH
        return Cause(f"output of {name} ({kind})", advice)
    return None if loss.isfinite().all() else Cause("loss", GROWTH)


@contextmanager
def _first_output_not_finite(model: nn.Module) -> Iterator[list[tuple[str, str]]]:
    """Names and classes of the modules whose outputs were not finite, as they end: the first is the innermost."""
    found: list[tuple[str, str]] = []
    hooks = []
    for name, module in model.named_modules():

        def note(module: nn.Module, _inputs: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not output.isfinite().all():
                found.append((name or "the model", type(module).__name__))

        hooks.append(module.register_forward_hook(note))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _gradient(model: nn.Module, batch: Batch, loss_of: Callable[[Batch], Tensor]) -> Cause | None:
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss_of(batch), list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None and not gradient.isfinite().all():
            return Cause(f"gradient of {name}", GROWTH)
    return None
