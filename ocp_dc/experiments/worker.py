"""Trains and tests one run in a process of its own: `python -m ocp_dc.experiments.worker FOLDER`.

Whoever starts it holds the run's lock and hands it on (see running.py).
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

from ocp_dc.errors import TrainingDivergedError
from ocp_dc.experiments.predictions import evaluate_predictions
from ocp_dc.experiments.records import checkpoint_path, last_logged_step, metrics_path, read_record, write_record
from ocp_dc.files import replacing
from ocp_dc.launch import run_fairchem
from ocp_dc.trainers.checkpoints import read_checkpoint


def work(folder: Path) -> None:
    """Brings the run described in ``folder/experiment.json`` to its ``result.json``, from wherever it stands.

    Training that diverges, and an error, are results too; being killed is none, and the next worker goes on from the
    last checkpoint.
    """
    description = read_record(folder / "experiment.json")
    write_record(folder / "result.json", {**_result(folder, description), "scale": description["scale"]})


def _result(folder: Path, description: dict) -> dict:
    steps = description["steps"]
    try:
        seconds = _train(folder, shlex.split(description["command"]), steps)
        errors, predictions = evaluate_predictions(
            checkpoint_path(folder), Path(description["test_data"]), description["test_batch_size"]
        )
    except TrainingDivergedError as error:
        return {"status": "diverged", "step": error.step, "message": str(error), "seconds": None}
    except Exception as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        return {"status": "failed", "step": last_logged_step(folder), "message": message, "seconds": None}
    if not all(map(math.isfinite, (errors["energy_mae"], errors["force_mae"]))):
        message = "predictions for the test set are not finite"
        return {"status": "diverged", "step": steps, "message": message, "seconds": seconds}
    _write_errors(folder, predictions)
    return {"status": "finished", "step": steps, "message": None, "seconds": seconds, **errors}


def _train(folder: Path, command: list[str], steps: int) -> float | None:
    """Seconds for all steps, in proportion where some were taken before; None where all were."""
    first = _checkpoint_step(folder)
    if first == 0:
        # what a killed worker has logged before its first checkpoint
        shutil.rmtree(metrics_path(folder).parent, ignore_errors=True)
    started = time.monotonic()
    mode, *arguments = command[1:]
    run_fairchem(mode, arguments)
    return (time.monotonic() - started) * steps / (steps - first) if first < steps else None


def _checkpoint_step(folder: Path) -> int:
    path = checkpoint_path(folder)
    return read_checkpoint(path, torch.device("cpu"))["step"] if path.exists() else 0


def _write_errors(folder: Path, predictions: dict[str, np.ndarray]) -> None:
    with replacing(folder / "errors.npz") as partial, partial.open("wb") as file:
        np.savez_compressed(file, **predictions)


def _leave_preemption_to_submitit() -> None:
    """SLURM signals every process of a job; the one that submitit runs puts the job back in the queue and ends us."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    if "SUBMITIT_EXECUTOR" in os.environ:
        _leave_preemption_to_submitit()
    work(Path(sys.argv[1]))
    logging.shutdown()
