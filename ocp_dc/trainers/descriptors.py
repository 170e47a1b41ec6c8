"""Files that may be open at once, of which the workers of loaders need many: without them, a loader waits for ever."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable

import torch
from torch.utils.data import DataLoader

from ocp_dc.errors import InputError

# of a loader's worker, for its queues
QUEUES = 6
# batch and ptr, which a batch has beside what its records have
ADDED = 2


def allow_descriptors(loaders: Iterable[DataLoader]) -> None:
    """Raises this process's limit to what the workers of these loaders may need, as far as it may.

    A tensor that comes from a worker is a file that is open at both ends.

    Raises:
        InputError: it may not be raised so far.
    """
    with_workers = [loader for loader in loaders if loader.num_workers]
    if not with_workers:
        return
    tensors = max(_tensors_of_batch(loader) for loader in with_workers)
    at_this_end = sum(loader.num_workers * (loader.prefetch_factor * tensors + QUEUES) for loader in with_workers)
    # a worker has what was open when it was forked, and each tensor twice
    needed = len(os.listdir("/dev/fd")) + at_this_end + 4 * tensors + 20
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed <= allowed:
        return
    if most != resource.RLIM_INFINITY and needed > most:
        workers = max(loader.num_workers for loader in with_workers)
        raise InputError(
            f"optim.num_workers is {workers}: that may take {needed:,} open files, and `ulimit -n` is {most:,}; raise "
            "it, or set optim.num_workers lower, 0 for none"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def _tensors_of_batch(loader: DataLoader) -> int:
    return sum(torch.is_tensor(value) for _, value in loader.dataset[0]) + ADDED
