"""Scale factors: constants, fitted once before training, that keep the variance of GemNet's activations.

They are kept as the host reads them (``model.scale_file``): a JSON file that maps the names of the factors to their
values, and ``comment`` to where they come from.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from fairchem.core.common import distutils
from fairchem.core.common.flags import flags
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import build_config
from fairchem.core.modules.scaling import ScaleFactor
from fairchem.core.modules.scaling.compat import load_scales_compat
from torch import nn

import ocp_dc
from ocp_dc.config_keys import check_sections
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.errors import InputError
from ocp_dc.files import replace_text

HOW_TO_FIT = "`ocp-dc fit-scale-factors` makes a file of them"


def scale_factor_names(model: nn.Module) -> dict[str, str]:
    """The path of each scale factor in ``model``, and the name that a scale file gives it."""
    factors = [(path, module) for path, module in model.named_modules() if isinstance(module, ScaleFactor)]
    return {path: module.name or path for path, module in factors}


def read_scale_factors(path: str | Path) -> dict[str, float]:
    """The factors of a JSON file, without its comment.

    Raises:
        InputError: there is no such file, or it does not map names to numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"model.scale_file is {path}: no such file; {HOW_TO_FIT}")
    try:
        factors = json.loads(path.read_text("utf-8"))
        factors.pop("comment", None)
        return {name: float(factor) for name, factor in factors.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"model.scale_file is {path}: not a JSON file of scale factors ({error}); {HOW_TO_FIT}"
        ) from error


def load_scale_factors(model: nn.Module, scale_file: dict[str, float] | str | Path) -> None:
    """Set the scale factors of ``model``; factors that it lacks are left out.

    Args:
        scale_file: the factors by name, or the path of their JSON file.

    Raises:
        InputError: the file cannot be read, or a factor is missing.
    """
    factors = scale_file if isinstance(scale_file, dict) else read_scale_factors(scale_file)
    names = scale_factor_names(model).values()
    if missing := [name for name in names if name not in factors]:
        source = "the mapping" if isinstance(scale_file, dict) else scale_file
        raise InputError(f"model.scale_file: {source} has no {', '.join(missing)}; {HOW_TO_FIT}")
    load_scales_compat(model, {name: factors[name] for name in names})


def fit_scale_factors(
    config_yml: str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    num_batches: int = 16,
    overwrite: bool = False,
) -> dict[str, float]:
    """Fit the scale factors of a config's model on its training set, with the host's fit, and write them to ``out``.

    The factors are fitted one after the other in the order of computation, on an untrained model: each makes the
    variance of what it scales that of its reference, on average over the batches. ``out`` can be given as
    ``model.scale_file``; its ``comment`` says what was fitted on what.

    Args:
        config_yml: any config of a model with scale factors; those it names already are not used.
        out: the JSON file.
        overrides: config keys (``--model.num_blocks=2``) and flags of the host (``--seed 1``).
        num_batches: training batches, the same for each factor.
        overwrite: whether ``out`` may exist.

    Returns:
        the factors by name.

    Raises:
        InputError: a config that cannot be used, a model without scale factors, an ``out`` that exists.
    """
    config_yml, out = Path(config_yml), Path(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; name another file, or give --overwrite")
    out.parent.mkdir(parents=True, exist_ok=True)
    config = _training_config(config_yml, overrides)
    fitted = _fit(config, num_batches)
    if not fitted:
        raise InputError(f"model.name is {config['model']['name']!r}: that model has no scale factors to fit")
    names = scale_factor_names(_untrained(config["model"]))
    factors = {names[path]: factor for path, factor in fitted.items()}
    replace_text(out, json.dumps({"comment": _provenance(config, num_batches), **factors}, indent=2) + "\n")
    return factors


def _training_config(config_yml: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The config as for training, with nothing but the training set, and its factors yet to be fitted."""
    if not config_yml.is_file():
        raise InputError(f"--config-yml {config_yml}: no such file")
    # --debug: no logger
    arguments = ["--mode", "train", "--config-yml", str(config_yml), "--debug", *overrides]
    args, overridden_keys = flags.get_parser().parse_known_args(arguments)
    args.cpu = args.cpu or not torch.cuda.is_available()
    config = build_config(args, overridden_keys)
    check_sections(config)
    config["model"].pop("scale_file", None)
    train = config.get("dataset", {}).get("train")
    if not train:
        raise InputError(f"{config_yml}: dataset.train is missing; scale factors are fitted on the training set")
    config["dataset"] = {"train": train}
    return config


def _fit(config: dict[str, Any], num_batches: int) -> dict[str, float]:
    """The host's fit, which asks no questions as long as neither a fitted factor nor its output file exists."""
    # it imports readline, which not every platform has
    from fairchem.core.modules.scaling.fit import compute_scaling_factors

    with TemporaryDirectory() as folder:
        fitted = Path(folder) / "scale_factors.pt"
        distutils.setup_env_local()
        try:
            compute_scaling_factors({**config, "checkpoint": str(fitted), "run_dir": folder}, num_batches)
        finally:
            # after an error the host leaves its process group, and its open LMDBs, behind
            distutils.cleanup()
            gc.collect()
        return {path: factor.item() for path, factor in torch.load(fitted, weights_only=True).items()}


def _untrained(settings: dict[str, Any]) -> nn.Module:
    settings = dict(settings)
    return registry.get_model_class(settings.pop("name"))(**settings)


def _provenance(config: dict[str, Any], num_batches: int) -> dict[str, Any]:
    sources = config["dataset"]["train"]["src"]
    return {
        "model": config["model"],
        "data": [_source(src) for src in ([sources] if isinstance(sources, str) else sources)],
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


def _source(src: str) -> dict[str, str]:
    manifest = read_manifest(src)
    return {"src": src} | ({"name": manifest.name, "sha256": manifest.source_sha256} if manifest else {})
