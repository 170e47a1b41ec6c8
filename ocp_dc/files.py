"""Files that are there completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocp_dc.errors import InputError


def require_writable(path: Path, option: str, overwrite: bool) -> None:
    """Before the work is done that a file is for.

    Args:
        path: of the file.
        option: of the command line that names it, for messages.
        overwrite: whether there may be one.

    Raises:
        InputError: the file is there, is a folder, or its folder is missing.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file with {option}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; name another file with {option}, or give --overwrite")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no such folder; make it first")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a new path beside ``path`` to write a file to, which is renamed to ``path`` when the block ends.

    After an error, a kill or a power cut in the block, ``path`` is as it was. Of several processes that write the same
    ``path`` at once, the last one wins.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes a text file, UTF-8, by :func:`replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")
