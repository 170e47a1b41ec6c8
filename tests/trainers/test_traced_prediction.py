"""Traced predictions equal the network's, follow its weights, and are left alone where they cannot be."""

from __future__ import annotations

import gc
import linecache
import logging

import pytest
import torch
from torch.fx.graph_module import _loader
from torch_geometric.data import Batch, Data

from ocp_dc.models import CGCNNIReLU, SchNetIReLU
from ocp_dc.trainers import traced_prediction
from ocp_dc.trainers.traced_prediction import TracedPredictions

NUMBERS = torch.tensor([6, 8, 1, 1, 1])


@pytest.fixture(autouse=True)
def _at_the_second_call(monkeypatch):
    monkeypatch.setattr(traced_prediction, "CALLS_BEFORE_TRACING", 2)


def batch_of(seed: int, count: int = 3, numbers: torch.Tensor = NUMBERS) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    positions = 2.5 * torch.randn(count, len(numbers), 3, generator=generator, dtype=torch.float64)
    fields = {"atomic_numbers": numbers, "natoms": len(numbers), "cell": torch.eye(3)[None]}
    return Batch.from_data_list([Data(pos=own, **fields) for own in positions])


def schnet(**settings) -> SchNetIReLU:
    torch.manual_seed(0)
    widths = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 6, "cutoff": 6.0}
    return SchNetIReLU(**widths, **settings).double().eval().requires_grad_(False)


def assert_replayed_equals(model, predictions, batch):
    replayed = predictions(batch)
    assert replayed is not None
    for target, expected in model(batch.clone()).items():
        torch.testing.assert_close(replayed[target], expected, rtol=1e-10, atol=1e-12)


def test_replays_equal_the_network_and_follow_its_weights():
    model = schnet()
    predictions = TracedPredictions(model)
    assert predictions(batch_of(0)) is None
    assert_replayed_equals(model, predictions, batch_of(1))
    for parameter in model.parameters():
        parameter.data.mul_(1.1)
    assert_replayed_equals(model, predictions, batch_of(2))


def test_each_composition_is_counted_apart():
    model = schnet()
    predictions = TracedPredictions(model)
    assert predictions(batch_of(0)) is None
    assert predictions(batch_of(0, count=2)) is None
    assert predictions(batch_of(0, numbers=NUMBERS.flip(0))) is None
    assert_replayed_equals(model, predictions, batch_of(1, numbers=NUMBERS.flip(0)))


def test_what_differs_from_the_network_is_not_used(monkeypatch, caplog):
    model = schnet()
    predictions = TracedPredictions(model)
    trace = traced_prediction._trace
    wrong = lambda *given: lambda pos: [1.001 * value for value in trace(*given)(pos)]  # noqa: E731
    monkeypatch.setattr(traced_prediction, "_trace", wrong)
    with caplog.at_level(logging.WARNING):
        assert [predictions(batch_of(seed)) for seed in range(3)] == [None] * 3
    assert "traced predictions differ in energy" in caplog.text


def test_what_cannot_be_traced_is_asked_each_time(monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("it draws random numbers")

    monkeypatch.setattr(traced_prediction, "_trace", fails)
    predictions = TracedPredictions(schnet())
    with caplog.at_level(logging.WARNING):
        assert [predictions(batch_of(seed)) for seed in range(3)] == [None] * 3
    assert "predictions are not traced: RuntimeError: it draws random numbers" in caplog.text


@pytest.mark.parametrize(
    "model", [schnet(use_pbc=True), schnet(regress_forces=False), CGCNNIReLU(activation="original").eval()]
)
def test_periodic_structures_energies_alone_and_batch_normalization_are_left_alone(model):
    predictions = TracedPredictions(model)
    assert [predictions(batch_of(seed)) for seed in range(3)] == [None] * 3


def carbon_monoxides(kind: int) -> Batch:
    return batch_of(kind, numbers=torch.tensor([6 + 2 * (kind >> bit & 1) for bit in range(5)]))


def test_of_many_compositions_the_last_used_are_kept(monkeypatch):
    monkeypatch.setattr(traced_prediction, "MOST_TRACES", 2)
    model = schnet()
    predictions = TracedPredictions(model)
    for kind in (0, 0, 1, 1, 0, 2, 2):
        predictions(carbon_monoxides(kind))
    # the second was used before the first was again
    assert predictions(carbon_monoxides(1)) is None
    assert_replayed_equals(model, predictions, carbon_monoxides(0))
    assert_replayed_equals(model, predictions, carbon_monoxides(2))
    assert len(predictions._replays) == 2


def test_what_is_dropped_leaves_memory(monkeypatch):
    """``torch.jit.trace`` keeps the constants of all that it has ever traced, and torch.fx the code of its graphs."""

    def kept() -> tuple[int, ...]:
        gc.collect()
        tensors = sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
        return tensors, len(_loader.eval_cache), len(linecache.cache)

    monkeypatch.setattr(traced_prediction, "MOST_TRACES", 1)
    predictions = TracedPredictions(schnet())
    counts = []
    for kind in range(4):
        for _ in range(2):
            predictions(carbon_monoxides(kind))
        counts.append(kept())
    assert len(set(counts)) == 1, counts
