"""Scale factors: constants, fitted once before training, that keep the variance of GemNet's activations.

They are kept as fairchem reads them (``model.scale_file``): a JSON file that maps the names of the factors to their
values, and ``comment`` to where they come from.
"""

from __future__ import annotations

import json
from pathlib import Path

from fairchem.core.modules.scaling import ScaleFactor
from fairchem.core.modules.scaling.compat import load_scales_compat
from torch import nn

from ocp_dc.errors import InputError

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
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
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
