"""Models to share: weights as safetensors with all that predictions need as JSON, read without unpickling anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ocp_dc.errors import InputError
from ocp_dc.files import replace_bytes

SUFFIX = ".safetensors"
# in the header of the file
KEY = "ocp_dc"
FORMAT_VERSION = 1
# of a checkpoint's config; the others are paths and settings of the machine that it was trained on
CONFIG = ("trainer", "task", "model", "outputs", "loss_functions", "evaluation_metrics", "optim", "labels")
VERSIONS = ("version", "ocp_dc_version", "seed")
REACHED = ("step", "epoch", "primary_metric", "best_val_metric", "val_metrics")


def write_model(checkpoint: dict[str, Any], weights: dict[str, torch.Tensor], out: Path) -> None:
    """Writes a model as safetensors; their metadata have its config, C, reference energies, units, elements, and what
    it was trained on, as JSON.

    Args:
        checkpoint: as :func:`ocp_dc.trainers.checkpoints.read_checkpoint` gives it.
        weights: that it predicts with, which are the averaged ones where there are some.
        out: the file, which ends in ``.safetensors``.
    """
    config = checkpoint["config"]
    description = {
        "format_version": FORMAT_VERSION,
        "config": {name: config[name] for name in CONFIG if name in config}
        | {"cmd": {name: (config.get("cmd") or {}).get(name) for name in VERSIONS}},
        "normalizers": {target: _floats(state) for target, state in checkpoint["normalizers"].items()},
        "elementrefs": {target: _floats(state) for target, state in (checkpoint.get("elementrefs") or {}).items()},
        **{name: checkpoint[name] for name in REACHED if name in checkpoint},
    }
    # each of its own memory, as the format demands
    own = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    replace_bytes(out, save(own, {KEY: json.dumps(description, default=str)}))


def _floats(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.double().tolist() for name, value in state.items()}


def read_model(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint, without what training needs, of a file that :func:`export_model` wrote.

    Raises:
        InputError: it is damaged, or of another kind or version.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            text = (file.metadata() or {}).get(KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no iterator
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); is it complete?") from error
    try:
        description = json.loads(text or "{}")
        if description.get("format_version") != FORMAT_VERSION:
            found = f"version {description['format_version']}" if description else "of another program"
            raise InputError(f"{path} is {found}; `ocp-dc export` writes version {FORMAT_VERSION}")
        scales = {
            name: {target: _tensors(state) for target, state in description[name].items()}
            for name in ("normalizers", "elementrefs")
        }
        return {**description, **scales, "state_dict": weights, "config": dict(description["config"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: what it says of its model cannot be read ({what}); get it again") from error


def _tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}
