"""Folders that are there completely or not at all."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from ocp_dc.datasets.conversion_settings import SPLIT_NAMES
from ocp_dc.datasets.manifest import MANIFEST_NAME
from ocp_dc.errors import InputError


@contextmanager
def staged_folder(out: str | Path, may_replace: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Gives a temporary folder beside ``out`` and renames it to ``out`` when the block ends without an error.

    After an error or Ctrl-C nothing is left; what a killed process has left is removed by the next one.

    Args:
        out: the folder to make. Missing parents are made, and removed again if the block fails.
        may_replace: tells whether the existing folder may be replaced; None: no existing one may.

    Raises:
        InputError: ``out`` exists and may not be replaced, or could not be written (a full disk among the causes).
    """
    out = Path(out).resolve()
    made_parents = [parent for parent in out.parents if not parent.exists()]
    staging = _staging_path(out, os.getpid())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear_after_killed(out)
        _refuse_existing(out, may_replace)
        staging.mkdir()
        yield staging
        _put_in_place(staging, out, replacing=may_replace is not None)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made_parents:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, (OSError, lmdb.Error)):
            raise InputError(
                f"{out} could not be written: {error}; nothing was left there. "
                "Check the free space and the permissions, or choose another place"
            ) from error
        raise


def is_conversion(folder: Path) -> bool:
    """Whether a folder holds splits with manifests and nothing else: what :func:`staged_folder` may replace."""
    return folder.is_dir() and all(
        entry.name in SPLIT_NAMES and (entry / MANIFEST_NAME).is_file() for entry in folder.iterdir()
    )


def _staging_path(out: Path, pid: int) -> Path:
    return out.with_name(f".{out.name}.partial-{platform.node()}-{pid}")


def _retired_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _refuse_existing(out: Path, may_replace: Callable[[Path], bool] | None) -> None:
    if not os.path.lexists(out):
        return
    if may_replace is None:
        raise InputError(f"{out} exists; choose another place, or give --overwrite to replace it")
    if not may_replace(out):
        raise InputError(
            f"{out} is not something ocp-dc has written, so --overwrite does not remove it; choose another place"
        )


def _put_in_place(staging: Path, out: Path, replacing: bool) -> None:
    retired = _retired_path(out)
    if replacing and out.exists():
        out.rename(retired)
    try:
        staging.rename(out)
    except OSError:
        if retired.exists():
            retired.rename(out)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _clear_after_killed(out: Path) -> None:
    retired = _retired_path(out)
    if retired.exists():
        if out.exists():
            shutil.rmtree(retired)
        else:
            retired.rename(out)
    prefix = _staging_path(out, 0).name.removesuffix("0")
    for folder in out.parent.iterdir():
        pid = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and pid.isdigit() and not _is_another_running(int(pid)):
            shutil.rmtree(folder)


def _is_another_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
