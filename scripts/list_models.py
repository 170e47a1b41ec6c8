#!/usr/bin/env python
"""Prints the table of docs/models.md, from the models that configs/md17/*_dc.yml describe, at the paper's sizes."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

import ocp_dc.models  # noqa: F401  registers the models

# isort: split
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import load_config

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "md17"
HEADER = ["model", "config", "parameters", "sites (`paper`)", "sites (`all`)", "normalization layers removed"]
NOTES = {
    "schnet": ("yes", "fairchem's `schnet`"),
    "cgcnn": ("yes, but the energy jumps where a neighbour crosses the cutoff", "OCP's original class, to 1e-9"),
    "dimenetplusplus": ("with `conservative: true`, the default", "fairchem's `dimenetplusplus`"),
    "forcenet": ("yes; not invariant to rotation", "OCP's original class, to 1e-9"),
    "gemnet_t": ("yes", "fairchem's `gemnet_t`"),
}


def build(config: str, **overrides: str) -> nn.Module:
    settings = {**load_config(CONFIGS / f"{config}.yml")[0]["model"], **overrides}
    return registry.get_model_class(settings.pop("name"))(**settings)


def row(name: str) -> list[str]:
    paper, everywhere = build(f"{name}_dc"), build(f"{name}_dc", activation_scope="all")
    cells = [
        f"{sum(parameter.numel() for parameter in paper.parameters()):,}",
        len(paper.replaced_activations),
        len(everywhere.replaced_activations),
        len(getattr(paper, "removed_normalizations", [])),
    ]
    return [f"`{name}_irelu`", f"`{name}_dc.yml`", *map(str, cells), *NOTES[name]]


def table() -> str:
    """The table, in Markdown."""
    header = [*HEADER, "forces are −∂E/∂x", "`activation: original` is tested against"]
    rows = [header, ["---"] * len(header), *(row(name) for name in NOTES)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


if __name__ == "__main__":
    logging.disable()
    print(table())
