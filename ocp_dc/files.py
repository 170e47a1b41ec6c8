"""Files that are there completely or not at all."""

from __future__ import annotations

import errno
import os
import platform
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ocp_dc.errors import InputError

# what the system says of a full disk, a quota, a limit of a file's size
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# what PyTorch says of the same
NOT_WRITTEN = "PytorchStreamWriter failed writing"


def require_writable(path: Path, option: str, overwrite: bool) -> None:
    """Before the work is done that a file is for.

    Args:
        path: of the file.
        option: of the command line that names it, for messages.
        overwrite: whether there may be one.

    Raises:
        InputError: the file is there, is a folder, or its folder is missing or cannot be written to.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file with {option}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; name another file with {option}, or give --overwrite")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no such folder; make it first")
    try:
        TemporaryDirectory(dir=path.absolute().parent).cleanup()
    except OSError as error:
        raise InputError(
            f"{path}: that folder cannot be written to ({error.strerror}); name a file elsewhere with {option}"
        ) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a new path beside ``path`` to write a file to, which is renamed to ``path`` when the block ends.

    After an error, a kill or a power cut in the block, ``path`` is as it was. Of several processes that write the same
    ``path`` at once, the last one wins. What a killed one has left is removed by the next one.

    Raises:
        InputError: see :func:`told_where`.
    """
    remove_abandoned(path)
    partial = _partial(path, f"{os.getpid()}")
    with told_where(path, partial):
        try:
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def told_where(path: Path, written: Path | None = None) -> Iterator[None]:
    """For a block that writes to a file.

    Args:
        path: what the user knows the file by.
        written: what it is written as; None for ``path``.

    Raises:
        InputError: the disk is full, or the file could not be opened; ``path`` and the cause are named.
    """
    try:
        yield
    except Exception as error:
        if why := _why_not_written(error, f"{written or path}"):
            raise InputError(
                f"{path} could not be written: {why}. Check the free space and the permissions, and start the same "
                "command again"
            ) from error
        raise


def _why_not_written(error: BaseException | None, written: str) -> str | None:
    """The system's word on it; None where an error is about something else."""
    if error is None:
        return None
    if isinstance(error, OSError) and (error.errno in FULL or error.filename == written):
        return error.strerror
    if isinstance(error, RuntimeError) and (NOT_WRITTEN in str(error) or written in str(error)):
        return "the disk is full, or cannot be written to"
    # PyTorch complains of its own state afterwards
    return _why_not_written(error.__context__, written) if isinstance(error, RuntimeError) else None


def remove_abandoned(path: Path) -> None:
    """Removes what processes of this machine that were killed have left of ``path``, written by :func:`replacing`."""
    before, after = _partial(path, "\0").name.split("\0")
    for left in path.parent.glob(".*.partial"):
        number = left.name.removeprefix(before).removesuffix(after)
        if number.isdigit() and not is_another_running(int(number)):
            left.unlink(missing_ok=True)


def _partial(path: Path, process: str) -> Path:
    return path.with_name(f".{path.name}.{platform.node()}-{process}.partial")


def is_another_running(process: int) -> bool:
    """Whether a process of that number runs, and is not this one."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _sync_folder(folder: Path) -> None:
    """So that a power cut does not undo a renaming."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_npz(path: Path, **arrays: object) -> None:
    """As ``numpy.savez_compressed`` does, to the byte, but with nothing left open where the disk is full."""
    import numpy as np  # commands that need none start sooner

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)


def replace_text(path: Path, text: str) -> None:
    """Writes a text file, UTF-8, by :func:`replacing`."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Writes a file by :func:`replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)
