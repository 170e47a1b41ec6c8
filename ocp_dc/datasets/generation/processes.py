"""Work in several processes, in chains of which each task needs the one before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

THREADS_VARIABLE = "OMP_NUM_THREADS"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Threads of OpenMP libraries that are yet to be loaded, here and in worker processes, unless the user chose."""
    os.environ.setdefault(THREADS_VARIABLE, str(max(1, threads)))


def run_chains(
    function: Callable[..., object], chains: Iterable[Iterable[tuple]], jobs: int, after_each: Callable[..., object]
) -> None:
    """Calls ``function(*task)`` for every task, those of a chain one after another; the first error ends the run.

    Args:
        function: picklable.
        chains: iterables of tasks, of which chains run at the same time.
        jobs: processes; with one, all is done in this process.
        after_each: called as ``after_each(*task)``, in this process, after each task.
    """
    iterators = [iter(chain) for chain in chains]
    if jobs == 1:
        for chain in iterators:
            for task in chain:
                function(*task)
                after_each(*task)
        return
    # spawned: OpenMP does not survive a fork
    executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    running: dict[Future, tuple[tuple, Iterator[tuple]]] = {}

    def submit_next(chain: Iterator[tuple]) -> None:
        for task in chain:
            running[executor.submit(function, *task)] = task, chain
            break

    try:
        for chain in iterators:
            submit_next(chain)
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                task, chain = running.pop(future)
                future.result()
                after_each(*task)
                submit_next(chain)
    finally:
        executor.shutdown(cancel_futures=True)
