"""What a system may lack, for tests that run in this process: room for files, permissions, descriptors."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

from ocp_dc.files import _partial

CAPABILITIES_VERSION_3 = 0x20080522
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
OVERRIDING = 1 << 1 | 1 << 2


@contextmanager
def size_limit(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes: as on a full disk, LMDB's and PyTorch's own writing fails too."""
    with _limited(resource.RLIMIT_FSIZE, size):
        yield


@contextmanager
def descriptor_limit(more: int) -> Iterator[None]:
    """No more than so many further files can be open at once."""
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (number for number in count() if number not in used)
    with _limited(resource.RLIMIT_NOFILE, next(islice(free, more, None))):
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


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in a folder can be written to, made or removed, by root neither."""
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        with _bound_by_permissions():
            yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextmanager
def _bound_by_permissions() -> Iterator[None]:
    """What root may do beyond permissions is put aside, for this thread and those that it starts."""
    if os.geteuid() != 0:
        yield
        return
    system = ctypes.CDLL(None)
    header, held = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert system.capget(header, held) == 0
    fewer = (ctypes.c_uint32 * 6)(*held)
    fewer[0] &= ~OVERRIDING
    assert system.capset(header, fewer) == 0
    try:
        yield
    finally:
        assert system.capset(header, held) == 0
