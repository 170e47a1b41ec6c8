"""A folder of runs as `ocp-dc reproduce` leaves it, without training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ocp_dc.experiments.plan import LOG, Trainable


@pytest.fixture
def write_run(tmp_path):
    """A function that writes the files of one run to ``tmp_path`` and returns the run's folder."""

    def write(experiment: Trainable, status: str = "finished", **details) -> Path:
        folder = tmp_path / "runs" / experiment.id
        folder.mkdir(parents=True)
        (folder / "experiment.json").write_text(json.dumps(_description(experiment)))
        _write_losses(folder, details.get("losses", ()))
        if status != "unfinished":
            (folder / "result.json").write_text(json.dumps(_result(status, **details)))
        if details.get("predictions"):
            np.savez_compressed(folder / "errors.npz", **_predictions())
        return folder

    return write


def _description(experiment: Trainable) -> dict:
    return {
        "cell": experiment.cell,
        "log": LOG,
        **asdict(experiment),
        "scale": "small",
        "epochs": 50,
        "steps": 2000,
        "split": {
            "sizes": {"train": experiment.train_size * 800 // 50_000, "val": 100, "test": 90},
            "method": "random",
            "seed": 7,
            "files": {},
            "source_file": "some.npz",
            "theory": "GFN2-xTB",
        },
        "energy_unit": experiment.collection.energy_unit,
    }


def _result(
    status: str,
    energy: float = 1.0,
    force: float = 1.0,
    centered: float | None = None,
    step: int = 2000,
    unit: str = "kcal/mol",
    **_,
) -> dict:
    result = {"status": status, "step": step, "message": None, "seconds": 90.0}
    if status != "finished":
        return {**result, "message": "what went wrong", "seconds": None}
    quantities = {"energy MAE": (energy, unit), "force MAE": (force, f"{unit}/Å"), "EFwT": (12.5, "%")}
    if centered is not None:
        quantities["centered energy MAE"] = (centered, unit)
    return {**result, "quantities": {name: {"value": value, "unit": of} for name, (value, of) in quantities.items()}}


def _write_losses(folder: Path, losses) -> None:
    path = folder / LOG
    path.parent.mkdir(parents=True)
    records = [{"split": "train", "step": 10 * (index + 1), "loss": loss} for index, loss in enumerate(losses)]
    records.insert(1, {"split": "val", "step": 10, "loss": -1.0})
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def _predictions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    energy, forces = rng.normal(-97_000, 4, 90), rng.normal(0, 25, 2430)
    energy_predicted, forces_predicted = energy + rng.normal(3, 1, 90), forces + rng.normal(0, 1, 2430)
    per_conformation = np.abs(forces_predicted - forces).reshape(90, 27)
    return {
        "energy_error": np.abs(energy_predicted - energy),
        "force_error": per_conformation.mean(1),
        "largest_force_error": per_conformation.max(1),
        **{"energy_true": energy, "energy_predicted": energy_predicted},
        **{"forces_true": forces, "forces_predicted": forces_predicted},
    }
