import ctypes
import resource

import pytest
import torch

from ocp_dc.memory import keep_freed_memory

MEGABYTES = 6
PAGES = MEGABYTES * 2**20 // resource.getpagesize()


def pages_cleared(tensors: int) -> int:
    """For so many tensors that are there at a time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.zeros(MEGABYTES, 2**18) for _ in range(tensors)]
    assert len(kept) == tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc gives freed memory back at once")
def test_freed_memory_serves_the_next_tensors():
    assert keep_freed_memory()
    # the first ones grow the heap to what fits them
    assert [pages_cleared(5) for _ in range(12)][-1] < PAGES


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()
