#!/usr/bin/env python
"""Kills ocp-dc at random moments, starts the same command again, and compares with what was never killed.

    python scripts/fault_test.py OUT                       # 30 kills of each job; an hour
    python scripts/fault_test.py OUT --kills 3 --jobs train-traced convert
    python scripts/fault_test.py OUT --signal TERM         # that end a command in order
    python scripts/fault_test.py OUT --kills 0 --fills 5   # full disks instead, as root

Every job is done once without a fault. Then it is begun, killed (SIGKILL), and begun again by the same command, until
that ends by itself. What it leaves must be what the undisturbed one left: weights, optimizer and logs bit for bit,
files byte for byte; nothing partial; no process. At the kill, what has its final name must be readable.

A command takes seconds to import what it needs, and writes nothing then. One kill in ten is of a command that is still
importing. The others are of one that is forked from this process, which has imported everything, at a moment drawn
uniformly from the CPU time that the undisturbed one took; half of them wait then until an incomplete file is there.
One kill in two, at random, is of the command's process alone, as the system does when memory is short, the others of
all that it has started. A command that ends before its kill is begun again, and not counted. Of other signals, a
command must say in a line that it was ended, and leave nothing partial then already.

With ``--fills`` a job writes to a file system of a size drawn uniformly up to what the undisturbed one needed. It must
end with status 1 or 2 and a line of error, or fit; the same command must then, with space, leave what is expected.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import ocp_dc.evaluation  # with it comes what most commands import
import ocp_dc.simulate.running
from ocp_dc import cli
from ocp_dc.datasets.lmdb import RecordFile
from ocp_dc.datasets.samples import sample_path
from ocp_dc.trainers.checkpoints import read_checkpoint

SMALL = (
    "--model.hidden_channels=32",
    "--model.num_filters=16",
    "--model.num_interactions=2",
    "--model.num_gaussians=10",
)
# parts of the names of files that are not complete
PARTIAL = ("partial", ".tmp", "previous_data", ".replaced")
STATE = ("state_dict", "optimizer", "scheduler", "ema", "step", "best_val_metric")
LONGEST = 1800
OVER = "over before"
# in which PyTorch's loaders notice that they have lost their parent
GRACE = 30
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Job:
    """A command that can be disturbed.

    Attributes:
        command: gives its arguments, for a folder to write to.
        outcome: what it leaves there, to be compared.
    """

    command: Callable[[Path], list[str]]
    outcome: Callable[[Path], Mapping[str, object]]


@dataclass(frozen=True)
class Moment:
    """When a command is killed, and how.

    Attributes:
        importing: while it imports.
        seconds: of CPU time that it has had.
        writing: then, as soon as an incomplete file is there.
        alone: its own process, not all that it has started.
    """

    importing: bool
    seconds: float
    writing: bool
    alone: bool


def jobs(inputs: Path) -> dict[str, Job]:
    """By name; ``inputs`` holds data and a trained model, see :func:`prepare`."""
    data, checkpoint = inputs / "data", inputs / "model" / "checkpoints" / "run" / "checkpoint.pt"

    def train(*settings: str) -> Job:
        return Job(lambda folder: training(data, folder, *settings), trained)

    return {
        "train-eager": train("--optim.step=eager"),
        "train-traced": train("--optim.step=traced"),
        "train-2-workers": train("--dataset.train.format=lmdb", "--optim.num_workers=2", "--optim.max_epochs=12"),
        "train-averaged": train("--optim.ema_decay=0.9", "--optim.scheduler=CosineAnnealingLR"),
        "evaluate": Job(
            lambda folder: (
                words("evaluate", "--checkpoint", checkpoint, "--data", data / "test", "--overwrite")
                + words("--out", folder / "result.json", "--details", "--plot", "--batch-size", 2)
            ),
            files,
        ),
        "predict": Job(
            lambda folder: words(
                "predict", checkpoint, data / "test", "--to", folder / "p.npz", "--overwrite", "--batch-size", 1
            ),
            files,
        ),
        "convert": Job(
            lambda folder: (
                words("md17", "convert", inputs / "ethanol.npz", folder / "data", "--train", 19_000, "--val", 500)
                + words("--test", 500, "--seed", 0, "--overwrite")
            ),
            files,
        ),
        "simulate": Job(
            lambda folder: (
                words("simulate", checkpoint, "--start", data / "test", "--out", folder / "md")
                + words("--ensemble", "nvt", "--temperature", 300, "--timestep", 0.5, "--length", 0.6, "--replicas", 2)
                + words("--every", 5, "--cpu")
            ),
            lambda folder: {name: value for name, value in files(folder).items() if name.endswith(".extxyz")},
        ),
        "reproduce": Job(
            lambda folder: (
                words("reproduce", "table1", "--scale", "smoke", "--data", "sample", "--model", "schnet")
                + words("--variant", "original", "--out", folder / "runs", "--jobs", 1)
            ),
            reproduced,
        ),
    }


def words(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


def training(data: Path, folder: Path, *settings: str, config: str = "md17/schnet_dc") -> list[str]:
    sources = (f"--dataset.train.src={data / 'train'}", f"--dataset.val.src={data / 'val'}")
    run = ("--run-dir", str(folder), "--timestamp-id", "run", "--cpu", "--print-every", "5")
    every = ("--optim.checkpoint_every=15", "--optim.eval_every=50", "--optim.batch_size=20", "--optim.max_epochs=60")
    return ["train", "--config-yml", config, *sources, *run, *every, *SMALL, *settings]


def trained(folder: Path) -> dict[str, object]:
    """Weights, optimizer, averages and scheduler, and what was logged."""
    found = {}
    for path in sorted(folder.rglob("checkpoint.pt")):
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        found |= flat({name: checkpoint[name] for name in STATE}, str(path.relative_to(folder)))
    for path in sorted(folder.rglob("metrics.jsonl")):
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def flat(value: object, name: str) -> dict[str, object]:
    """The leaves of nested mappings and lists, tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return {name: value.detach().contiguous().numpy().tobytes()}
    if isinstance(value, Mapping):
        return {key: leaf for inner in value for key, leaf in flat(value[inner], f"{name}.{inner}").items()}
    if isinstance(value, list | tuple):
        return {key: leaf for index, item in enumerate(value) for key, leaf in flat(item, f"{name}.{index}").items()}
    return {name: value}


