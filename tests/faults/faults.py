"""What a system may lack, for tests that run in this process: room for files, permissions, descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocp_dc.files import _partial

NOBODY = 65534


@contextmanager
def size_limit(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes: as on a full disk, LMDB's and PyTorch's own writing fails too."""
    with _limited(resource.RLIMIT_FSIZE, size):
        yield


@contextmanager
def descriptor_limit(more: int) -> Iterator[None]:
    """No more than so many further files can be open at once."""
    used = [int(name) for name in os.listdir("/proc/self/fd")]
    with _limited(resource.RLIMIT_NOFILE, max(used) + more):
        yield


@contextmanager
def _limited(what: int, value: int) -> Iterator[None]:
    before, most = resource.getrlimit(what)
    resource.setrlimit(what, (value, most))
    try:
        yield
    finally:
        resource.setrlimit(what, (before, most))


def abandoned(path: Path) -> Path:
    """What a killed process has left of a file."""
    left = _partial(path, "99999999")
    left.write_bytes(b"half")
    return left
