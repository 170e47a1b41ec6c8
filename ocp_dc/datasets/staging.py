"""Folders that are there completely or not at all."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb

from ocp_dc.datasets.conversion_settings import SPLIT_NAMES
from ocp_dc.datasets.lmdb import METADATA_NAME
from ocp_dc.datasets.manifest import MANIFEST_NAME
from ocp_dc.errors import InputError
from ocp_dc.files import is_another_running

# of a split: LMDBs, with the lock files that other readers leave beside them, and what is told of them
WRITTEN_FILES = re.compile(rf"data(\.\d{{4}})?\.lmdb(-lock)?|{re.escape(METADATA_NAME)}|{re.escape(MANIFEST_NAME)}")


@contextmanager
def staged_folder(out: str | Path, overwrite: bool = False, sources: Iterable[str | Path] = ()) -> Iterator[Path]:
    """Gives a temporary folder beside ``out`` and renames it to ``out`` when the block ends without an error.

    After an error or Ctrl-C nothing is left; what a killed process has left is removed by the next one.

    Args:
        out: the folder to make. Missing parents are made, and removed again if the block fails.
        overwrite: replace an earlier conversion there, if nothing else is in it.
        sources: files that are read, none of which may be in ``out``.

    Raises:
        InputError: ``out`` exists and may not be replaced, or could not be written (a full disk among the causes).
    """
    out = output_folder(out, sources)
    made_parents = [parent for parent in out.parents if not parent.exists()]
    staging = _staging_path(out, os.getpid())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear_after_killed(out)
        _refuse_existing(out, overwrite)
        staging.mkdir()
        yield staging
        _put_in_place(staging, out, replacing=overwrite)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made_parents:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, (OSError, lmdb.Error)):
            left = "the earlier conversion there is as it was" if out.exists() else "nothing was left there"
            raise InputError(
                f"{out} could not be written: {error}; {left}. "
                "Check the free space and the permissions, or choose another place"
            ) from error
        raise


def output_folder(out: str | Path, sources: Iterable[str | Path]) -> Path:
    """The folder to make, as an absolute path.

    Args:
        out: as it was given.
        sources: files and folders that are read.

    Raises:
        InputError: it is the root, a source is in it, or it is in a source.
    """
    resolved = Path(out).resolve()
    if not resolved.name:
        raise InputError(f"{out} is the root of all files; name a folder to make")
    for source in sources:
        read = Path(source).resolve()
        if read.is_relative_to(resolved) or resolved.is_relative_to(read):
            raise InputError(f"{source} is read, and {out} would be written over it or into it; choose another place")
    return resolved


def foreign_entry(folder: Path) -> Path | None:
    """The first thing in a folder that no conversion writes; None for a conversion, which may be replaced."""
    if not folder.is_dir():
        return folder
    for split in sorted(folder.iterdir()):
        if split.name not in SPLIT_NAMES or split.is_symlink() or not (split / MANIFEST_NAME).is_file():
            return split
        for entry in sorted(split.iterdir()):
            if not (WRITTEN_FILES.fullmatch(entry.name) and entry.is_file()):
                return entry
    return None


def _remove_conversion(folder: Path) -> None:
    """Removes what a conversion writes; what somebody has put in beside it stays."""
    for split in (folder / name for name in SPLIT_NAMES):
        for entry in split.iterdir() if split.is_dir() else ():
            if WRITTEN_FILES.fullmatch(entry.name):
                entry.unlink()
    for emptied in (*(folder / name for name in SPLIT_NAMES), folder):
        with suppress(OSError):
            emptied.rmdir()


def _staging_path(out: Path, pid: int) -> Path:
    return out.with_name(f".{out.name}.partial-{platform.node()}-{pid}")


def _retired_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out} exists; choose another place, or give --overwrite to replace it")
    if foreign := foreign_entry(out):
        raise InputError(
            f"{foreign} is not something ocp-dc has written, so --overwrite does not remove it; choose another place"
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
    _remove_conversion(retired)


def _clear_after_killed(out: Path) -> None:
    retired = _retired_path(out)
    if retired.exists():
        if out.exists():
            _remove_conversion(retired)
        else:
            retired.rename(out)
    prefix = _staging_path(out, 0).name.removesuffix("0")
    for folder in out.parent.iterdir():
        pid = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and pid.isdigit() and not is_another_running(int(pid)):
            shutil.rmtree(folder)