def files(folder: Path) -> dict[str, object]:
    """Every file's bytes, but for what names the folder."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != "lock":
            found[str(file.relative_to(folder))] = file.read_bytes().replace(str(folder).encode(), b"FOLDER")
    return found


def reproduced(folder: Path) -> dict[str, object]:
    """What was trained, and the quantities of every ``result.json``."""
    found = trained(folder)
    for file in sorted(folder.rglob("result.json")):
        values = json.loads(file.read_text("utf-8"))
        found[str(file.relative_to(folder))] = {key: values[key] for key in values if key in ("quantities", "status")}
    return found


# --- processes --------------------------------------------------------------------------------------------------------


class Running:
    """A command that runs, in a process group of its own; its output goes to a file beside ``folder``.

    Args:
        arguments: words after ``ocp-dc``.
        folder: that it writes to.
        imported: whether all imports have been done for it.
    """

    def __init__(self, arguments: list[str], folder: Path, imported: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder.with_suffix(".txt")
        self._arguments = arguments
        self._started = time.monotonic()
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(imported,))
        self._process.start()

    def _run(self, imported: bool) -> None:
        os.setpgrp()
        os.environ["OMP_NUM_THREADS"] = "1"
        output = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if not imported:
            os.execv(sys.executable, [sys.executable, "-m", "ocp_dc.cli", *self._arguments])
        sys.exit(cli.main(self._arguments))

    def wait(self) -> int:
        """Its exit status."""
        self._process.join(LONGEST)
        if self._process.exitcode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            sys.exit(f"it hangs: {' '.join(self._arguments)}")
        return self._process.exitcode

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether that came to hold before it ended."""
        while not condition():
            if self._process.exitcode is not None:
                return False
            if time.monotonic() - self._started > LONGEST:
                self.wait()
            time.sleep(0.001)
        return True

    def end(self, number: signal.Signals, alone: bool) -> int:
        """Its exit status, after a signal to its process alone, or to all that it has started."""
        (os.kill if alone else os.killpg)(self._process.pid, number)
        return self.wait()

    def cpu_seconds(self) -> float:
        """Of its process and of all that it has started."""
        total, left = 0, [self._process.pid]
        for number in left:
            with suppress(OSError):
                total += sum(map(int, _status(number)[11:15]))
                left += map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())
        return total / TICKS

    def survivors(self) -> list[int]:
        """Processes that it has started and that have not ended."""
        alive = []
        for number in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
            with suppress(OSError):
                state, _, group = _status(number)[:3]
                if int(group) == self._process.pid and state != "Z":
                    alive.append(number)
        return alive

    def end_survivors(self) -> list[int]:
        """Those that do not end by themselves in good time; they are killed."""
        end = time.monotonic() + GRACE
        while self.survivors() and time.monotonic() < end:
            time.sleep(0.1)
        left = self.survivors()
        for number in left:
            os.kill(number, signal.SIGKILL)
        return left


