"""Runs, several at a time, each in a process of its own, with a progress bar each."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ocp_dc.locks import file_lock
from ocp_dc.runs.records import LOCK_NAME, is_done, last_logged_step, read_record
from ocp_dc.runs.rendering import format_number

WORKER = (sys.executable, "-m", "ocp_dc.runs.worker")
POLL_SECONDS = 0.5
# for which the remains of a preempted job may still hold its run
PATIENCE = 120.0
# seconds for workers to end in, of the 30 that SLURM gives
GRACE = 10.0


@dataclass(frozen=True)
class Outcome:
    """How a run stands when all have had their turn.

    Attributes:
        folder: of the run.
        status: ``finished``, ``diverged``, ``failed`` (an error), ``killed`` (the process ended without a result) or
            ``busy`` (another process has it).
        message: what went wrong; None where nothing did.
    """

    folder: Path
    status: str
    message: str | None = None


def default_jobs() -> int:
    """One per GPU; without any, two on the CPU, or one where there is one core."""
    return _gpus() or min(2, _cores())


def run_all(folders: Sequence[Path], jobs: int, patience: float = math.inf) -> list[Outcome]:
    """Brings runs to their results; what is finished is left, what another process works on is waited for.

    A run that fails or is killed does not stop the others. When this process is stopped, so are its workers.

    Args:
        folders: of the runs, each with its ``experiment.json``.
        jobs: how many at a time.
        patience: seconds to wait for other processes, once there is nothing else to do.

    Returns:
        One outcome for each folder, in that order.
    """
    pool = _Pool(folders, jobs)
    last_busy = time.monotonic()
    try:
        while pool.advance():
            if pool.workers:
                last_busy = time.monotonic()
            elif time.monotonic() - last_busy > patience:
                break
            time.sleep(POLL_SECONDS)
    finally:
        pool.stop()
    return [pool.outcomes.get(folder, Outcome(folder, "busy", "another process works on it")) for folder in folders]


class _Pool:
    """Workers in numbered slots, and the outcomes so far."""

    def __init__(self, folders: Sequence[Path], jobs: int) -> None:
        self._folders = folders
        self._jobs = jobs
        self._started = time.time()
        self._interval = 0.1 if sys.stderr.isatty() else 30.0
        self.workers: dict[int, _Worker] = {}
        found = (_outcome(folder, self._started) for folder in folders)
        self.outcomes = {outcome.folder: outcome for outcome in found if outcome}
        done = len(self.outcomes)
        self._bar = tqdm(total=len(folders), initial=done, desc="runs", unit="run", mininterval=self._interval)

    def advance(self) -> bool:
        """Takes in what has ended, starts what can be; whether there is still something to do."""
        for slot, worker in list(self.workers.items()):
            if worker.ended():
                del self.workers[slot]
                self._record(_outcome(worker.folder, self._started) or worker.death)
        at_work = {worker.folder for worker in self.workers.values()}
        for folder in self._folders:
            if folder not in self.outcomes and folder not in at_work:
                self._take_up(folder)
        return len(self.outcomes) < len(self._folders)

    def stop(self) -> None:
        """Workers end in order, or at once if that takes them long."""
        workers = self.workers.values()
        try:
            for worker in workers:
                worker.terminate()
            # in a job they leave signals to submitit
            deadline = time.monotonic() + (0 if "SUBMITIT_EXECUTOR" in os.environ else GRACE)
            for worker in workers:
                worker.wait(deadline - time.monotonic())
        finally:
            for worker in workers:
                worker.kill()
            self._bar.close()

    def _take_up(self, folder: Path) -> None:
        """Starts a worker if a slot and the run are free, and takes in a result that is there."""
        free = sorted(set(range(self._jobs)) - set(self.workers))
        if not free:
            outcome = _outcome(folder, self._started)
        else:
            with file_lock(folder / LOCK_NAME, wait=False) as lock:
                # while the lock is held: another process may just have finished it
                outcome = _outcome(folder, self._started)
                if lock and not outcome:
                    self.workers[free[0]] = _Worker(folder, free[0], self._jobs, self._interval, lock)
        if outcome:
            self._record(outcome)

    def _record(self, outcome: Outcome) -> None:
        self.outcomes[outcome.folder] = outcome
        tqdm.write(format_outcome(outcome))
        self._bar.update()


class _Worker:
    """A process that works on one run, and keeps its lock as long as it lives."""

    def __init__(self, folder: Path, slot: int, jobs: int, interval: float, lock: TextIO) -> None:
        self.folder = folder
        description = read_record(folder / "experiment.json")
        self._log = folder / description["log"]
        with (folder / "train.log").open("a") as log:
            self._process = subprocess.Popen(
                [*WORKER, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(slot, jobs),
                pass_fds=[lock.fileno()],
            )
        self._bar = tqdm(
            total=description["steps"],
            desc=folder.name,
            unit="step",
            position=slot + 1,
            leave=False,
            mininterval=interval,
        )

    def ended(self) -> bool:
        """Brings the bar up to date and tells whether the process has ended."""
        self._bar.update(last_logged_step(self._log) - self._bar.n)
        if self._process.poll() is None:
            return False
        self._bar.close()
        return True

    @property
    def death(self) -> Outcome:
        """The outcome of an ended process that left no result."""
        status = self._process.returncode
        if status == os.EX_IOERR:
            what = "error: its result could not be written, or its description not read; is the disk full?"
            return Outcome(self.folder, "failed", f"{what} See {self.folder / 'train.log'}")
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return Outcome(self.folder, "killed", f"its process ended with {how}, see {self.folder / 'train.log'}")

    def terminate(self) -> None:
        self._bar.close()
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        """At most so long."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(seconds, 0))

    def kill(self) -> None:
        """What has its final name is complete at any moment."""
        self._process.kill()
        self._process.wait()


def _outcome(folder: Path, since: float) -> Outcome | None:
    """The outcome in ``result.json``; that of an earlier failure does not count."""
    path = folder / "result.json"
    result = read_record(path)
    if result is None or (not is_done(result) and path.stat().st_mtime < since):
        return None
    return Outcome(folder, result["status"], result["message"])


def _environment(slot: int, jobs: int) -> dict[str, str]:
    """Each of several jobs on its share of the cores and on one GPU."""
    environment = {
        "OMP_NUM_THREADS": str(max(1, _cores() // jobs)),
        # a line of train.log every so often, not ten a second
        "TQDM_MININTERVAL": "10",
        **os.environ,
    }
    gpus = _gpus()
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[slot % gpus]
    return environment


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def format_outcome(outcome: Outcome) -> str:
    """One line for the terminal."""
    result = read_record(outcome.folder / "result.json")
    if outcome.status != "finished":
        return f"{outcome.folder.name}: {outcome.status}: {outcome.message}"
    quantities = (
        f"{name} {format_number(quantity['value'])} {quantity['unit']}".rstrip()
        for name, quantity in result["quantities"].items()
    )
    return f"{outcome.folder.name}: {', '.join(quantities)}"
