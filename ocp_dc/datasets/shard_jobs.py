"""Copying chosen records to new shards, in several processes, going on where an earlier try ended."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
import torch
from tqdm import tqdm

import ocp_dc
from ocp_dc.datasets.conversion_settings import EdgeSettings
from ocp_dc.datasets.lmdb import RecordFile
from ocp_dc.datasets.shard_tree import ShardFolder, structure_of
from ocp_dc.datasets.shard_writing import ShardContents, ShardWriter, shard_name, write_metadata
from ocp_dc.errors import InputError
from ocp_dc.files import replace_text
from ocp_dc.locks import file_lock

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class ShardJob:
    """A split to write.

    Attributes:
        source: where its records are.
        rows: their rows there, ascending.
        edges: to store; None for none.
        shard_size: records in a shard.
    """

    source: ShardFolder
    rows: np.ndarray
    edges: EdgeSettings | None
    shard_size: int

    def describe(self) -> dict:
        """What makes another job another one."""
        return {
            "source": str(self.source.path.resolve()),
            "source shards": self.source.digest,
            "records": len(self.rows),
            "chosen records": hashlib.sha256(self.rows.astype(np.int64).tobytes()).hexdigest(),
            "edges": self.edges and asdict(self.edges),
            "shard size": self.shard_size,
        }

    def shards(self, folder: Path, contents_folder: Path) -> list[_Shard]:
        folder.mkdir(parents=True, exist_ok=True)
        contents_folder.mkdir(parents=True, exist_ok=True)
        shards = []
        for index, start in enumerate(range(0, len(self.rows), self.shard_size)):
            file = folder / shard_name(index)
            contents_file = contents_folder / f"{file.name}.contents"
            rows = self.rows[start : start + self.shard_size]
            shards.append(_Shard(file, contents_file, self.source, rows, self.edges))
        return shards


@dataclass(frozen=True)
class _Shard:
    """A shard to write; ``contents_file`` is written when ``file``, the LMDB, is complete."""

    file: Path
    contents_file: Path
    source: ShardFolder
    rows: np.ndarray
    edges: EdgeSettings | None

    def is_complete(self) -> bool:
        return self.file.exists() and self.contents_file.exists()

    def contents(self) -> ShardContents:
        return ShardContents.from_dict(json.loads(self.contents_file.read_text("utf-8")))

    def write(self, after_each: Callable[[], None]) -> None:
        """Writes the shard; ``after_each`` record it calls that."""
        self.file.unlink(missing_ok=True)
        with ShardWriter(self.file, self.edges) as writer:
            for number, rows in self.source.locate(self.rows):
                with RecordFile(self.source.files[number]) as records:
                    for row in rows.tolist():
                        writer.add(structure_of(records.file, row, records[row]), number, row)
                        after_each()
        replace_text(self.contents_file, json.dumps(writer.contents.to_dict()))


@contextmanager
def resumable_shards(
    out: str | Path, jobs: Mapping[str, ShardJob], processes: int, show_progress: bool
) -> Iterator[tuple[Path, dict[str, list[ShardContents]]]]:
    """Writes shards and ``metadata.npz`` of each job to a folder beside ``out``, renamed to it when the block ends.

    Shards that an earlier try has finished are kept. An error leaves the finished ones for the next try.

    Args:
        out: the folder to make.
        jobs: by the name of the folder in it.
        processes: at most so many at a time.
        show_progress: show a progress bar.

    Yields:
        The folder, to add to, and what is in its shards.

    Raises:
        InputError: ``out`` exists or cannot be written, another process writes it, an earlier try was of another job,
            or a record cannot be used.
    """
    out = Path(out).resolve()
    working = out.with_name(f".{out.name}.partial")
    try:
        if os.path.lexists(out):
            raise InputError(f"{out} exists; choose another place, or remove it")
        with file_lock(working / "lock", wait=False) as lock:
            if lock is None:
                raise InputError(f"{out} is being written by another process; wait for it, or choose another place")
            shards = _prepare(working, jobs)
            _write_missing([shard for of_job in shards.values() for shard in of_job], processes, show_progress)
            contents = {name: [shard.contents() for shard in of_job] for name, of_job in shards.items()}
            for name in jobs:
                write_metadata(working / "out" / name, contents[name])
            yield working / "out", contents
            (working / "out").rename(out)
            shutil.rmtree(working)
    except (OSError, lmdb.Error) as error:
        raise InputError(
            f"{out} could not be written: {error}. Check the free space and the permissions; finished shards are in "
            f"{working}, and the same command goes on there"
        ) from error


def _prepare(working: Path, jobs: Mapping[str, ShardJob]) -> dict[str, list[_Shard]]:
    job = {"ocp_dc version": ocp_dc.__version__}
    job |= {f"{name}: {key}": value for name, of_split in jobs.items() for key, value in of_split.describe().items()}
    description = working / "job.json"
    if description.exists():
        _require_same(description, job)
    else:
        replace_text(description, json.dumps(job, indent=2))
    return {name: job.shards(working / "out" / name, working / "contents" / name) for name, job in jobs.items()}


def _require_same(description: Path, job: dict) -> None:
    try:
        earlier = json.loads(description.read_text("utf-8"))
    except ValueError:
        earlier = {}
    differing = sorted(key for key in earlier.keys() | job.keys() if earlier.get(key) != job.get(key))
    if differing:
        raise InputError(
            f"{description.parent} holds the unfinished work of another command (it differs in "
            f"{', '.join(differing)}); repeat that command to finish it, remove that folder to give it up, or choose "
            "another place"
        )


def _write_missing(shards: Sequence[_Shard], processes: int, show_progress: bool) -> None:
    missing = [shard for shard in shards if not shard.is_complete()]
    total = sum(len(shard.rows) for shard in shards)
    finished = total - sum(len(shard.rows) for shard in missing)
    with tqdm(total=total, initial=finished, unit="record", disable=not show_progress) as progress:
        if processes == 1:
            for shard in missing:
                shard.write(after_each=progress.update)
        elif missing:
            _write_in_processes(missing, min(processes, len(missing)), progress)


def _write_in_processes(shards: Sequence[_Shard], processes: int, progress: tqdm) -> None:
    # forked from a process that has imported everything and runs no threads, whose locks they would inherit
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "fairchem.core.common.utils"])
    written, stop = context.Value("q", 0), context.Event()
    initial = progress.n
    with ProcessPoolExecutor(processes, context, _start_worker, (written, stop)) as pool:
        try:
            running = {pool.submit(_write_in_worker, shard) for shard in shards}
            while running:
                done, running = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                progress.update(initial + written.value - progress.n)
        except BrokenProcessPool as error:
            raise InputError(
                "a process that wrote a shard was killed, perhaps for memory; try fewer --jobs. The same command goes "
                "on with the shards that are not finished"
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """The parent does not want the rest."""


_worker: dict[str, Callable[[], None]] = {}


def _start_worker(written: multiprocessing.Value, stop: multiprocessing.Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker["after_each"] = partial(_count, written, stop)


def _end_with_parent() -> None:
    # a worker that outlived a killed parent would go on writing beside the next try's
    multiprocessing.parent_process().join()
    os._exit(1)


def _count(written: multiprocessing.Value, stop: multiprocessing.Event) -> None:
    if stop.is_set():
        raise _StoppedError
    with written.get_lock():
        written.value += 1


def _write_in_worker(shard: _Shard) -> None:
    shard.write(_worker["after_each"])
