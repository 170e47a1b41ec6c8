"""The flags of fairchem's command, known without importing it."""

from __future__ import annotations

import argparse
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path


def flags_parser(mode: str) -> argparse.ArgumentParser:
    """fairchem's parser of flags, from its file, since importing its package takes seconds; with this package's own."""
    folder = next(iter(find_spec("fairchem").submodule_search_locations))
    spec = spec_from_file_location("fairchem_flags", Path(folder) / "core" / "common" / "flags.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    parser = module.flags.get_parser()
    parser.prog = f"ocp-dc {mode}"
    parser.add_argument("--check-data", action="store_true", help="check all records before, not only the first ones")
    parser.add_argument(
        "--weights-only", action="store_true", help="with --checkpoint: train anew from its weights, C and references"
    )
    return parser
