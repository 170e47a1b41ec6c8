"""Config keys that nothing reads are errors: a misspelt setting must not silently leave its default in place."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

import torch.optim.lr_scheduler
from fairchem.core.common.registry import registry

from ocp_dc.activations import ORIGINAL, activation
from ocp_dc.errors import InputError
from ocp_dc.trainers.labels import each_source
from ocp_dc.trainers.traced_step import MODES

# what a config file has, and what fairchem's flags add to it
SECTIONS = (
    {"dataset", "evaluation_metrics", "loss_functions", "model", "optim", "outputs", "task", "trainer"}
    | {"amp", "checkpoint", "cpu", "distributed_backend", "gp_gpus", "hide_eval_progressbar", "identifier", "is_debug"}
    | {"logger", "mode", "print_every", "run_dir", "seed", "slurm", "submit", "summit", "timeout", "timestamp_id"}
    | {"world_size"}
)
TASK = (
    {"label_rescaling", "reference_energy"}
    | {"dataset", "prediction_dtype", "set_deterministic_scatter", "strict_load"}
    | {"eval_relaxations", "num_relaxation_batches", "relax_cell", "relax_dataset", "relax_opt", "relax_volume"}
    | {"relaxation_fmax", "relaxation_steps", "save_full_traj", "write_pos"}
)
OPTIM = (
    {"batch_size", "eval_batch_size", "load_balancing", "load_balancing_on_error", "num_workers"}
    | {"optimizer", "optimizer_params", "weight_decay", "clip_grad_norm", "ema_decay"}
    | {"lr_initial", "lr_gamma", "lr_milestones", "scheduler", "warmup_factor", "warmup_steps"}
    | {"step"}
    | {"max_epochs", "eval_every", "checkpoint_every", "load_datasets_and_model_then_exit"}
)
OUTPUT = {"decomposition", "irrep_dim", "level", "parent", "prediction_dtype", "property", "shape"} | {
    "eval_on_free_atoms",
    "train_on_free_atoms",
}
LOSS = {"coefficient", "fn", "reduction"}


def check_sections(config: dict) -> None:
    """The top level of a whole config.

    Raises:
        InputError: a section that neither fairchem nor this package reads.
    """
    _check_keys("", config, SECTIONS)


def check_trainer_config(
    task: dict, model: dict, outputs: dict, dataset: dict, optim: dict, loss_functions: list[dict]
) -> None:
    """The sections a trainer is given.

    Raises:
        InputError: an unknown key, an unknown activation, a missing ``energy`` or ``forces`` output, or both a
            normalizer of fairchem and this package's label rescaling.
    """
    _check_keys("task", task, TASK)
    _check_keys("optim", optim, OPTIM | _scheduler_keys(optim.get("scheduler")))
    if optim.get("step", "auto") not in MODES:
        raise InputError(f"optim.step is {optim['step']!r}; choose {', '.join(MODES)}")
    _check_model(model)
    for name, settings in outputs.items():
        _check_keys(f"outputs.{name}", settings, OUTPUT)
    if missing := {"energy", "forces"} - outputs.keys():
        raise InputError(f"outputs has no {', '.join(sorted(missing))}: this trainer learns energy and forces")
    for terms in loss_functions:
        for target, settings in terms.items():
            _check_keys(f"loss_functions.{target}", settings, LOSS)
    _check_one_label_scale(task, dataset)
    _check_sources(dataset)
    if model.get("use_pbc") and model.get("otf_graph") is False:
        _check_stored_edges(model, dataset)


def _check_model(model: dict) -> None:
    try:
        model_class = registry.get_model_class(model["name"])
    except RuntimeError as error:
        raise InputError(f"model.name is {model['name']!r}: {error}") from error
    settings, complete = _constructor_settings(model_class)
    if complete:
        _check_keys("model", model, {"name"} | settings)
    if model.get("activation", ORIGINAL) != ORIGINAL and "activation_scope" in settings:
        activation(model["activation"])


def _constructor_settings(model_class: Callable) -> tuple[set[str], bool]:
    """Names of a constructor's parameters, following ``**settings`` to the base classes; whether they are all."""
    if not isinstance(model_class, type):
        return set(inspect.signature(model_class).parameters), True
    names = set()
    for base in model_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names - {"self"}, True
    return names - {"self"}, False


def _check_one_label_scale(task: dict, dataset: dict) -> None:
    train = (dataset.get("train") if "train" in dataset else dataset) or {}
    transforms = train.get("transforms") or {}
    ours = [key for key in ("label_rescaling", "reference_energy") if task.get(key, "none") != "none"]
    theirs = [key for key in ("normalizer", "element_references") if key in transforms]
    if ours and theirs:
        raise InputError(
            f"dataset.train.transforms.{theirs[0]} and task.{ours[0]} both scale the labels: remove one of them"
        )


def _check_sources(dataset: dict) -> None:
    name = (dataset.get("train") or {}).get("format", "lmdb")
    if "lmdb" not in name and name != "md17_packed":
        return
    for name, source, _ in each_source(dataset):
        require_lmdb(name, Path(source))


def require_lmdb(name: str, path: Path) -> None:
    """Raises InputError unless ``path``, which messages call ``name``, is a file or a folder with LMDBs in it."""
    if not path.exists() or (path.is_dir() and not any(path.glob("*.lmdb"))):
        raise InputError(f"{name}: no LMDB there")


def _check_stored_edges(model: dict, dataset: dict) -> None:
    cutoff = model.get("cutoff")
    for name, _, manifest in each_source(dataset):
        edges = getattr(manifest, "edges", None)
        stored = "no edges" if edges is None else f"edges within {edges.cutoff} Å"
        if manifest and (edges is None or edges.cutoff != cutoff):
            raise InputError(
                f"{name}, with {stored}; model.otf_graph is False and model.cutoff {cutoff}: "
                f"set model.otf_graph to True, or convert with --cutoff {cutoff}"
            )


def _scheduler_keys(scheduler: str | None) -> set[str]:
    if scheduler in (None, "Null"):
        return set()
    if not hasattr(torch.optim.lr_scheduler, scheduler):
        raise InputError(f"optim.scheduler is {scheduler!r}; it must be Null or a class of torch.optim.lr_scheduler")
    return set(inspect.signature(getattr(torch.optim.lr_scheduler, scheduler)).parameters)


def _check_keys(section: str, given: Iterable[str], known: set[str]) -> None:
    for key in given:
        if key in known:
            continue
        dotted = f"{section}.{key}" if section else key
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
        raise InputError(f"config key {dotted} is unknown; {hint}")