def _status(number: int) -> list[str]:
    """Of a process: what the system tells after its name."""
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()


def finish(arguments: list[str], folder: Path, imported: bool = True) -> float:
    """CPU seconds; ends the program where the command fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = Running(arguments, folder, imported)
    if status := running.wait():
        sys.exit(f"{' '.join(arguments)} ended with {status}:\n{running.output.read_text()[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- what is wrong ----------------------------------------------------------------------------------------------------


def incomplete(folder: Path) -> list[str]:
    """Files under names that are not final."""
    names = (os.path.join(parent, name) for parent, _, found in os.walk(folder) for name in found)
    return [name for name in names if any(part in name[len(str(folder)) :] for part in PARTIAL)]


def unreadable(folder: Path) -> Iterator[str]:
    """Files under their final names that cannot be read."""
    readers = {
        ".json": lambda path: json.loads(path.read_text("utf-8")),
        ".lmdb": lambda path: RecordFile(path).__exit__(),
        ".npz": lambda path: dict(np.load(path)),
        ".pt": lambda path: read_checkpoint(path, torch.device("cpu")),
    }
    partial = set(incomplete(folder))
    for path in sorted(folder.rglob("*")):
        if path.is_file() and str(path) not in partial and path.suffix in readers:
            try:
                readers[path.suffix](path)
            except Exception as error:  # whatever a damaged file makes a reader raise
                yield f"{path} cannot be read: {error}"


def compare(job: Job, expected: Mapping[str, object], folder: Path) -> Iterator[str]:
    found = job.outcome(folder)
    if different := sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name)):
        yield f"{len(different)} differ: {', '.join(different[:5])}"
    if left := incomplete(folder):
        yield f"is left: {', '.join(left[:5])}"


# --- faults -----------------------------------------------------------------------------------------------------------


def draw_moment(number: int, imports: float, work: float, draw: random.Random) -> Moment:
    importing = number % 10 == 9
    return Moment(importing, draw.uniform(0, imports if importing else work), number % 2 == 1, draw.random() < 0.5)


def is_reached(moment: Moment, running: Running, folder: Path) -> bool:
    """Waits for it; False where the command ends before."""
    return running.wait_until(lambda: running.cpu_seconds() >= moment.seconds) and (
        moment.importing or not moment.writing or running.wait_until(lambda: bool(incomplete(folder)))
    )


def kill_and_repeat(
    job: Job, expected: Mapping[str, object], folder: Path, moment: Moment, by: signal.Signals
) -> tuple[str, list[str]]:
    """What a command was at when it was killed; what was wrong then, and when it had been begun again and ended."""
    shutil.rmtree(folder, ignore_errors=True)
    running = Running(job.command(folder), folder, imported=not moment.importing)
    if not is_reached(moment, running, folder):
        return OVER, []
    phase = "importing" if moment.importing else "writing" if incomplete(folder) else "at work"
    status = running.end(by, moment.alone)
    wrong = [*unreadable(folder)]
    if by != signal.SIGKILL:
        wrong += disorder(status, by, running.output.read_text(), folder)
    finish(job.command(folder), folder)
    if left := running.end_survivors():
        wrong.append(f"processes are left: {left}")
    return phase, [*wrong, *compare(job, expected, folder)]


def disorder(status: int, by: signal.Signals, said: str, folder: Path) -> Iterator[str]:
    """What is wrong with how a command has ended by a signal that it takes heed of."""
    # before it takes heed, and after its work
    if status not in (128 + by, -by, 0) or "Traceback" in said:
        yield f"ended with {status}:\n{said[-3000:]}"
    if left := incomplete(folder):
        yield f"is left: {', '.join(left[:5])}"


def try_kills(job: Job, folder: Path, kills: int, draw: random.Random, by: signal.Signals) -> list[str]:
    """What went wrong, in words."""
    whole = folder / "whole"
    both = finish(job.command(whole), whole, imported=False)
    expected = job.outcome(whole)
    shutil.rmtree(whole)
    work = finish(job.command(whole), whole)
    faults, phases, number = [*compare(job, expected, whole)], Counter(), 0
    while number < kills and phases[OVER] < 2 * kills:
        moment = draw_moment(number, both - work, work, draw)
        phase, wrong = kill_and_repeat(job, expected, folder / "broken", moment, by)
        phases[phase] += 1
        number += phase != OVER
        faults += [f"kill {number} ({phase}, {moment}): {fault}" for fault in wrong]
    print(f"  imports {both - work:.1f} s, work {work:.1f} s; {number} kills: {dict(phases)}", flush=True)
    return faults


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes, at least a page."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def largest(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def try_fills(job: Job, folder: Path, fills: int, draw: random.Random) -> list[str]:
    """What went wrong, in words."""
    whole, broken = folder / "whole", folder / "full"
    finish(job.command(whole), whole)
    expected, needed = job.outcome(whole), largest(whole)
    faults, ends = [], Counter()
    for number in range(fills):
        size = draw.randrange(needed)
        with small_disk(broken, size):
            running = Running(job.command(broken), broken)
            status = running.wait()
            ends[status] += 1
            said = running.output.read_text()
            wrong = [*unreadable(broken)]
            if status not in (0, 1, 2) or "Traceback" in said or (status and "error: " not in said):
                wrong.append(f"ended with {status}:\n{said[-2000:]}")
            subprocess.run(["mount", "-o", "remount,size=1g", str(broken)], check=True)
            finish(job.command(broken), broken)
            wrong += compare(job, expected, broken)
        faults += [f"fill {number} ({size} bytes): {fault}" for fault in wrong]
    print(f"  {needed:,} bytes needed; {fills} full disks ended with status {dict(ends)}", flush=True)
    return faults


def prepare(inputs: Path) -> None:
    """Converts the sample, trains a model for the jobs that need one, and makes twenty samples of it to convert."""
    if (inputs / "ready").exists():
        return
    inputs.mkdir(parents=True, exist_ok=True)
    with np.load(sample_path()) as sample:
        arrays = {name: np.tile(sample[name], (20, 1, 1)[: sample[name].ndim]) for name in "ERF"}
        np.savez(inputs / "ethanol.npz", **{**sample, **arrays})
    finish(words("md17", "convert", "sample", inputs / "data", "--train", 100, "--val", 20, "--test", 800), inputs)
    finish(training(inputs / "data", inputs / "model", config="md17/schnet_recommended"), inputs)
    (inputs / "ready").touch()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for all files")
    parser.add_argument("--kills", type=int, default=30, help="of each job (default 30)")
    parser.add_argument("--signal", choices=("KILL", "TERM", "HUP", "INT"), default="KILL", help="default KILL")
    parser.add_argument("--fills", type=int, default=0, help="full disks for each job (default 0)")
    parser.add_argument("--jobs", nargs="+", metavar="JOB", help=f"of {', '.join(jobs(Path()))} (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and sizes (default 0)")
    options = parser.parse_args()
    out = options.out.resolve()
    # it is every ten seconds, and the simulation here takes a few
    ocp_dc.simulate.running.SECONDS_BETWEEN_STATES = 0.2
    prepare(out / "inputs")
    known = jobs(out / "inputs")
    failed = 0
    for name in options.jobs or known:
        print(name, flush=True)
        shutil.rmtree(out / name, ignore_errors=True)
        draw = random.Random(f"{options.seed} {name}")
        faults = []
        if options.kills:
            faults += try_kills(known[name], out / name, options.kills, draw, signal.Signals[f"SIG{options.signal}"])
        if options.fills:
            faults += try_fills(known[name], out / name, options.fills, draw)
        print("".join(f"  {fault}\n" for fault in faults) or "  as if nothing had happened", flush=True)
        failed += bool(faults)
    return failed


if __name__ == "__main__":
    sys.exit(main())
