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
from ocp_dc.files import replace_text, replacing
from ocp_dc.pinn.equations import EQUATIONS, Equation
from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.fields import Field
from ocp_dc.pinn.measures import field_errors
from ocp_dc.pinn.networks import last_signal, never_positive
from ocp_dc.pinn.problem import Points
from ocp_dc.pinn.sources import field_of
from ocp_dc.runs.worker import Quantity, Work

dde = import_deepxde()

LEARNING_RATE = 1e-3
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
    )
    log = folder / description["log"]
    seconds = training.run(description["steps"], log, folder / CHECKPOINT)
    with replacing(folder / PREDICTIONS) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **training.shown())
    losses, errors = training.losses(), training.errors()
    quantities = {**errors, **losses, "never positive": 100 * training.never_positive(), "signal": training.signal()}
    units = {"never positive": "%"}
    return Work({name: Quantity(value, units.get(name, "")) for name, value in quantities.items()}, seconds)


class Training:
    """A network and what it is trained for, in DeepXDE.

    Args:
        field: the data.
        protocol: ``as_published`` or ``corrected``.
        network: the name of an activation, with ``+bn`` for BatchNorm.
        seed: of weights and points.
        points: how many of them.
    """

    def __init__(
        self, equation: Equation, field: Field, protocol: str, network: str, seed: int, points: Points
    ) -> None:
        dde.config.set_random_seed(seed)
        self.step, self.seconds = 0, 0.0
        module = import_module(f"ocp_dc.pinn.{protocol}")
        self._field = module.read(field, equation)
        self._problem = module.problem(equation, field)
        activation, batch_norm = network.removesuffix(BATCH_NORM), network.endswith(BATCH_NORM)
        coupled = batch_norm and protocol == "as_published"
        self._data = self._problem.data(points, pointwise=not coupled)
        self._collocation = torch.as_tensor(self._data.train_x_all)
        net = module.network(equation, activation, batch_norm, self._collocation)
        self._model = dde.Model(self._data, net)
        self._model.compile("adam", lr=LEARNING_RATE, verbose=0)

    def run(self, steps: int, log: Path, checkpoint: Path) -> float:
        """Trains up to ``steps`` steps; the seconds of all, those before the last checkpoint included."""
        if checkpoint.exists():
            self._load(checkpoint)
        _drop_after(log, self.step)
        started, before = time.monotonic(), self.seconds
        while self.step < steps:
            self._model.train_step(self._data.train_x, None, None)
            self.step += 1
            if _due(self.step, steps, LOG_LINES):
                self._log(log, with_errors=_due(self.step, steps, LOGGED_ERRORS))
            if _due(self.step, steps, CHECKPOINTS):
                self.seconds = before + time.monotonic() - started
                self._save(checkpoint)
        return self.seconds

    def losses(self) -> dict[str, float]:
        """Every loss term with the weights as they are; of those with parts, such as ``L_f† mass``, also the sum."""
        values = self._model.outputs_losses_train(self._data.train_x, None, None)[1].detach()
        terms = dict(zip(self._problem.terms, map(float, values), strict=True))
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
        with path.open("a") as file:
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
        self._model.net.load_state_dict(state["network"])
        self._model.opt.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())


def _due(step: int, steps: int, times: int) -> bool:
    """At so many equal intervals, the end included."""
    return step % max(1, steps // times) == 0 or step == steps


def _drop_after(log: Path, step: int) -> None:
    """What a killed worker has logged since its last checkpoint."""
    if log.exists():
        # the last piece is empty, or a line that was being written
        lines = log.read_text().split("\n")[:-1]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        replace_text(log, "".join(f"{line}\n" for line in kept))
