"""Checkpoints: reading them, whether they fit a config, and folders that no two runs share."""

from __future__ import annotations

import logging
import os
import zipfile
from datetime import datetime
from pathlib import Path

import torch
from fairchem.core.common import distutils
from torch import nn

from ocp_dc.errors import InputError
from ocp_dc.files import replacing
from ocp_dc.references import parse_reference_energy
from ocp_dc.rescaling import parse_label_rescaling
from ocp_dc.trainers import exported
from ocp_dc.trainers.labels import Units, units_of_config

# Model settings that change the outputs of the same weights.
SETTINGS_WITHOUT_WEIGHTS = [
    "activation",
    "activation_scope",
    "base",
    "conservative",
    "cutoff",
    "denormalize",
    "direct_forces",
    "use_pbc",
]

EXPLAINED = dict.fromkeys(("T_max", "total_steps"), ", the steps of max_epochs if it is not given")
# in a run's folder of checkpoints, held while it trains
LOCK = "lock"

CHANGE_NO_WEIGHT = {
    "checkpoint_every",
    "eval_batch_size",
    "eval_every",
    "max_epochs",
    "num_workers",
    "on_nonfinite",
    "step",
}


def read_checkpoint(path: str | Path, device: torch.device) -> dict:
    """A checkpoint that the user named (it is unpickled, which can execute code, unless it is an exported model).

    Raises:
        InputError: no such file, or not a checkpoint of fairchem's trainers.
    """
    if not Path(path).is_file():
        raise InputError(f"checkpoint {path}: no such file")
    if Path(path).suffix == exported.SUFFIX:
        return exported.read_model(Path(path), device)
    _require_intact(Path(path))
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=False)
    except Exception as error:  # unpickling may raise anything
        raise InputError(f"checkpoint {path} cannot be read ({error}){_other_checkpoint(Path(path))}") from error
    missing = [key for key in ("state_dict", "config", "normalizers") if key not in checkpoint]
    if missing:
        raise InputError(f"checkpoint {path} has no {', '.join(missing)}: it was not written by a fairchem trainer")
    return checkpoint


def _require_intact(path: Path) -> None:
    """By the checksums of the parts that torch writes a checkpoint in, which torch itself does not look at.

    Raises:
        InputError: a part is damaged.
    """
    # what torch wrote long ago, and what is cut short, is none
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as parts:
            announced, size = sum(part.file_size for part in parts.infolist()), path.stat().st_size
            # torch does not compress them: more than the file has is no checkpoint, and may be more than memory holds
            damaged = f"{announced:,} bytes announced, {size:,} there" if announced > size else parts.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        damaged = f"{error}"
    if damaged is not None:
        raise InputError(f"checkpoint {path} is damaged ({damaged}){_other_checkpoint(path)}")


