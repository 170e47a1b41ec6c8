"""The flags of fairchem's command, known without importing it."""

from __future__ import annotations

import argparse
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path


def flags_parser(mode: str) -> argparse.ArgumentParser:
    """fairchem's parser of flags, from its file: importing its package takes seconds."""
    folder = next(iter(find_spec("fairchem").submodule_search_locations))
    spec = spec_from_file_location("fairchem_flags", Path(folder) / "core" / "common" / "flags.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    parser = module.flags.get_parser()
    parser.prog = f"ocp-dc {mode}"
    return parser
