"""Training on energies and forces with rescaled labels (paper, Sec. 4.2 and 5.1), on fairchem's trainer seams."""

from __future__ import annotations

import inspect
import logging
import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils
from fairchem.core.common.data_parallel import BalancedBatchSampler
from fairchem.core.common.registry import registry
from fairchem.core.modules.scaling.util import ensure_fitted
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import Batch
from tqdm import tqdm

import ocp_dc
from ocp_dc.datasets.packed import collate, is_packed
from ocp_dc.datasets.source_checks import SourceWatch, lmdb_files
from ocp_dc.datasets.watched_lmdb import watch
from ocp_dc.errors import InputError, TrainingDivergedError
from ocp_dc.memory import keep_freed_memory
from ocp_dc.models.scale_factors import read_scale_factors
from ocp_dc.references import manifests_of, parse_reference_energy
from ocp_dc.rescaling import parse_label_rescaling
from ocp_dc.trainers.checkpoints import unused_run_id
from ocp_dc.trainers.config_keys import check_trainer_config
from ocp_dc.trainers.descriptors import allow_descriptors
from ocp_dc.trainers.divergence import find_cause
from ocp_dc.trainers.labels import common_units, describe_labels, fit_labels
from ocp_dc.trainers.losses import Loss
from ocp_dc.trainers.prediction import evaluation_batch_size
from ocp_dc.trainers.resumable_trainer import ResumableTrainer
from ocp_dc.trainers.traced_step import TARGETS, WORTH_TRACING, Step, TracedStep
from ocp_dc.trainers.unshown_steps import UnshownSteps, structure_names

SHOWN_METRICS = ("loss", "energy_mae", "forces_mae")
FUSING = {"fused", "foreach", "capturable", "differentiable"}
# steps that come to nothing before a run is given up
MOST_FAULTS = 10


