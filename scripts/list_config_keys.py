#!/usr/bin/env python
"""Prints the tables of docs/configuration.md: every key of a config, from the schema that configs are checked by.

``--to FILE`` writes them in the place of the file's own, which are what follows its line ``## Every key``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocp_dc.configuration.schema import (
    CGCNN,
    Config,
    Dataset,
    DimeNetPlusPlus,
    DimeNetPlusPlusIReLU,
    Flags,
    ForceNet,
    ForceNetIReLU,
    GemNetT,
    LossTerm,
    Metrics,
    Model,
    Optim,
    Output,
    Replaced,
    SchNet,
    Section,
    Source,
    Task,
)
from ocp_dc.files import replace_text

HEADING = "## Every key\n"
# title, prefix of the keys, section, and sections whose keys it has too
TABLES: tuple[tuple[str, str, type[Section], tuple[type[Section], ...]], ...] = (
    ("The whole", "", Config, (Flags,)),
    ("Labels, and fairchem's tasks", "task.", Task, ()),
    ("Training", "optim.", Optim, ()),
    ("Data", "dataset.", Dataset, ()),
    ("A set of data", "dataset.train.", Source, ()),
    ("Outputs", "outputs.energy.", Output, ()),
    ("Losses, a list", "loss_functions: energy.", LossTerm, ()),
    ("Validation", "evaluation_metrics.", Metrics, ()),
    ("Every model", "model.", Model, ()),
    ("Models with replaced activations (`*_irelu`)", "model.", Replaced, ()),
    ("SchNet", "model.", SchNet, (Model,)),
    ("CGCNN", "model.", CGCNN, (Model,)),
    ("DimeNet++", "model.", DimeNetPlusPlus, (Model,)),
    ("DimeNet++, `dimenetplusplus_irelu` alone", "model.", DimeNetPlusPlusIReLU, (DimeNetPlusPlus, Replaced)),
    ("ForceNet", "model.", ForceNet, (Model,)),
    ("ForceNet, `forcenet_irelu` alone", "model.", ForceNetIReLU, (ForceNet, Replaced)),
    ("GemNet-T", "model.", GemNetT, (Model,)),
)


def tables() -> str:
    """As Markdown."""
    parts = []
    for title, prefix, section, others in TABLES:
        known = {name for other in others for name in other.model_fields}
        rows = [row for row in _rows(prefix, section) if row[0].rpartition(".")[2].strip("`") not in known]
        lines = [f"### {title}", "", "| key | what | values |", "|---|---|---|"]
        parts.append("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]))
    return "\n\n".join(parts) + "\n"


def _rows(prefix: str, section: type[Section]) -> Iterator[tuple[str, str, str]]:
    schema = section.model_json_schema()
    for name, field in section.model_fields.items():
        values = _values(schema["properties"][name])
        yield f"`{prefix}{name}`", field.description or "", values + (", required" if field.is_required() else "")


def _values(kind: dict[str, Any]) -> str:
    if "anyOf" in kind:
        return ", ".join(_values(option) for option in kind["anyOf"] if option.get("type") != "null")
    if "enum" in kind or "const" in kind:
        return ", ".join(
            f"`{str(value).lower() if isinstance(value, bool) else value}`"
            for value in kind.get("enum", [kind.get("const")])
        )
    limits = [f"{sign} {kind[name]:g}" for name, sign in LIMITS.items() if name in kind]
    return " ".join([NAMES.get(kind.get("type", ""), "keys of its own"), *limits])


NAMES = {"number": "a number", "integer": "a whole number", "boolean": "`true`, `false`", "string": "text"} | {
    "array": "a list",
    "object": "keys of its own",
}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", metavar="FILE", type=Path, help="page to write into, after its heading")
    page = parser.parse_args().to
    if page is None:
        print(tables())
        return
    before, heading, after = page.read_text("utf-8").partition(HEADING)
    first_line = after.lstrip().splitlines()[0]
    replace_text(page, f"{before}{heading}\n{first_line}\n\n{tables()}")


if __name__ == "__main__":
    main()
