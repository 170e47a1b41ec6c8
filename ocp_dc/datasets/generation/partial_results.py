"""The folder in which a generator keeps what it has finished, so that a killed one can be continued."""

from __future__ import annotations

import json
from pathlib import Path

from ocp_dc.errors import InputError
from ocp_dc.files import replace_text


def partial_folder(out: Path) -> Path:
    """Where what belongs to ``out`` is kept until that is written."""
    return out.with_name(f"{out.name}.partial")


def open_partial_folder(folder: Path, settings: dict) -> None:
    """Makes the folder, or sees that an earlier run left it with the same settings.

    Args:
        folder: to make.
        settings: all that results depend on, for JSON.

    Raises:
        InputError: the folder is of a run with other settings.
    """
    kept = folder / "settings.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(kept, json.dumps(settings))
    earlier = json.loads(kept.read_text("utf-8"))
    differing = [
        f"{key} was {earlier.get(key)}, is {settings.get(key)}"
        for key in dict.fromkeys([*settings, *earlier])
        if earlier.get(key) != settings.get(key)
    ]
    if differing:
        raise InputError(
            f"{folder} holds a run with other settings ({'; '.join(differing)}); "
            "repeat those to continue it, or delete the directory"
        )


def check_absent(out: Path, overwrite: bool) -> None:
    """Raises InputError where the output exists and may not be replaced."""
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; --overwrite replaces it")


def check_positive(options: object, *keys: str) -> None:
    """Raises InputError for the first of these attributes that is not positive, as an option of that name."""
    for key in keys:
        if getattr(options, key) <= 0:
            raise InputError(f"--{key.replace('_', '-')} {getattr(options, key)} is not positive")
