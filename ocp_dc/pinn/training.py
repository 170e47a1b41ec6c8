"""The work of a run: training with DeepXDE, from wherever it stands, and the errors. Importing this imports DeepXDE."""

from __future__ import annotations

import json
import math
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from ocp_dc.errors import DivergedError
from ocp_dc.files import replace_text, replacing, told_where, write_npz
from ocp_dc.pinn.equations import EQUATIONS, Equation
from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.fields import Field
from ocp_dc.pinn.measures import field_errors
from ocp_dc.pinn.networks import last_signal, never_positive
from ocp_dc.pinn.problem import Points
from ocp_dc.pinn.protocols import PROTOCOLS
from ocp_dc.pinn.sources import field_of
from ocp_dc.runs.worker import Quantity, Work

dde = import_deepxde()

LEARNING_RATE = 1e-3
LINE_SEARCH_EVALUATIONS = 25
CHECKPOINT = "checkpoint.pt"
PREDICTIONS = "fields.npz"
BATCH_NORM = "+bn"
# how often in a run
LOG_LINES, CHECKPOINTS, LOGGED_ERRORS = 150, 15, 15
# of a field in the figures, along each coordinate
SHOWN = 256


def train_and_test(folder: Path, description: dict) -> Work:
    """Trains a run from its last checkpoint on, and tests it; leaves its log, ``checkpoint.pt`` and ``fields.npz``.

    Raises:
        DivergedError: a loss is not finite.
    """
    training = Training(
        EQUATIONS[description["equation"]],
        field_of(description, EQUATIONS[description["equation"]]),
        description["protocol"],
        description["network"],
        description["seed"],
        Points(**description["points"]),
        description["steps"],
    )
    log = folder / description["log"]
    seconds = training.run(log, folder / CHECKPOINT)
    with replacing(folder / PREDICTIONS) as partial:
        write_npz(partial, **training.shown())
    losses, errors = training.losses(), training.errors()
    quantities = {**errors, **losses, "never positive": 100 * training.never_positive(), "signal": training.signal()}
    units = {"never positive": "%"}
    return Work({name: Quantity(value, units.get(name, "")) for name, value in quantities.items()}, seconds)


