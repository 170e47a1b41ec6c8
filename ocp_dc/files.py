"""Files that are there completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
