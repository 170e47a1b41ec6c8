"""Work in other processes, in chains of which each task needs the one before it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import TypeVar

from ocp_dc.errors import InputError

THREADS_VARIABLE = "OMP_NUM_THREADS"

T = TypeVar("T")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Threads of OpenMP libraries that are yet to be loaded, here and in worker processes, unless the user chose."""
    os.environ.setdefault(THREADS_VARIABLE, str(max(1, threads)))


class Workers:
    """Processes that do what they are given; a context manager.

    Args:
        jobs: their number; 0: all is done in this process. They are spawned, since OpenMP does not survive a fork, and
            so have not loaded torch, after which tblite cannot be loaded.
    """

    def __init__(self, jobs: int) -> None:
        self._executor = ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker) if jobs else None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._executor:
            self._executor.shutdown(cancel_futures=True)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """What ``function(*arguments)`` returns; all of it picklable."""
        if self._executor is None:
            return function(*arguments)
        return _result(self._executor.submit(function, *arguments))

    def run_chains(
        self,
        function: Callable[..., object],
        chains: Iterable[Iterable[tuple]],
        after_each: Callable[..., object],
    ) -> None:
        """Calls ``function(*task)`` for every task, those of a chain one after another; the first error ends it.

        Args:
            function: picklable.
            chains: iterables of tasks, of which chains run at the same time.
            after_each: called as ``after_each(*task)``, in this process, after each task.
        """
        iterators = [iter(chain) for chain in chains]
        if self._executor is None:
            for chain in iterators:
                for task in chain:
                    function(*task)
                    after_each(*task)
            return
        running: dict[Future, tuple[tuple, Iterator[tuple]]] = {}

        def submit_next(chain: Iterator[tuple]) -> None:
            for task in chain:
                running[self._executor.submit(function, *task)] = task, chain
                break

        for chain in iterators:
            submit_next(chain)
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                task, chain = running.pop(future)
                _result(future)
                after_each(*task)
                submit_next(chain)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # a worker that outlived a killed parent would go on writing beside the next try's
    parent_process().join()
    os._exit(1)


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process of --jobs ended, perhaps killed for memory; the same command goes on from what is finished"
        ) from error