@registry.register_trainer("dc_forces")
class DerivativeConstrainedTrainer(ResumableTrainer):
    """fairchem's energy/force trainer with the paper's label rescaling.

    α and β are the ``coefficient`` of ``energy`` and ``forces`` in ``loss_functions``, ``fn: mae`` or ``mse`` there
    chooses the absolute (published runs) or the squared loss (Eq. 5).

    Task keys:
        label_rescaling: ``auto`` (C from the training labels by Eq. 4), ``mean_force`` (the mean of the absolute values
            of their force components), a number, or ``none`` (the default).
        reference_energy: ``none`` (the default), ``mean`` (the training set's mean energy) or ``element`` (least
            squares per element); fitted in float64, subtracted before Eq. 4 is applied.

    Both become fairchem's normalizers and element references when training starts, are kept in checkpoints, and are
    taken from the checkpoint in ``validate``, ``predict`` and resumed training. Energies stay float64 until they are
    rescaled; predictions and errors are float64, in the units of the labels.

    ``optim.step`` is ``auto`` (the default), ``eager``, ``traced`` or ``cuda_graph``: how a step is computed
    (``docs/training_step.md``). Checkpoints of one continue in any other.

    ``optim.scheduler: CosineAnnealingLR`` without ``T_max`` decays over the whole run; ``OneCycleLR``, which warms up
    before, takes as long without ``total_steps`` and reaches ``lr_initial`` without ``max_lr``. Without
    ``eval_batch_size``, validation takes larger batches than training where they are faster: metrics are the same.

    Raises:
        InputError: a config key that nothing reads, sets in different units, a checkpoint that does not fit, a run that
            would overwrite another.
        TrainingDivergedError: a prediction, loss or gradient that is not finite.
    """

    def __init__(
        self,
        task: dict[str, Any],
        model: dict[str, Any],
        outputs: dict[str, Any],
        dataset: dict[str, Any],
        optimizer: dict[str, Any],
        loss_functions: list[dict[str, Any]],
        identifier: str,
        timestamp_id: str | None = None,
        run_dir: str | None = None,
        **fairchem_settings: Any,
    ) -> None:
        # as fairchem's calculator gives it, without sources
        dataset = {} if isinstance(dataset, list) else dataset
        checked = check_trainer_config(
            task=task, model=model, outputs=outputs, dataset=dataset, optim=optimizer, loss_functions=loss_functions
        )
        task, optimizer = checked["task"], checked.pop("optim")
        self.label_rescaling = parse_label_rescaling(task.get("label_rescaling"))
        self.reference_energy = parse_reference_energy(task.get("reference_energy"))
        self._faults = 0
        self.unshown: UnshownSteps | None = None
        self.traced_step: TracedStep | None = None
        # SchNet's narrow Gaussians are mostly denormal numbers, which CPUs multiply ten times slower.
        torch.set_flush_denormal(True)
        keep_freed_memory()
        super().__init__(
            data_units=common_units(dataset),
            **checked,
            optimizer=optimizer,
            identifier=identifier,
            timestamp_id=timestamp_id or unused_run_id(Path(run_dir or "."), identifier),
            run_dir=run_dir,
            **fairchem_settings,
        )
        # what fairchem's calculator builds of a checkpoint: by its path, which is found without this package imported
        self.config["trainer"] = "ocp_dc.trainers.DerivativeConstrainedTrainer"
        self.config["cmd"]["ocp_dc_version"] = ocp_dc.__version__

    # --- setting up -------------------------------------------------------------------------------------------------

    def load_model(self) -> None:
        scale_file = self.config["model"].get("scale_file")
        if isinstance(scale_file, str) and scale_file.endswith(".json"):
            # as values, so that a checkpoint does not depend on a file
            self.config["model"]["scale_file"] = read_scale_factors(scale_file)
        super().load_model()

    def load_datasets(self) -> None:
        try:
            super().load_datasets()
        except InputError:
            raise
        except (AssertionError, ValueError) as error:  # what fairchem says of its settings
            raise InputError(f"dataset: {' '.join(str(error).split())}") from error
        for dataset in (self.train_dataset, self.val_dataset, self.test_dataset):
            watch(dataset)
        allow_descriptors(filter(None, (self.train_loader, self.val_loader, self.test_loader)))

    def get_dataloader(self, dataset: Dataset, sampler: Sampler, workers: int | None = None) -> DataLoader:
        self.collater = partial(collate, **self.collater.keywords)
        # to build a batch of arrays takes less than to receive it from a worker
        return super().get_dataloader(dataset, sampler, 0 if is_packed(dataset) else workers)

    def get_sampler(self, dataset: Dataset, batch_size: int, shuffle: bool) -> BalancedBatchSampler:
        # only training shuffles
        if not shuffle and "eval_batch_size" not in self.config["optim"]:
            batch_size = max(batch_size, evaluation_batch_size(dataset[0], self.device))
        return super().get_sampler(dataset, batch_size, shuffle)

    def load_loss(self) -> None:
        self.loss_functions = [
            (target, {"fn": Loss(term["fn"], term.get("reduction")), "coefficient": term["coefficient"]})
            for terms in self.config["loss_functions"]
            for target, term in terms.items()
        ]

    def load_optimizer(self) -> None:
        """fairchem's; ``fused``, one operation for all parameters, unless ``optim.optimizer_params`` chooses.

        Not with ``amp``: a fused optimizer would be told of gradients that overflow, which others never see.
        """
        optim = self.config["optim"]
        parameters = optim.get("optimizer_params") or {}
        optimizer = getattr(torch.optim, optim.get("optimizer", "AdamW"))
        if (
            "fused" in inspect.signature(optimizer).parameters
            and self.scaler is None
            and not FUSING & parameters.keys()
        ):
            parameters = {**parameters, "fused": True}
        self.config["optim"] = {**optim, "optimizer_params": parameters}
        super().load_optimizer()
        self.config["optim"] = optim

    def load_extras(self) -> None:
        optim = self.config["optim"]
        if self.train_loader is not None:
            for key, value in _of_a_whole_run(optim, len(self.train_loader)).items():
                optim.setdefault(key, value)
            if optim.get("scheduler") == "OneCycleLR":
                optim["pct_start"] = _share_of_warm_up(optim)
        super().load_extras()
        self.optimizer.register_step_pre_hook(self._note_gradients)

    def _fit_labels(self) -> None:
        fitted = [None]
        if distutils.is_master():
            settings = self.config["dataset"]
            fitted = [fit_labels(self.train_dataset, settings, self.reference_energy, self.label_rescaling)]
        distutils.broadcast_object_list(fitted, src=0, device=self.device)
        elementrefs, normalizers = fitted[0]
        self.elementrefs.update({name: module.to(self.device) for name, module in elementrefs.items()})
        self.normalizers.update({name: module.to(self.device) for name, module in normalizers.items()})

    def load_checkpoint(self, *arguments: Any, **named: Any) -> None:
        # a trace has the weights of before
        self.traced_step = None
        super().load_checkpoint(*arguments, **named)

    # --- training ---------------------------------------------------------------------------------------------------

    def train(self, disable_eval_tqdm: bool = False) -> None:
        """Train to ``optim.max_epochs``, from the loaded checkpoint's step if there is one.

        Learning rate and best metric are up to date when a checkpoint is written, unlike in fairchem's loop, so that a
        resumed run repeats an uninterrupted one.
        """
        with self._alone_in_its_folder():
            try:
                self._train(disable_eval_tqdm)
            except KeyboardInterrupt:
                # a checkpoint has its name a moment before it is the last one
                last = self._own_checkpoint if self._own_checkpoint.exists() else self.last_checkpoint
                logging.warning(f"stopped in step {self.step}; it goes on from {last or 'its beginning'}")
                raise

    def _train(self, disable_eval_tqdm: bool) -> None:
        if self.last_checkpoint is None:
            self._fit_labels()
        sets = {"train": self.train_dataset, "val": self.val_dataset}
        records = {split: len(records) for split, records in sets.items() if records is not None}
        labels = describe_labels(self.data_units, self.config["dataset"], records)
        self._require_same_training(labels)
        self.config["labels"] = self.config.get("labels") or labels
        ensure_fitted(self._unwrapped_model, warn=True)

        optim = self.config["optim"]
        epoch_steps = len(self.train_loader)
        eval_every = optim.get("eval_every", epoch_steps)
        checkpoint_every = optim.get("checkpoint_every", eval_every)
        primary_metric = self.evaluation_metrics.get("primary_metric", "forces_mae")
        if self.best_val_metric is None:
            self.best_val_metric = math.inf if "mae" in primary_metric else -math.inf
        self.unshown = UnshownSteps(
            list(self.output_targets),
            lambda out, batch, metrics: self._compute_metrics(out, batch, self.evaluator, metrics),
        )

        # what is in memory needs no files
        sources = [] if is_packed(self.train_dataset) else manifests_of(self.config["dataset"])
        files = SourceWatch(file for source in sources for file in lmdb_files(source, Path(source)))
        total = optim["max_epochs"] * epoch_steps
        self.traced_step = self.traced_step or self._choose_step(total)
        self.validated = False
        saved_step = self.step
        hidden = not distutils.is_master()
        bar = tqdm(total=total, initial=self.step, desc="training", unit="step", disable=hidden)
        with bar, self._without_needless_exchange():
            for epoch in range(self.step // epoch_steps, optim["max_epochs"]):
                first = self.step % epoch_steps
                self.train_sampler.set_epoch_and_start_iteration(epoch, first)
                for position, batch in enumerate(files.over(self.train_loader), start=first + 1):
                    self.step = epoch * epoch_steps + position
                    self.epoch = epoch + position / epoch_steps
                    self._train_step_or_go_on(batch, bar)
                    if self.step % eval_every == 0 and self.val_loader is not None:
                        self._validate_and_keep_best(primary_metric, disable_eval_tqdm)
                    if checkpoint_every > 0 and self.step % checkpoint_every == 0:
                        self.save()
                        saved_step = self.step
        if saved_step != self.step:
            self.save()
        if distutils.is_master() and not self.is_debug:
            logging.info(f"trained to step {self.step}; {self._what_next()}")

    def _what_next(self) -> str:
        data = self.config["test_dataset"].get("src") or self.config["val_dataset"].get("src") or "DATA"
        return (
            f"the model is {self.last_checkpoint}. Its errors: "
            f"ocp-dc evaluate --checkpoint {self.last_checkpoint} --data {data}"
        )

    def _without_needless_exchange(self) -> AbstractContextManager:
        """Of a process that trains alone: it would send buffers and gradients to itself at every step."""
        alone = isinstance(self.model, DistributedDataParallel) and distutils.get_world_size() == 1
        return self.model.no_sync() if alone else nullcontext()

    def _train_step_or_go_on(self, batch: Batch, bar: tqdm) -> None:
        """As ``optim.on_nonfinite`` says where a step comes to nothing."""
        try:
            self._train_step(batch, bar)
        except TrainingDivergedError as error:
            self._go_on_after(error)
            bar.update()
            if self.scheduler.scheduler_type != "ReduceLROnPlateau":
                self.scheduler.step()

    def _go_on_after(self, error: TrainingDivergedError) -> None:
        """Without the step, or from the last checkpoint's weights; raises the error again where that is no use."""
        mode = self.config["optim"].get("on_nonfinite") or "stop"
        self._faults += 1
        if mode == "restore" and not self._own_checkpoint.exists():
            mode = "skip"
        # BatchNorm keeps what it has seen
        spoilt = mode == "skip" and not all(bool(buffer.isfinite().all()) for buffer in self.model.buffers())
        if mode == "stop" or spoilt or self._faults > MOST_FAULTS:
            raise error
        self.unshown.forget()
        if mode == "restore":
            self._restore()
        what = "left out" if mode == "skip" else f"left out, weights are those of {self._own_checkpoint}"
        logging.warning(f"{error}. The step is {what} (optim.on_nonfinite: {mode}; {self._faults} of {MOST_FAULTS})")

    def _train_step(self, batch: Batch, bar: tqdm) -> None:
        if not self.model.training:
            self.model.train()
        step = self.traced_step(batch) if self.traced_step else self._eager_step(batch)
        self.unshown.add(self.step, batch, step.out, step.loss)
        self._require_finite_on_cpu()
        self._backward(self.scaler.scale(step.loss) if self.scaler else step)
        self._log_training(bar)
        if self.scheduler.scheduler_type != "ReduceLROnPlateau":
            self.scheduler.step()

    def _eager_step(self, batch: Batch) -> Step:
        with torch.autocast("cuda", enabled=self.scaler is not None):
            out = self._forward(batch)
            return Step(out, self._compute_loss(out, batch), self._learned())

    def _learned(self) -> list[nn.Parameter] | None:
        """What gradients are wanted of; several processes exchange them as PyTorch sees to."""
        if distutils.get_world_size() > 1:
            return None
        parameters = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        return [parameter for parameter in parameters if parameter.requires_grad]

    def _choose_step(self, steps: int) -> TracedStep | None:
        """What ``optim.step`` says of a run of so many steps; None for the eager one."""
        mode = self.config["optim"].get("step", "auto")
        on_cpu = self.device.type == "cpu"
        if mode == "cuda_graph" and on_cpu:
            raise InputError("optim.step is cuda_graph, and training is on the CPU: choose auto, traced or eager")
        reason = self._against_tracing() or (mode == "auto" and steps < WORTH_TRACING and f"it has only {steps} steps")
        if mode == "eager" or reason:
            if mode != "eager":
                logging.info(f"the run trains eagerly (optim.step: {mode}): {reason}")
            return None
        captured = mode == "cuda_graph" or (mode == "auto" and not on_cpu)
        level = logging.INFO if mode == "auto" else logging.WARNING
        return TracedStep(self._unwrapped_model, self._eager_step, self._compute_loss, captured, level)

    def _against_tracing(self) -> str | None:
        if self.scaler is not None:
            return "amp chooses precisions as it runs"
        if distutils.get_world_size() > 1:
            return "its processes exchange gradients"
        if self.output_targets.keys() != set(TARGETS):
            return f"it has other outputs than {' and '.join(TARGETS)}"
        return None

    def _log_training(self, bar: tqdm) -> None:
        """Every ``print_every`` steps, means over these."""
        bar.update()
        if self.step % self.config["cmd"]["print_every"]:
            return
        self._require_finite()
        values = {**self.unshown.take_metrics(), "lr": self.scheduler.get_lr(), "epoch": self.epoch}
        shown = {name: f"{value:.3g}" for name, value in values.items() if name in SHOWN_METRICS}
        bar.set_postfix(shown, refresh=False)
        self._log("train", values, {"step": self.step})

    def _validate_and_keep_best(self, primary_metric: str, disable_tqdm: bool) -> None:
        self._require_finite()
        val_metrics = self.validate(split="val", disable_tqdm=disable_tqdm)
        if self.traced_step and not self.validated:
            self.traced_step.compare_again()
        self.validated = True
        self.update_best(primary_metric, val_metrics, disable_eval_tqdm=disable_tqdm)
        if self.scheduler.scheduler_type == "ReduceLROnPlateau":
            self.scheduler.step(metrics=val_metrics[primary_metric]["metric"])

    def _note_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.unshown.add_gradients([parameter.grad for parameter in parameters if parameter.grad is not None])
        self._require_finite_on_cpu()

    def _require_finite_on_cpu(self) -> None:
        """At once where that costs nothing, or is asked for; on a GPU, where the host would wait, when it is shown."""
        asked = self.config["optim"].get("on_nonfinite", "stop") != "stop"
        if self.device.type == "cpu" or asked or self.unshown.must_be_checked:
            self._require_finite()

    def _require_finite(self) -> None:
        """Before what the unshown steps led to is used."""
        if not self.unshown or not (fault := self.unshown.first_not_finite()):
            return
        what, step, batch = fault
        # later, or with other processes waiting, it cannot be computed again
        again = step == self.step and distutils.get_world_size() == 1
        cause = find_cause(
            self._unwrapped_model, batch, (lambda batch: self._eager_step(batch).loss) if again else None
        )
        raise TrainingDivergedError(what, step, structure_names(batch), self.last_checkpoint, cause)


def _of_a_whole_run(optim: dict[str, Any], epoch_steps: int) -> dict[str, Any]:
    """Parameters of a scheduler, where they are not given: it ends with the run."""
    steps = optim["max_epochs"] * epoch_steps
    if optim.get("scheduler") == "CosineAnnealingLR":
        return {"T_max": steps}
    if optim.get("scheduler") == "OneCycleLR":
        return {"max_lr": optim["lr_initial"], **({} if "epochs" in optim else {"total_steps": steps})}
    return {}


def _share_of_warm_up(optim: dict[str, Any]) -> float:
    """``pct_start``, but less than one step, which is no warm-up, where it is exactly one: torch divides by 0 there."""
    share = optim.get("pct_start", 0.3)
    # 0 where torch will say what is missing
    steps = optim.get("total_steps") or optim.get("epochs", 0) * optim.get("steps_per_epoch", 0)
    return math.nextafter(share, 0) if share * steps == 1 else share