def _other_checkpoint(path: Path) -> str:
    previous = previous_checkpoint(path)
    return f"; the one before it is {previous}" if previous.is_file() and previous != path else ""


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint that was replaced by this one is kept."""
    return path.with_name(f"previous_{path.name}")


def keep_as_previous(path: Path) -> None:
    """Before a checkpoint is replaced by another."""
    if path.exists():
        with replacing(previous_checkpoint(path)) as kept:
            os.link(path, kept)


def require_training_state(path: str, checkpoint: dict) -> None:
    """Raises InputError if a checkpoint has weights only, so that training could not go on where it was."""
    missing = [name for name in ("step", "optimizer", "scheduler") if name not in checkpoint]
    if missing:
        raise InputError(
            f"checkpoint {path} has no {', '.join(missing)}, as best_checkpoint.pt has none: go on from checkpoint.pt "
            "of that run, or start anew from these weights with --weights-only"
        )


def require_same_training(path: str, checkpoint: dict, optim: dict, labels: dict) -> None:
    """Raises InputError if a checkpoint was trained in another way, or on other data, than the config says.

    Args:
        optim: of the config; what changes no weight may differ.
        labels: of the config's data, see :func:`~ocp_dc.trainers.labels.describe_labels`.
    """
    theirs = checkpoint["config"].get("optim") or {}
    keys = sorted((theirs.keys() | optim.keys()) - CHANGE_NO_WEIGHT)
    # nothing, 0 and {} mean the same
    if different := [key for key in keys if (theirs.get(key) or None) != (optim.get(key) or None)]:
        differences = ", ".join(
            f"optim.{key} {theirs.get(key)!r} (config: {optim.get(key)!r}{EXPLAINED.get(key, '')})" for key in different
        )
        raise InputError(
            f"checkpoint {path} was trained with {differences}: set the config to the checkpoint's values, or start "
            "anew from its weights with --weights-only"
        )
    before, now = (_training_data(described) for described in (checkpoint["config"].get("labels") or {}, labels))
    if before and now and before != now:
        raise InputError(
            f"checkpoint {path} was trained on {'; '.join(before)}, and dataset.train is {'; '.join(now)}: give the "
            "same data, or start anew from its weights with --weights-only"
        )


def _training_data(labels: dict) -> list[str]:
    """What a model is trained on, in words that no two training sets share."""
    sources = [
        f"{source['name']} from {source['source_file']} (sha256 {source['source_sha256'][:12]})"
        for source in labels.get("sources", [])
        if "source_sha256" in source
    ]
    return [*sources, f"{labels['records']['train']:,} records"] if labels.get("records") else sources


def require_same_model(path: str, checkpoint: dict, model_config: dict, model: nn.Module) -> None:
    """Raises InputError if a checkpoint is not of the model that ``model_config`` describes."""
    theirs = checkpoint["config"]["model"]
    different = sorted(key for key in {*theirs, *model_config} if theirs.get(key) != model_config.get(key))
    if "name" in different:
        raise InputError(f"checkpoint {path} is of model {theirs['name']!r}; the config says {model_config['name']!r}")
    if _shapes(model.state_dict()) != _shapes(checkpoint["state_dict"]):
        settings = _differences(different, theirs, model_config) or "its weights differ in shape"
        raise InputError(f"checkpoint {path} is of another {model_config['name']}: {settings}")
    silent = [key for key in different if key in SETTINGS_WITHOUT_WEIGHTS]
    if silent:
        settings = _differences(silent, theirs, model_config)
        raise InputError(f"checkpoint {path} was trained with other settings: {settings}")


def require_same_labels(path: str, checkpoint: dict, task: dict) -> None:
    """Raises InputError if labels were rescaled, or referred, in another way than ``task`` says."""
    theirs = checkpoint["config"]["task"]
    for key, parse in (("label_rescaling", parse_label_rescaling), ("reference_energy", parse_reference_energy)):
        if key in theirs and key in task and parse(theirs[key]) != parse(task[key]):
            raise InputError(
                f"checkpoint {path} was trained with task.{key}: {theirs[key]}, the config says {task[key]}; "
                "set the config to the checkpoint's value"
            )


def require_same_units(path: str, checkpoint: dict, data: Units | None) -> None:
    """Raises InputError if a checkpoint's units are not ``data``, those of the config's data; None, if it has none."""
    theirs = units_of_config(checkpoint["config"])
    if data and theirs is None:
        logging.warning(f"checkpoint {path} states no units: taken to be those of the data, {data}")
    elif data and theirs != data:
        raise InputError(
            f"checkpoint {path} is of labels in {theirs}, the data of dataset are in {data}: go on with data in the "
            "checkpoint's units; `ocp-dc evaluate` converts energy units"
        )


def _shapes(state_dict: dict) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("module."): tuple(value.shape) for name, value in state_dict.items()}


def _differences(keys: list[str], theirs: dict, ours: dict) -> str:
    return ", ".join(f"model.{key} {theirs.get(key)!r} (config: {ours.get(key)!r})" for key in keys)


def unused_run_id(run_dir: Path, identifier: str) -> str:
    """A timestamp, with a number where two runs start in the same second.

    fairchem's own is rounded to two minutes (it passes through float32), so that a second run would continue, and
    overwrite, the checkpoint of the first.
    """
    stem = "-".join(filter(None, [datetime.now().strftime("%Y-%m-%d-%H-%M-%S"), identifier]))
    run_id, number = [stem], 1
    while distutils.is_master():
        try:
            # mkdir, not exists: of two runs that start together only one makes the folder
            (run_dir / "checkpoints" / run_id[0]).mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
            run_id = [f"{stem}-{number}"]
    if distutils.initialized():
        distutils.broadcast_object_list(run_id, src=0)
    return run_id[0]
