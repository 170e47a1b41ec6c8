"""Fitting GemNet's scale factors on a config's training set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from fairchem.core.common import distutils

import ocp_dc
from ocp_dc.datasets.manifest import Manifest
from ocp_dc.errors import InputError
from ocp_dc.files import replace_text, require_writable
from ocp_dc.launch import clean_up, config_of
from ocp_dc.models import build_model
from ocp_dc.models.scale_factors import scale_factor_names
from ocp_dc.references import manifests_of


def fit_scale_factors(
    config_yml: str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    num_batches: int = 16,
    overwrite: bool = False,
) -> dict[str, float]:
    """Fit the scale factors of a config's model on its training set, with fairchem's fit, and write them to ``out``.

    The factors are fitted one after the other in the order of computation, on an untrained model: each makes the
    variance of what it scales that of its reference, on average over the batches. ``out`` can be given as
    ``model.scale_file``; its ``comment`` says what was fitted on what.

    Args:
        config_yml: any config of a model with scale factors; those it names already are not used.
        out: the JSON file.
        overrides: config keys (``--model.num_blocks=2``) and flags of fairchem (``--seed 1``).
        num_batches: training batches, the same for each factor.
        overwrite: whether ``out`` may exist.

    Returns:
        the factors by name.

    Raises:
        InputError: a config that cannot be used, a model without scale factors, an ``out`` that exists.
    """
    config_yml, out = Path(config_yml), Path(out)
    if num_batches < 1:
        raise InputError(f"--num-batches {num_batches}: at least one batch is needed")
    out.parent.mkdir(parents=True, exist_ok=True)
    require_writable(out, "--out", overwrite)
    config = _training_config(config_yml, overrides)
    fitted = _fit(config, num_batches)
    if not fitted:
        raise InputError(f"model.name is {config['model']['name']!r}: that model has no scale factors to fit")
    names = scale_factor_names(build_model(config["model"]))
    factors = {names[path]: factor for path, factor in fitted.items()}
    replace_text(out, json.dumps({"comment": _provenance(config, num_batches), **factors}, indent=2) + "\n")
    return factors


def _training_config(config_yml: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The config as for training, with nothing but the training set, and its factors yet to be fitted."""
    # --debug: no logger
    config = config_of("train", ["--config-yml", str(config_yml), "--debug", *overrides])
    config["model"].pop("scale_file", None)
    config["dataset"] = {"train": config["dataset"]["train"]}
    return config


def _fit(config: dict[str, Any], num_batches: int) -> dict[str, float]:
    """fairchem's fit, which asks no questions as long as neither a fitted factor nor its output file exists."""
    # it imports readline, which not every platform has
    from fairchem.core.modules.scaling.fit import compute_scaling_factors

    with TemporaryDirectory() as folder:
        fitted = Path(folder) / "scale_factors.pt"
        distutils.setup_env_local()
        try:
            compute_scaling_factors({**config, "checkpoint": str(fitted), "run_dir": folder}, num_batches)
        finally:
            clean_up()
        return {path: factor.item() for path, factor in torch.load(fitted, weights_only=True).items()}


def _provenance(config: dict[str, Any], num_batches: int) -> dict[str, Any]:
    return {
        "model": config["model"],
        "data": [_source(src, manifest) for src, manifest in manifests_of(config["dataset"]["train"]).items()],
        "batches": num_batches,
        "batch_size": config["optim"]["batch_size"],
        "seed": config["seed"],
        "versions": {
            "ocp_dc": ocp_dc.__version__,
            "fairchem-core": version("fairchem-core"),
            "torch": torch.__version__,
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _source(src: str, manifest: Manifest | None) -> dict[str, str]:
    return {"src": src} | ({"name": manifest.name, "sha256": manifest.source_sha256} if manifest else {})
