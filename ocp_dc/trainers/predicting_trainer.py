"""A trainer that predicts: in float64, in the units of the labels, for any number of structures at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils
from fairchem.core.modules.evaluator import Evaluator
from fairchem.core.modules.scaling.util import ensure_fitted
from fairchem.core.trainers.ocp_trainer import OCPTrainer
from torch import Tensor
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from ocp_dc.edges import EdgesMixin
from ocp_dc.errors import InputError
from ocp_dc.files import told_where
from ocp_dc.trainers.labels import units_of_config
from ocp_dc.trainers.metrics_log import MetricsLog
from ocp_dc.trainers.prediction import HeldPredictions
from ocp_dc.trainers.traced_prediction import TracedPredictions
from ocp_dc.trainers.traced_step import TARGETS
from ocp_dc.trainers.unshown_steps import structure_names


class PredictingTrainer(OCPTrainer):
    """fairchem's energy/force trainer, with predictions, metrics and validation of its own.

    Energies and forces are float64, and rescaled in that precision; averaged weights are taken where there are some.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.metrics_log = MetricsLog(Path(self.config["cmd"]["logs_dir"]) / "metrics.jsonl")

    def load_logger(self) -> None:
        with told_where(Path(self.config["cmd"]["logs_dir"])):
            super().load_logger()

    def load_model(self) -> None:
        super().load_model()
        self.traced_predictions = TracedPredictions(self._unwrapped_model)

    @torch.no_grad
    def predict(
        self, data_loader, per_image: bool = True, results_file: str | None = None, disable_tqdm: bool = False
    ) -> dict:
        """fairchem's, in float64: its float16 overflows at total energies, its float32 rounds them.

        Returns:
            ``ids``, ``energy`` (one per structure) and ``forces`` (one (A, 3) array per structure, free atoms only),
            ``chunk_idx``; written to ``results_file`` as npz as fairchem does. Without ``per_image``, what fairchem's
            calculator asks for, :meth:`predict_batch` of the first batch.

        Raises:
            InputError: without ``per_image``, the labels are not in eV: ASE would take them for that.
        """
        ensure_fitted(self._unwrapped_model, warn=True)
        batches = [data_loader] if isinstance(data_loader, Batch) else data_loader
        if not per_image:
            self._require_units_of_ase()
            return self.predict_batch(next(iter(batches)))
        with self._predicting():
            predictions = self._predict_each(batches, disable_tqdm)
        self.save_results(predictions, results_file)
        return predictions

    @torch.no_grad
    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """``energy`` (B, 1) and ``forces`` (N, 3) of a batch: float64, in the units of the labels."""
        with self._predicting():
            return self._in_units_of_labels(batch)

    @torch.no_grad
    def validate(self, split: str = "val", disable_tqdm: bool = False) -> dict:
        """fairchem's metrics, each computed for many batches at once, and a line in ``metrics.jsonl``."""
        ensure_fitted(self._unwrapped_model, warn=True)
        loader = self.val_loader if split == "val" else self.test_loader
        evaluator = Evaluator(self.name, self.evaluation_metrics.get("metrics"))
        held = HeldPredictions(
            list(self.output_targets),
            lambda out, batch, metrics: self._compute_metrics(out, batch, evaluator, metrics),
        )
        hidden = disable_tqdm or not distutils.is_master()
        with self._predicting():
            for batch in tqdm(loader, desc=f"evaluating {split}", unit="batch", disable=hidden):
                out = self._predicted(batch)
                held.add(batch, out, self._compute_loss(out, batch))
        metrics = self._aggregate_metrics(held.metrics())
        values = {name: float(metric["metric"]) for name, metric in metrics.items()}
        if distutils.is_master():
            logging.info(f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
        self._log(split, values, {"epoch": self.epoch})
        return metrics

    def _log(self, split: str, values: dict[str, float], place: dict[str, float]) -> None:
        """To fairchem's logger, with ``place``, and to ``metrics.jsonl``."""
        if self.logger is not None:
            with told_where(Path(self.config["cmd"]["logs_dir"])):
                self.logger.log({**values, **place}, step=self.step, split=split)
        if distutils.is_master() and not self.is_debug:
            self.metrics_log.write(split, self.step, values)

    def _require_units_of_ase(self) -> None:
        units = units_of_config(self.config)
        if units and units.energy != "eV":
            raise InputError(
                f"this checkpoint predicts in {units}, and fairchem's calculator would give that to ASE as eV: take "
                "ocp_dc.calculator.load(checkpoint)"
            )

    # --- the network's outputs, and what is made of them --------------------------------------------------------------

    @contextmanager
    def _predicting(self) -> Iterator[None]:
        """With averaged weights where there are some, and nothing kept for gradients by any: forces need none."""
        if self.model.training:
            self.model.eval()
        if self.ema:
            self.ema.store()
            self.ema.copy_to()
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in learned:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)
            if self.ema:
                self.ema.restore()

    def _forward(self, batch: Batch) -> dict[str, Tensor]:
        try:
            return super()._forward(batch)
        except RuntimeError as error:
            if "different PBC configurations" not in str(error):
                raise
            name = self.config["model"]["name"]
            raise InputError(
                f"model.name {name}, a model of fairchem, cannot build edges for a batch of structures that are "
                "periodic in different directions: store the edges (ocp-dc oc22 convert --cutoff …) and set "
                "model.otf_graph to False, or take the model of this package with model.activation original"
            ) from error

    def _compute_loss(self, out: dict[str, Tensor], batch: Batch) -> Tensor:
        # Labels that are float64 (energies) keep their precision until they are rescaled.
        same_dtype = {target: value.to(batch[target].dtype) for target, value in out.items()}
        return super()._compute_loss(same_dtype, batch)

    def _compute_metrics(self, out: dict[str, Tensor], batch: Data, evaluator: Evaluator, metrics: dict | None) -> dict:
        """fairchem's, without its loop over the structures of the batch."""
        free = batch.fixed == 0
        natoms = torch.zeros_like(batch.natoms).index_add(0, batch.batch, free.to(batch.natoms.dtype))
        others = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        predictions, labels = {**others, "natoms": natoms}, {**others, "natoms": natoms}
        for name, target in self.output_targets.items():
            predictions[name], labels[name] = self._denorm_preds(name, out[name], batch), batch[name]
            if target["level"] == "atom" and target["eval_on_free_atoms"]:
                predictions[name], labels[name] = predictions[name][free], labels[name][free]
            labels[name] = labels[name].view(len(predictions[name]), -1)
        return evaluator.eval(predictions, labels, prev_metrics=metrics)

    def _denorm_preds(self, target_key: str, prediction: Tensor, batch: Batch) -> Tensor:
        return super()._denorm_preds(target_key, prediction.double(), batch)

    def _in_units_of_labels(self, batch: Batch) -> dict[str, Tensor]:
        out = self._predicted(batch)
        return {target: self._denorm_preds(target, out[target], batch).detach() for target in TARGETS}

    def _predicted(self, batch: Batch) -> dict[str, Tensor]:
        """The network's outputs: replayed, or by fixed edges where they can be, since these need not be found."""
        batch = batch.to(self.device)
        if self.scaler is None and (replayed := self.traced_predictions(batch)):
            return replayed
        model = self._unwrapped_model
        fixed = isinstance(model, EdgesMixin) and model.against_fixed_edges(batch) is None
        edges = model.fixed_edges(batch) if fixed else nullcontext()
        with edges, torch.autocast("cuda", enabled=self.scaler is not None):
            return self._forward(batch)

    def _predict_each(self, batches: Iterable[Batch], disable_tqdm: bool) -> dict[str, list]:
        predictions = {"ids": [], "energy": [], "forces": [], "chunk_idx": []}
        for batch in tqdm(batches, desc="predicting", disable=disable_tqdm or not distutils.is_master()):
            energy, forces = (predicted.cpu() for predicted in self._in_units_of_labels(batch).values())
            free = (batch.fixed == 0).cpu().split(batch.natoms.tolist())
            free_forces = [f[mask].numpy() for f, mask in zip(forces.split(batch.natoms.tolist()), free, strict=True)]
            predictions["ids"].extend(structure_names(batch))
            predictions["energy"].extend(energy.numpy())
            predictions["forces"].extend(free_forces)
            predictions["chunk_idx"].extend(len(f) for f in free_forces)
        return predictions
