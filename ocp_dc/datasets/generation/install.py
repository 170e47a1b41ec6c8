"""What a message says of a package that cannot be imported."""

from __future__ import annotations

import sys

INSTALL = 'install it with: pip install "ocp_dc[sample]"'


def tblite_remedy() -> str:
    """What to do where tblite cannot be imported; torch's OpenMP is older than the one that its wheel needs."""
    if "torch" in sys.modules:
        return f"it must be imported before torch, or used in another process; if it is missing, {INSTALL}"
    return INSTALL
