"""`ocp-dc info`: what is installed, or what a checkpoint holds."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocp_dc.terminal import format_table

if TYPE_CHECKING:
    from ocp_dc.transforms import ReplacedSite

WIDTH = 110
NOT_STATED = "not stated"
# of metrics that have the unit of an energy, or of a force
ENERGY_METRICS = ("energy_mae", "energy_per_atom_mae")
FORCE_METRICS = ("forces_mae", "forcesx_mae", "forcesy_mae", "forcesz_mae")

Rows = dict[str, str | Sequence[str]]


def add_info_command(commands: argparse._SubParsersAction) -> None:
    """Adds `info [CHECKPOINT]`.

    As with all commands, ``func`` takes the parsed arguments, returns the exit status and raises InputError.
    """
    info = commands.add_parser("info", help="versions, device and models; or what a checkpoint holds")
    info.add_argument("checkpoint", nargs="?", type=Path, help="checkpoint.pt of a run (it is unpickled: trust it)")
    info.set_defaults(func=run_info)


def run_info(args: argparse.Namespace) -> int:
    print(format_rows(describe_checkpoint(args.checkpoint) if args.checkpoint else describe_installation()))
    return 0


def format_rows(rows: Rows) -> str:
    """Names on the left, their values on the right: texts, wrapped, or lists of lines."""
    width, lines = WIDTH - 2 - max(map(len, rows)), []
    for name, value in rows.items():
        listed = textwrap.wrap(value, width, break_on_hyphens=False) if isinstance(value, str) else value
        lines += zip_longest([name], listed, fillvalue="")
    return format_table(lines)


def describe_installation() -> Rows:
    """Versions, the device that training takes, and the registered models."""
    import torch
    from fairchem.core.common.registry import registry
    from fairchem.core.common.utils import setup_imports

    import ocp_dc.models  # noqa: F401  registers ours
    from ocp_dc._pyg_fallback import FILES, served

    setup_imports()  # registers fairchem's models
    models = registry.mapping["model_name_mapping"]
    ours = {name for name, model in models.items() if model.__module__.startswith("ocp_dc.")}
    return {
        **{name: version(name) for name in ("ocp_dc", "fairchem-core", "torch", "torch-geometric")},
        **{name: "stand-in of ocp_dc" if name in served() else "installed" for name in FILES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "models of ocp_dc": ", ".join(sorted(ours)),
        "models of fairchem": ", ".join(sorted(models.keys() - ours)),
    }


def describe_checkpoint(path: Path) -> Rows:
    """What a checkpoint of this package, or of fairchem, holds.

    Raises:
        InputError: not a readable checkpoint.
    """
    import torch

    from ocp_dc.trainers.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(path, torch.device("cpu"))
    config = checkpoint["config"]
    labels = config.get("labels") or {}
    energy_unit = labels.get("energy_unit", "(unit not stated)")
    length_unit = labels.get("length_unit", NOT_STATED).replace("Ang", "Å")
    force_unit = f"{energy_unit}/{length_unit}" if labels else energy_unit
    reached = f"step {checkpoint['step']:,}, epoch {checkpoint['epoch']:g}" if "step" in checkpoint else NOT_STATED
    best = {checkpoint.get("primary_metric"): checkpoint.get("best_val_metric")}
    validated = {name: value["metric"] for name, value in (checkpoint.get("val_metrics") or {}).items()}
    return {
        **_describe_model(config["model"]),
        "label rescaling": _rescaling(checkpoint["normalizers"]),
        "reference energy": _reference(config, checkpoint, energy_unit),
        "units": f"{energy_unit}, {length_unit}, from: {labels['units_from']}" if labels else NOT_STATED,
        "trained on": _training_data(config, labels),
        "reached": reached,
        "best metric": _metrics(best, energy_unit, force_unit),
        "validation": _metrics(validated, energy_unit, force_unit),
        "averaged weights": _averaging(config, checkpoint),
        "written by": _versions(config),
    }


def _describe_model(settings: dict[str, Any]) -> Rows:
    from ocp_dc.models import build_model

    rows = {"model": settings["name"], "settings": _settings({k: v for k, v in settings.items() if k != "name"})}
    try:
        model = build_model(settings)
    except Exception as error:  # of any class: constructors of other packages too
        return {**rows, "sites": f"not known, the model cannot be built here: {error}"}
    return {
        **rows,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "activations": _sites(getattr(model, "replaced_activations", []), "replaced"),
        "normalizations": _sites(getattr(model, "removed_normalizations", []), "removed"),
    }


def _settings(settings: dict[str, Any]) -> str:
    shown = []
    for key, value in settings.items():
        if isinstance(value, dict):
            value = f"{len(value)} factors" if key == "scale_file" else f"({_settings(value)})"
        shown.append(f"{key}: {value}{' Å' if key == 'cutoff' else ''}")
    return ", ".join(shown)


def _sites(sites: Sequence[ReplacedSite], done: str) -> str | list[str]:
    """A line for all sites whose paths differ in numbers only."""
    if not sites:
        return f"none {done}"
    alike = Counter((re.sub(r"\b\d+\b", "*", site.path), site.old, site.new) for site in sites)
    lines = [f"{path}: {old} → {new}" + (f" ({n} times)" if n > 1 else "") for (path, old, new), n in alike.items()]
    return [f"{len(sites)} {done}", *lines]


def _rescaling(normalizers: dict[str, dict]) -> str:
    constants = {target: float(state["rmsd"]) for target, state in normalizers.items() if "rmsd" in state}
    if len(set(constants.values())) > 1:
        return ", ".join(f"{target} / {constant:,.10g}" for target, constant in constants.items())
    constant = next(iter(constants.values()), 1.0)
    return "none" if constant == 1.0 else f"C = {constant:,.10g}"


def _reference(config: dict[str, Any], checkpoint: dict[str, Any], energy_unit: str) -> str:
    if "energy" in (checkpoint.get("elementrefs") or {}):
        from ase.data import chemical_symbols

        energies = checkpoint["elementrefs"]["energy"]["element_references"].tolist()
        found = [f"{chemical_symbols[z]} {energy:,.4f}" for z, energy in enumerate(energies) if energy]
        return f"element: {', '.join(found)} {energy_unit}"
    mean = checkpoint["normalizers"].get("energy", {}).get("mean", 0.0)
    return f"mean: {float(mean):,.4f} {energy_unit}" if mean else "none"


def _training_data(config: dict[str, Any], labels: dict[str, Any]) -> str | list[str]:
    if not labels:
        return f"{NOT_STATED}; dataset.train.src was {(config.get('dataset') or {}).get('src', NOT_STATED)}"
    records = ", ".join(f"{count:,} for {split}" for split, count in labels["records"].items())
    lines = [f"records: {records}"]
    for source in labels["sources"]:
        if "source_file" not in source:
            lines.append(source["name"])
            continue
        lines += [
            f"{source['name']}: {source['count']:,} of {source['source_count']:,}, {source['theory']}",
            f"  from {source['source_file']}, sha256 {source['source_sha256']}",
        ]
    return lines


def _metrics(values: dict[str, float | None], energy_unit: str, force_unit: str) -> str | list[str]:
    units = {**dict.fromkeys(ENERGY_METRICS, energy_unit), **dict.fromkeys(FORCE_METRICS, force_unit)}
    known = {name: value for name, value in values.items() if value is not None}
    return [f"{name} {value:,.6g} {units.get(name, '')}".rstrip() for name, value in known.items()] or NOT_STATED


def _averaging(config: dict[str, Any], checkpoint: dict[str, Any]) -> str:
    decay = (config.get("optim") or {}).get("ema_decay")
    if decay is None:
        return "none"
    # a file for predictions only holds them in the place of the others
    return f"{'beside' if checkpoint.get('ema') else 'in place of'} those of the last step, decay {decay}"


def _versions(config: dict[str, Any]) -> str:
    written = config.get("cmd") or {}
    return f"ocp_dc {written.get('ocp_dc_version', NOT_STATED)}, fairchem-core {written.get('version', NOT_STATED)}"
