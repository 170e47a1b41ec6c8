"""A trainer that goes on where it was: what checkpoints hold, and whether one fits the run that it is given to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairchem.core.common import distutils
from fairchem.core.modules.exponential_moving_average import ExponentialMovingAverage

from ocp_dc.errors import InputError
from ocp_dc.files import replacing
from ocp_dc.locks import file_lock
from ocp_dc.trainers.checkpoints import (
    LOCK,
    keep_as_previous,
    read_checkpoint,
    require_same_labels,
    require_same_model,
    require_same_training,
    require_same_units,
    require_training_state,
)
from ocp_dc.trainers.labels import Units, float64_normalizer
from ocp_dc.trainers.predicting_trainer import PredictingTrainer


class ResumableTrainer(PredictingTrainer):
    """A trainer whose checkpoints are whole, its own, and of the same model, labels, units, data and optimizer.

    Attributes:
        data_units: of the config's data; None where it has none.
        last_checkpoint: that it was loaded from, or has written, to go on from.
    """

    def __init__(self, data_units: Units | None, **settings: Any) -> None:
        self.data_units = data_units
        self.last_checkpoint: str | None = None
        self._resumed: dict[str, Any] = {}
        self._written = False
        super().__init__(**settings)

    def load_checkpoint(
        self, checkpoint_path: str, checkpoint: dict | None = None, inference_only: bool = False
    ) -> None:
        """fairchem's, after checks that the checkpoint is of this model, these labels and their units.

        Training goes on where it was, on the same data and in the same way; with ``task.weights_only`` it starts anew
        from the weights, C and the reference energies, unless the checkpoint is its own.
        """
        if checkpoint is None:
            checkpoint = read_checkpoint(checkpoint_path, self.device)
        require_same_model(checkpoint_path, checkpoint, self.config["model"], self.model)
        require_same_labels(checkpoint_path, checkpoint, self.config["task"])
        require_same_units(checkpoint_path, checkpoint, self.data_units)
        own = Path(checkpoint_path).resolve().parent == self._own_checkpoint.resolve().parent
        anew = bool(self.config["task"].get("weights_only")) and not own
        self.config["labels"] = None if anew else checkpoint["config"].get("labels")
        for target, state in checkpoint["normalizers"].items():
            self.normalizers[target] = float64_normalizer(float(state["mean"]), float(state["rmsd"])).to(self.device)
        super().load_checkpoint(checkpoint_path, checkpoint, inference_only or anew)
        if (inference_only or anew) and checkpoint.get("ema"):
            # fairchem would go on with the raw weights
            average = ExponentialMovingAverage(self.model.parameters(), checkpoint["ema"]["decay"])
            average.load_state_dict(checkpoint["ema"])
            average.copy_to()
        if anew and self.ema_decay:
            self.ema = ExponentialMovingAverage(self.model.parameters(), self.ema_decay)
        self.last_checkpoint = str(checkpoint_path)
        if not (inference_only or anew):
            self._resumed = {name: value for name, value in checkpoint.items() if name != "state_dict"}

    @property
    def _own_checkpoint(self) -> Path:
        return Path(self.config["cmd"]["checkpoint_dir"]) / "checkpoint.pt"

    def save(self, metrics=None, checkpoint_file: str = "checkpoint.pt", training_state: bool = True) -> str | None:
        """fairchem's, under another name until complete: a killed run keeps its last checkpoint, and the one before."""
        self._require_finite()
        if self.is_debug or not distutils.is_master():
            return None
        path = self._own_checkpoint.with_name(checkpoint_file)
        with replacing(path) as partial:
            super().save(metrics, partial.name, training_state)
            keep_as_previous(path)
        if training_state:
            self.last_checkpoint = str(path)
            self._written = True
        return str(path)

    @contextmanager
    def _alone_in_its_folder(self) -> Iterator[None]:
        """Refuses to write into a folder that another process writes to, or that is another run's."""
        if self.is_debug or not distutils.is_master():
            yield
            return
        existing = self._own_checkpoint
        folder = existing.parent
        with file_lock(folder / LOCK, wait=False) as lock:
            if lock is None:
                raise InputError(f"{folder} is being written to by another run: choose another --timestamp-id, or wait")
            own = (self._resumed or self._written) and Path(self.last_checkpoint).resolve().parent == folder.resolve()
            if existing.exists() and not own:
                raise InputError(f"{existing} exists and is another run's: choose another --run-dir or --timestamp-id")
            yield

    def _require_same_training(self, labels: dict[str, Any]) -> None:
        """That the loaded checkpoint, if any, was trained as the config says, on the data that ``labels`` describe.

        What was logged after it, or before there was one, and will be again, is dropped then: not before, as it is
        another's log until then.
        """
        if self._resumed:
            require_training_state(self.last_checkpoint, self._resumed)
            require_same_training(self.last_checkpoint, self._resumed, self.config["optim"], labels)
            self._resumed = {}
        if distutils.is_master():
            self.metrics_log.drop_after(self.step)

    def _restore(self) -> None:
        """Weights and optimizer of the run's last checkpoint; the step and the learning rate stay."""
        path = str(self._own_checkpoint)
        place = self.step, self.epoch
        rate = self.scheduler.scheduler.state_dict() if self.scheduler.scheduler_type != "Null" else None
        super().load_checkpoint(path, read_checkpoint(path, self.device))
        self.step, self.epoch = place
        if rate:
            self.scheduler.scheduler.load_state_dict(rate)