class Training:
    """A network and what it is trained for, in DeepXDE.

    Args:
        field: the data.
        protocol: of ``PROTOCOLS``.
        network: the name of an activation, with ``+bn`` for BatchNorm.
        seed: of weights and points.
        points: how many of them.
        steps: of the whole run.
    """

    def __init__(
        self, equation: Equation, field: Field, protocol: str, network: str, seed: int, points: Points, steps: int
    ) -> None:
        self._protocol, self.steps, self.step, self.seconds = PROTOCOLS[protocol], steps, 0, 0.0
        dde.config.set_default_float(self._protocol.precision)
        dde.config.set_random_seed(seed)
        module = import_module(f"ocp_dc.pinn.{self._protocol.problems}")
        self._field = module.read(field, equation)
        self._problem = module.problem(equation, field)
        activation, batch_norm = network.removesuffix(BATCH_NORM), network.endswith(BATCH_NORM)
        coupled = batch_norm and self._protocol.problems == "as_published"
        self._data = self._problem.data(points, pointwise=not coupled)
        self._collocation = torch.as_tensor(self._data.train_x_all)
        net = module.network(equation, activation, batch_norm, self._collocation)
        self._weights = [1.0] * len(self._problem.terms)
        if self._protocol.scaled:
            sizes, of_terms = module.units(equation, field, self._problem.terms)
            net.in_units(sizes)
            self._weights = [unit**-2 for unit in of_terms]
        self._model = dde.Model(self._data, net)
        self._choose_optimizer()

    def run(self, log: Path, checkpoint: Path) -> float:
        """Trains to the end; the seconds of all steps, those before the last checkpoint included."""
        if checkpoint.exists():
            self._load(checkpoint)
        _drop_after(log, self.step)
        started, before = time.monotonic(), self.seconds
        while self.step < self.steps:
            self._model.train_step(self._data.train_x, None, None)
            self.step += 1
            if self.step == self._adam_steps:
                self._choose_optimizer()
            if self._due(LOG_LINES):
                self._log(log, with_errors=self._due(LOGGED_ERRORS))
            if self._due(CHECKPOINTS):
                self.seconds = before + time.monotonic() - started
                self._save(checkpoint)
        return self.seconds

    @property
    def _adam_steps(self) -> int:
        return self.steps - round(self._protocol.lbfgs * self.steps)

    def _choose_optimizer(self) -> None:
        """Adam, or after its share of the steps L-BFGS, of which a step is an iteration."""
        if self.step < self._adam_steps:
            self._model.compile("adam", lr=LEARNING_RATE, loss_weights=self._weights, verbose=0)
        else:
            dde.optimizers.config.LBFGS_options.update(iter_per_step=1, fun_per_step=LINE_SEARCH_EVALUATIONS)
            self._model.compile("L-BFGS", loss_weights=self._weights, verbose=0)

    def _due(self, times: int) -> bool:
        """At so many equal intervals of the run, the end included."""
        return self.step % max(1, self.steps // times) == 0 or self.step == self.steps

    def losses(self) -> dict[str, float]:
        """Every loss term with the weights as they are; of those with parts, such as ``L_f† mass``, also the sum."""
        values = self._model.outputs_losses_train(self._data.train_x, None, None)[1].tolist()
        of_terms = zip(self._problem.terms, values, self._weights, strict=True)
        terms = {name: value / weight for name, value, weight in of_terms}
        for whole in dict.fromkeys(name.split()[0] for name in terms if " " in name):
            terms[whole] = sum(value for name, value in terms.items() if name.startswith(f"{whole} "))
        return terms

    def errors(self) -> dict[str, float]:
        """Of the field over the last times."""
        inputs, true = self._field.last()
        return field_errors(self.predict(inputs), true)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs (…, C) at inputs (…, D), all at once."""
        dtype = self._model.net.linears[0].weight.dtype
        with torch.no_grad():
            outputs = self._model.net(torch.as_tensor(inputs.reshape(-1, inputs.shape[-1]), dtype=dtype))
        return outputs.cpu().numpy().reshape(*inputs.shape[:-1], -1)

    def never_positive(self) -> float:
        """The share of units into whose activation nothing positive goes at the collocation points."""
        return never_positive(self._model.net, self._collocation)

    def signal(self) -> float:
        """The root mean square of the last hidden layer's signal at the collocation points."""
        return last_signal(self._model.net, self._collocation)

    def shown(self) -> dict[str, np.ndarray]:
        """What figures show: fields (T, X, C) over x and t, or those of two dimensions (Y, X, C) at the last time."""
        flat = len(self._field.space) == 1
        inputs, true = self._field.points(slice(None) if flat else slice(-1, None))
        predicted = self.predict(inputs)
        if not flat:
            inputs, true, predicted = inputs[0], true[0], predicted[0]
        every = -(-true.shape[1] // SHOWN)
        return {
            "horizontal": inputs[0, ::every, 0],
            "vertical": inputs[:, 0, 1],
            "true": true[:, ::every].astype(np.float32),
            "predicted": predicted[:, ::every].astype(np.float32),
        }

    def _log(self, path: Path, with_errors: bool) -> None:
        record = {"step": self.step, **self.losses(), **(self.errors() if with_errors else {})}
        wrong = [name for name, value in record.items() if not math.isfinite(value)]
        if wrong:
            raise DivergedError(f"{', '.join(wrong)} not finite at step {self.step}", self.step)
        with told_where(path), path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "network": self._model.net.state_dict(),
            "optimizer": self._model.opt.state_dict(),
            "random": torch.get_rng_state(),
        }
        with replacing(path) as partial:
            torch.save(state, partial)

    def _load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self._choose_optimizer()
        self._model.net.load_state_dict(state["network"])
        self._model.opt.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())


def _drop_after(log: Path, step: int) -> None:
    """What a killed worker has logged since its last checkpoint."""
    if log.exists():
        # the last piece is empty, or a line that was being written
        lines = log.read_text().split("\n")[:-1]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        replace_text(log, "".join(f"{line}\n" for line in kept))
