"""A training step that is traced once and replayed: energies, forces, loss and the gradients of all parameters.

The step's shapes must not change, so all pairs of a molecule's atoms are edges (:meth:`EdgesMixin.fixed_edges`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.data import Batch, Data

from ocp_dc.edges import EdgesMixin
from ocp_dc.errors import InputError, TraceMismatchError
from ocp_dc.models.batch_norm import BatchNorm1d, Seen, statistics_apart
from ocp_dc.trainers.traced_graph import scripted, simplify

MODES = ("auto", "eager", "traced", "cuda_graph")
# the fields that a trace takes for constants; a batch with others gets a trace of its own
CONSTANTS = ("natoms", "atomic_numbers", "fixed")
TARGETS = ("energy", "forces")
MOST_TRACES = 8
# to trace and compare takes about as long as this many steps save
WORTH_TRACING = 200
# Of outputs, relative to the largest: forces of a network that has learned total energies, large numbers that cancel,
# are rounded to 2e-5 of it. Of a parameter's gradient, in the Euclidean norm, and of that of the parameter with the
# largest. A second derivative of IReLU that rounding has flipped, 0 or 1, shows in a gradient's percent.
OUTPUT_TOLERANCE = 1e-4
GRADIENT_TOLERANCE, LARGEST_GRADIENT_TOLERANCE = 1e-2, 1e-6


@dataclass
class Step:
    """What a step gives before the optimizer takes its gradients.

    Attributes:
        out: ``energy`` (B, 1) and ``forces`` (N, 3).
        loss: a number.
        learned: the parameters whose gradients are wanted; None for those of all that the loss depends on, positions
            among them.
    """

    out: dict[str, Tensor]
    loss: Tensor
    learned: list[nn.Parameter] | None = None

    def backward(self) -> None:
        """Leaves the gradients in the parameters."""
        self.loss.backward(inputs=self.learned)


@dataclass
class ReplayedStep(Step):
    """One whose gradients are known.

    Attributes:
        seen: of each batch normalization, what its running statistics have still to take.
    """

    gradients: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def backward(self) -> None:
        for parameter, gradient in self.gradients.items():
            parameter.grad = gradient


@dataclass
class _Trace:
    """``replay(pos, energy, forces)`` gives loss, energies, forces, the gradients of ``parameters``, and what ``norms``
    have seen: means and variances in turns."""

    replay: Callable[..., Sequence[Tensor]]
    parameters: list[nn.Parameter]
    norms: list[BatchNorm1d]
    compared: bool = False
    differed: bool = False


class TracedStep:
    """Traces a step for each composition of a batch, such as the fewer conformations of an epoch's last.

    Before a trace is used, its outputs and gradients are compared with those of the usual step on the same batch, and
    once more after :meth:`compare_again`.

    Args:
        model: not wrapped, and in training mode when it is called.
        usual: the step with the model's own edges.
        compute_loss: ``(out, batch)``, the loss of ``energy`` and ``forces``.
        captured: record each trace in a CUDA graph.
        level: at which the log says that steps are not replayed, and why.
    """

    def __init__(
        self,
        model: nn.Module,
        usual: Callable[[Batch], Step],
        compute_loss: Callable[[dict[str, Tensor], Data], Tensor],
        captured: bool = False,
        level: int = logging.WARNING,
    ) -> None:
        self._model = model
        self._usual = usual
        self._compute_loss = compute_loss
        self._captured = captured
        self._level = level
        self._traces: dict[tuple[bytes, ...], _Trace | None] = {}
        self._messages: set[str] = set()

    def __call__(self, batch: Batch) -> Step:
        """The step of a batch: replayed, or the usual one where that is not possible, which the log then says.

        Raises:
            TraceMismatchError: the usual step gives something else, on two batches.
        """
        trace = self._trace_of(batch)
        if trace is None:
            return self._usual(batch)
        step = self._replayed(trace, batch)
        if not trace.compared:
            step = self._compared(trace, step, batch)
        if isinstance(step, ReplayedStep):
            for seen in step.seen:
                seen.keep()
        return step

    def compare_again(self) -> None:
        """At the next step of each trace."""
        for trace in filter(None, self._traces.values()):
            trace.compared = trace.differed = False

    def _trace_of(self, batch: Batch) -> _Trace | None:
        """What replays the step of a batch; None where nothing can."""
        key = tuple(batch[name].cpu().numpy().tobytes() for name in CONSTANTS)
        known = key in self._traces
        if not known and (reason := self.against(batch)):
            self._refused(reason)
            if len(self._traces) < MOST_TRACES:
                self._traces[key] = None
            return None
        if known and self._traces[key] is None:
            return None
        if reason := self._model.against_fixed_edges_at(batch.pos, len(batch.natoms)):
            self._log(f"some training steps run eagerly: {reason}")
            return None
        if not known:
            self._traces[key] = self._traced(batch)
        return self._traces[key]

    def against(self, batch: Batch) -> str | None:
        """Why the step of this batch cannot be replayed, as far as that is known before it is traced."""
        model = self._model
        if len(self._traces) >= MOST_TRACES:
            return f"more than {MOST_TRACES} compositions of a batch"
        if not isinstance(model, EdgesMixin):
            return f"{type(model).__name__} has no fixed edges"
        if not model.regress_forces:
            return "model.regress_forces is False"
        if name := next((name for name, norm in batch_norms_of(model) if not _can_be_apart(norm)), None):
            return f"{name} keeps statistics of the batches"
        parameters = [p for module in model.modules() for p in module._parameters.values() if p is not None]
        if len(set(parameters)) < len(parameters):
            return "two modules of the model share a parameter"
        return model.against_fixed_edges(batch)

    def _traced(self, batch: Batch) -> _Trace | None:
        device = next(self._model.parameters()).device
        batch = batch.to(device)
        inputs = _inputs(batch)
        try:
            with self._model.fixed_edges(batch):
                module, parameters, norms = _trace(self._model, self._compute_loss, batch)
                replay = module.forward if self._captured else scripted(module, inputs)
        except Exception as error:
            return self._refused(f"{type(error).__name__} while it was traced: {error}")
        if self._captured:
            replay = _capture(replay, inputs)
        logging.info(f"the training step of {len(batch.natoms)} structures is traced, and replayed")
        return _Trace(replay, parameters, norms)

    def _refused(self, reason: str) -> None:
        self._log(f"the training step runs eagerly: {reason}")

    def _log(self, message: str) -> None:
        """Once."""
        if message not in self._messages:
            logging.log(self._level, message)
        self._messages.add(message)

    def _replayed(self, trace: _Trace, batch: Batch) -> ReplayedStep:
        device = trace.parameters[0].device
        if device.type != "cpu":
            batch.to(device)
        with torch.no_grad():
            loss, energy, forces, *others = trace.replay(*_inputs(batch))
        gradients, statistics = others[: len(trace.parameters)], others[len(trace.parameters) :]
        out = {"energy": energy, "forces": forces}
        if self._captured:
            # the next replay overwrites them
            loss, out = loss.clone(), {name: value.clone() for name, value in out.items()}
        seen = [Seen(*each) for each in zip(trace.norms, statistics[::2], statistics[1::2], strict=True)]
        return ReplayedStep(out, loss, gradients=dict(zip(trace.parameters, gradients, strict=True)), seen=seen)

    def _compared(self, trace: _Trace, step: ReplayedStep, batch: Batch) -> Step:
        """The step, if the usual one gives the same; if not, the usual one, for the first time."""
        usual, expected = self._usual_apart(batch)
        difference = self._difference(step, usual, batch, expected)
        if difference is None:
            trace.compared = True
            return step
        if trace.differed:
            raise TraceMismatchError(
                f"the replayed training step differs from the usual one in {difference}; set optim.step to eager, and "
                "please report this"
            )
        logging.warning(f"the replayed training step differs in {difference}: compared again at the next")
        trace.differed = True
        for seen in expected:
            seen.keep()
        return usual

    def _usual_apart(self, batch: Batch) -> tuple[Step, list[Seen]]:
        with statistics_apart() as seen:
            return self._usual(batch), seen

    def _difference(self, step: ReplayedStep, usual: Step, batch: Batch, seen: list[Seen]) -> str | None:
        """What differs beyond rounding. Numbers that are not finite are left to the trainer."""
        if not bool(step.loss.isfinite() & usual.loss.isfinite()):
            return None
        for name, value in (*step.out.items(), ("loss", step.loss)):
            expected = usual.loss if name == "loss" else usual.out[name]
            if (value - expected).abs().max() > OUTPUT_TOLERANCE * expected.abs().max():
                return name
        expected = self._usual_gradients(step, usual, batch)
        largest = max(gradient.norm() for gradient in expected.values())
        names = {parameter: name for name, parameter in self._model.named_parameters()}
        for parameter, gradient in expected.items():
            replayed = step.gradients.get(parameter, torch.zeros_like(gradient))
            allowed = GRADIENT_TOLERANCE * gradient.norm() + LARGEST_GRADIENT_TOLERANCE * largest
            if not (replayed - gradient).norm() <= allowed:
                return f"the gradient of {names[parameter]}"
        return self._difference_seen(step.seen, seen)

    def _difference_seen(self, replayed: list[Seen], usual: list[Seen]) -> str | None:
        """What differs of the statistics of batch normalizations."""
        names = {norm: name for name, norm in batch_norms_of(self._model)}
        for one, other in zip(replayed, usual, strict=True):
            for name, value, expected in zip(Seen._fields[1:], one[1:], other[1:], strict=True):
                if not (value - expected).abs().max() <= OUTPUT_TOLERANCE * expected.abs().max():
                    return f"the {name} that {names[one.norm]} sees"
        return None

    def _usual_gradients(self, step: Step, usual: Step, batch: Batch) -> dict[nn.Parameter, Tensor]:
        """Of the loss at the replayed outputs.

        Where an output is as large as its label, rounding decides on the sign of an absolute loss's derivative.
        """
        leaves = {name: value.clone().requires_grad_() for name, value in step.out.items()}
        slopes = torch.autograd.grad(self._compute_loss(leaves, batch), list(leaves.values()))
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        outputs = [usual.out[name] for name in leaves]
        gradients = torch.autograd.grad(outputs, parameters, slopes, allow_unused=True)
        return {p: torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)}


def batch_norms_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The batch normalizations of a model, and others that keep statistics, by name."""
    return [each for each in model.named_modules() if isinstance(each[1], nn.modules.batchnorm._NormBase)]


