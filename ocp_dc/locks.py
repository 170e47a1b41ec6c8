"""Locks on files, which the system releases however their holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_held: set[TextIO] = set()


def _let_go() -> None:
    """In a process that was forked: a worker that reads data would hold the lock of a run whose process was killed."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    with path.open("a") as file:
        _held.add(file)
        try:
            yield file
        finally:
            _held.discard(file)


@contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[TextIO | None]:
    """Locks a file, which is made if missing.

    A program that is given the open file holds the lock too: it is free when the last of them has ended. Forked
    processes do not.

    Args:
        path: the file.
        wait: until others let it go.

    Yields:
        The locked file; None if another has it and ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = file
        except BlockingIOError:
            locked = None
        yield locked


@contextmanager
def passing_lock(path: Path) -> Iterator[None]:
    """Waits for a lock on a file, which is made, and is gone again when the block ends: for folders of a user's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with _open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # whoever had it before has removed the file, and another process may lock a new one of that name
            if not _is_at(path, file):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock."""
    with file_lock(path, wait=False) as file:
        return file is None
