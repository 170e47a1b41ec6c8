"""How the C library keeps memory that PyTorch's CPU tensors have freed."""

from __future__ import annotations

import ctypes

# glibc's names for what mallopt sets, and its largest M_MMAP_THRESHOLD
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Of this process, for its next tensors; True where that could be set (glibc).

    glibc gives a freed tensor of some megabytes back to the system, which then has to clear the pages of the next one
    as it is written: several times the work of an elementwise operation. The most memory that a process has at a time
    does not change, but it keeps that until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
