"""The work of a run: training, and errors on the validation set beside those on the test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ocp_dc.candidates.definitions import on_validation
from ocp_dc.experiments.plan import CHECKPOINT
from ocp_dc.experiments.training import evaluate_predictions, quantities_of, train_and_test
from ocp_dc.runs.worker import Work


def train_validate_and_test(folder: Path, description: dict) -> Work:
    """As :func:`~ocp_dc.experiments.training.train_and_test`, with the errors on the validation set.

    They are those of the same weights, taken in the same way; what training logs is another mean of force errors.
    """
    work = train_and_test(folder, description)
    errors, _ = evaluate_predictions(folder / CHECKPOINT, Path(description["val_data"]), description["test_batch_size"])
    validated = {on_validation(name): quantity for name, quantity in quantities_of(errors).items()}
    return replace(work, quantities=work.quantities | validated)