def _can_be_apart(norm: nn.Module) -> bool:
    """Whether the statistics of a normalization can be kept after the step."""
    return isinstance(norm, BatchNorm1d) and norm.has_running_averages


def _inputs(batch: Batch) -> list[Tensor]:
    return [batch.pos.detach(), *(batch[target] for target in TARGETS)]


def _trace(
    model: nn.Module, compute_loss: Callable[[dict[str, Tensor], Data], Tensor], batch: Batch
) -> tuple[fx.GraphModule, list[nn.Parameter], list[BatchNorm1d]]:
    """A function of positions and labels that gives loss, outputs, gradients, and what batch normalizations see.

    And the parameters and the normalizations of these. The parameters are in it by reference, so that it follows the
    optimizer.

    Raises:
        InputError: a normalization sees more than one batch in a step.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    constants = {name: batch[name].clone() for name in (*CONSTANTS, "batch")}
    # fairchem's element references look at this number, which a trace could not
    constants["natoms"].sum = lambda: len(batch.pos)
    used, norms = [], []

    def step(*tensors: Tensor) -> list[Tensor]:
        own = {name: tensor.detach().requires_grad_() for name, tensor in zip(parameters, tensors, strict=False)}
        pos, *labels = tensors[len(own) :]
        data = Data(pos=pos.detach(), **dict(zip(TARGETS, labels, strict=True)), **constants)
        # a module under two names, as SchNet's filter networks are, must not be replaced, and put back, twice
        with statistics_apart() as seen:
            out = torch.func.functional_call(model, own, (data,), tie_weights=False)
        loss = compute_loss(out, data)
        gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
        used.extend(name for name, gradient in zip(own, gradients, strict=True) if gradient is not None)
        # a fused optimizer takes gradients laid out as the parameters
        gradients = [gradient.contiguous() for gradient in gradients if gradient is not None]
        norms.extend(norm for norm, _, _ in seen)
        if len(set(norms)) < len(norms):
            raise InputError("a batch normalization is used twice in a step")
        statistics = [value for _, *values in seen for value in values]
        return [loss.detach(), *(out[target].detach() for target in TARGETS), *gradients, *statistics]

    living = {f"parameter_{index}": parameter.detach() for index, parameter in enumerate(parameters.values())}
    module = make_fx(step)(*living.values(), *_inputs(batch))
    simplify(module, living)
    return module, [parameters[name] for name in used], norms


def _capture(replay: Callable[..., Sequence[Tensor]], inputs: list[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """The same, of launches that were recorded once, and with results that the next call overwrites."""
    held = [value.clone() for value in inputs]
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(aside):
        for _ in range(3):  # libraries choose and allocate, which a graph cannot
            replay(*held)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        results = replay(*held)

    def from_recording(*fresh: Tensor) -> list[Tensor]:
        for tensor, value in zip(held, fresh, strict=True):
            tensor.copy_(value, non_blocking=True)
        graph.replay()
        return results

    # the recorded launches read the trace's constants, whose memory would be given to others
    from_recording.trace = replay
    return from_recording
