"""The folder in which a generator keeps what it has finished, so that a killed one can be continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocp_dc.errors import InputError
from ocp_dc.files import replace_text
from ocp_dc.locks import file_lock


@contextmanager
def partial_results(out: Path, settings: dict) -> Iterator[Path]:
    """Gives ``OUT.partial``, made or as an earlier run with the same settings left it, and keeps others out of it.

    It is left there; who has written ``out`` removes it.

    Args:
        out: what is to be made.
        settings: all that results depend on, for JSON.

    Raises:
        InputError: the folder is of a run with other settings, or another process is in it.
    """
    folder = out.with_name(f"{out.name}.partial")
    with file_lock(folder / "lock", wait=False) as lock:
        if lock is None:
            raise InputError(f"{out} is being made by another process; wait for it, or choose another name")
        _check_settings(folder, settings)
        yield folder


def _check_settings(folder: Path, settings: dict) -> None:
    kept = folder / "settings.json"
    if not kept.exists():
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
