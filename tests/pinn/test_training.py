"""The work of a run: what it leaves, and that a killed one ends with the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ocp_dc.errors import DivergedError
from ocp_dc.pinn.equations import ADVECTION, EQUATIONS
from ocp_dc.pinn.extra import import_deepxde
from ocp_dc.pinn.protocols import SCALES
from ocp_dc.pinn.sources import GeneratedSource, field_of
from ocp_dc.runs.records import last_logged_step, read_record, write_record

pytest.importorskip("deepxde", reason='needs the extra: pip install ".[pinn]"')

from ocp_dc.pinn.problem import Points
from ocp_dc.pinn.training import Training, train_and_test

SMOKE = SCALES["smoke"]


@pytest.fixture(autouse=True)
def _single():
    yield
    import_deepxde().config.set_default_float("float32")


@pytest.fixture
def describe(tmp_path):
    """A function that prepares the folder of a run; the folder and its description."""

    def make(equation=ADVECTION, protocol="corrected", network="irelu", steps=30, name="run"):
        path, data = GeneratedSource(tmp_path / "data", 0, *SMOKE.grid(equation)).prepare(equation)
        description = {
            "work": "ocp_dc.pinn.training:train_and_test",
            "equation": equation.name,
            "protocol": protocol,
            "network": network,
            "seed": 3,
            "steps": steps,
            "log": "metrics.jsonl",
            "points": SMOKE.points,
            "data": data,
            "data_path": str(path),
        }
        write_record(tmp_path / name / "experiment.json", description)
        return tmp_path / name, description

    return make


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["network"]


def logged(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("network", ["tanh", "irelu+bn"])
@pytest.mark.parametrize("protocol", ["as_published", "corrected"])
def test_what_a_run_leaves(describe, equation, protocol, network):
    folder, description = describe(equation, protocol, network)
    work = train_and_test(folder, description)
    names = set(work.quantities)
    assert {"MSE", "RMSE", "nRMSE", "never positive", "signal", "L_f†"} < names
    assert names > {name for name in names if name.startswith("L_")} > {"L_f†"}
    lines = logged(folder)
    assert [line["step"] for line in lines] == list(range(1, 31))
    # the last line has what the run came to
    assert lines[-1]["nRMSE"] == pytest.approx(work.quantities["nRMSE"].value, rel=1e-5)
    assert lines[-1]["L_f†"] == pytest.approx(work.quantities["L_f†"].value, rel=1e-5)
    assert sum(line["L_f†"] for line in lines[-5:]) != sum(line["L_f†"] for line in lines[:5])
    with np.load(folder / "fields.npz") as fields:
        assert fields["true"].shape == fields["predicted"].shape
        assert fields["true"].shape[:2] == (len(fields["vertical"]), len(fields["horizontal"]))
    assert work.seconds > 0


def test_the_sums_of_parts(describe):
    folder, description = describe(EQUATIONS["cfd"], "corrected", "tanh", steps=1)
    quantities = {name: each.value for name, each in train_and_test(folder, description).quantities.items()}
    parts = [quantities[f"L_f† {name}"] for name in ("mass", "momentum", "energy")]
    assert quantities["L_f†"] == pytest.approx(sum(parts))


@pytest.mark.parametrize(
    ("protocol", "network", "step"),
    [
        ("corrected", "irelu", 17),
        ("corrected", "tanh+bn", 17),
        ("corrected_float64", "tanh", 17),
        ("corrected_scaled", "irelu", 17),
        ("corrected_lbfgs", "tanh", 28),
    ],
)
def test_a_run_goes_on_to_the_same_weights(describe, protocol, network, step, monkeypatch):
    whole, description = describe(protocol=protocol, network=network, name="whole")
    train_and_test(whole, description)
    parts, description = describe(protocol=protocol, network=network, name="parts")
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_log", stop_at(step, Training._log))
        with pytest.raises(KeyboardInterrupt):
            train_and_test(parts, description)
    # what was logged after the last checkpoint, the last line cut
    with (parts / "metrics.jsonl").open("a") as log:
        log.write(f'{{"step": {step}, "L_f†": 1.0}}\n{{"step": 1')
    train_and_test(parts, description)
    assert logged(parts) == logged(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name


def test_units_change_what_training_sees_and_not_what_is_reported(describe, equation):
    """Of a network whose last layer gives 1 in units, the outputs are the sizes of the data."""
    _, description = describe(equation, "corrected_scaled", "tanh")
    field = field_of(description, equation)
    training = Training(equation, field, "corrected_scaled", "tanh", 0, Points(**SMOKE.points), 1)
    with torch.no_grad():
        training._model.net.linears[-1].weight.zero_()
        training._model.net.linears[-1].bias.fill_(1.0)
    inputs, values = field.initial()
    sizes = np.sqrt(np.square(values).mean(axis=0))
    if equation.name == "cfd":
        units = dict(zip(training._problem.terms, np.array(training._weights) ** -0.5, strict=True))
        assert [units[f"L_f† {name}"] for name in ("mass", "momentum", "energy")] == pytest.approx(sizes[[0, 2, 2]])
    assert training.predict(inputs[:3]) == pytest.approx(np.tile(sizes, (3, 1)), rel=1e-5)
    losses = training.losses()
    for name, size, true in zip(losses_of_initial(equation), sizes, values.T, strict=True):
        assert losses[name] == pytest.approx(np.square(size - true).mean(), rel=1e-4)
        # what is trained for is of order 1
        assert losses[name] * training._weights[training._problem.terms.index(name)] < 5


def losses_of_initial(equation) -> list[str]:
    names = {"advection": [""], "cfd": ["_d", "_v", "_p"], "diffusion_reaction": ["_u", "_v"]}[equation.name]
    return [f"L_IC{name}" for name in names]


def test_lbfgs_goes_on_where_adam_ends(describe):
    folder, description = describe(protocol="corrected_lbfgs", network="tanh", steps=60)
    train_and_test(folder, description)
    losses = {line["step"]: sum(line[name] for name in ("L_f†", "L_IC", "L_BC")) for line in logged(folder)}
    assert losses[60] < losses[48] < losses[1]
    assert len(torch.load(folder / "checkpoint.pt", weights_only=True)["optimizer"]["state"]) == 1


def stop_at(step, function):
    def stop(self, *args, **kwargs):
        if self.step == step:
            raise KeyboardInterrupt
        return function(self, *args, **kwargs)

    return stop


def test_a_killed_worker_is_replaced_and_ends_with_the_same_weights(describe):
    whole, description = describe(steps=300, name="whole")
    train_and_test(whole, description)
    killed, _ = describe(steps=300, name="killed")
    command = [sys.executable, "-m", "ocp_dc.runs.worker", str(killed)]
    # threads add up sums in another order
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as worker:
        while last_logged_step(killed / "metrics.jsonl") < 100 and worker.poll() is None:
            time.sleep(0.02)
        worker.send_signal(signal.SIGKILL)
    assert not (killed / "result.json").exists()
    assert 0 < torch.load(killed / "checkpoint.pt", weights_only=True)["step"] < 300
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert read_record(killed / "result.json")["status"] == "finished"
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(killed)[name]), name


def test_losses_that_are_not_finite_end_the_run(describe, monkeypatch):
    folder, description = describe()
    finite = Training.losses

    def losses(self):
        return {**finite(self), "L_IC": float("nan") if self.step > 10 else 1.0}

    monkeypatch.setattr(Training, "losses", losses)
    with pytest.raises(DivergedError, match="L_IC not finite at step 11"):
        train_and_test(folder, description)
    assert logged(folder)[-1]["step"] == 10


def test_irelu_is_dead_from_the_start_as_published_and_not_as_corrected(describe):
    signals = {}
    for protocol in ("as_published", "corrected"):
        folder, description = describe(protocol=protocol, steps=1, name=protocol)
        signals[protocol] = train_and_test(folder, description).quantities["signal"].value
    assert signals["as_published"] < 1e-9
    assert signals["corrected"] > 1e-3
