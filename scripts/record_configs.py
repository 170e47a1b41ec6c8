#!/usr/bin/env python
"""Adds what new configs resolve to, by their names, to tests/data/resolved_configs.json, which tests hold them to."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fairchem.core.common.utils import load_config

from ocp_dc.config_files import config_file

RECORDS = Path(__file__).resolve().parent.parent / "tests" / "data" / "resolved_configs.json"


def as_text(records: dict[str, dict]) -> str:
    """JSON with a line for each section of each config."""
    configs = []
    for name, config in sorted(records.items()):
        sections = (f"  {json.dumps(key)}: {json.dumps(section)}" for key, section in sorted(config.items()))
        configs.append(f"{json.dumps(name)}: {{\n" + ",\n".join(sections) + "\n}")
    return "{\n" + ",\n".join(configs) + "\n}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="such as md17/schnet_dc; one that is recorded only if it is of our own protocol, *_recommended",
    )
    names = parser.parse_args().names
    records = json.loads(RECORDS.read_text("utf-8"))
    if known := {name for name in names if name in records and not name.endswith("_recommended")}:
        parser.error(f"{', '.join(sorted(known))}: recorded already, and may not change")
    RECORDS.write_text(as_text(records | {name: load_config(config_file(name))[0] for name in names}), "utf-8")
