#!/usr/bin/env python
"""Works through large amounts, and looks at memory and open files while they last.

    python scripts/load_test.py OUT                                     # all; 20 minutes of CPU, 3 GB of disk
    python scripts/load_test.py OUT --jobs train simulate --share 0.01  # two of them, with a hundredth of the amounts

A line for each command: seconds, CPU seconds, and the most memory of all its processes, without that of files (told
beside it), which goes when others need the room. Then the memory of the command's own process when a tenth of the work
was done, two tenths and so on, and the files it had open. Where these grow with the work, or processes are left, the
status is 1. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import lying_files
import numpy as np
import torch
from ase import Atoms, io
from fairchem.core.datasets import LmdbDataset
from numpy.lib import format as npy

from ocp_dc.calculator import load
from ocp_dc.datasets.packed import PackedDataset
from ocp_dc.datasets.samples import oxide_sample_path, sample_path
from ocp_dc.datasets.source_checks import check_source
from ocp_dc.datasets.structure_files import read_structures
from ocp_dc.datasets.watched_lmdb import watch
from ocp_dc.evaluation import evaluate
from ocp_dc.experiments.scales import WIDTHS
from ocp_dc.runs.records import last_logged_step
from ocp_dc.runs.running import Outcome, format_outcome
from ocp_dc.trainers.metrics_log import read_metrics

MEGABYTE = 2**20
# between samples; of what has passed, where that is more, since looking takes time too
SECONDS, SHARE_OF_SECONDS = 0.2, 0.002
BLOCK = 10_000
# of the memory at two tenths of the work, what it may be more in the end
MOST_GROWTH = 0.03
LEAST_GROWTH = 8 * MEGABYTE
# of each conformation, its place in the source, in what is drawn and in what is written
BYTES_OF_A_NUMBER = 40
# of a file that lies
MOST_SECONDS, MOST_MEMORY = 3, 128 * MEGABYTE
NARROW = [f"--model.{name}={value}" for name, value in WIDTHS["narrow"]["schnet"].items()]
KEY_MAPPING = {"y": "energy", "force": "forces"}

Work = list[str] | Callable[[], object]


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Of a process and its children.

    Attributes:
        done: of the work: a number that becomes larger.
        own: bytes of the process that are its alone, not of a file.
        total, mapped: of all of them, the same and those of files; what they share counts once.
        files: that the process itself has open.
        processes: how many they are.
    """

    done: float
    own: int
    total: int
    mapped: int
    files: int
    processes: int


@dataclass
class Measured:
    """What a piece of work took.

    Attributes:
        failed: how it ended, if not well.
        left: processes that are still there.
    """

    name: str
    seconds: float = 0.0
    cpu: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    failed: str = ""
    left: int = 0

    @property
    def peak(self) -> int:
        return max(sample.total for sample in self.samples)

    def tenths(self) -> list[Sample]:
        """When a tenth was done, two tenths, and so on; at last, before it ended."""
        last = self.samples[-1]
        ends = [last.done * tenth / 10 for tenth in range(1, 10)]
        return [next(sample for sample in self.samples if sample.done >= end) for end in ends] + [last]

    def grew(self) -> str:
        """In words, what it is that became more from the second tenth on."""
        _, second, *_, before_last, last = self.tenths()
        # what is there for a moment does not count
        ends = (before_last, last)
        least = max(LEAST_GROWTH, MOST_GROWTH * second.own)
        memory = min(sample.own for sample in ends) > second.own + least
        files = min(sample.files for sample in ends) > second.files
        return " and ".join(["memory"] * memory + ["open files"] * files)


def measure(name: str, work: Work, folder: Path, done: Callable[[], float] | None = None) -> Measured:
    """Runs a command of `ocp-dc`, or a function, in a process of its own.

    Args:
        folder: for what it prints.
        done: of the work, a number that becomes larger; None for the seconds.
    """
    measured, started = Measured(name), time.monotonic()
    pid = _start(work, folder)
    ended = 0
    while not ended:
        if sample := _sample(pid, done() if done else time.monotonic() - started):
            measured.samples.append(sample)
        time.sleep(max(SECONDS, SHARE_OF_SECONDS * (time.monotonic() - started)))
        ended, status, usage = os.wait4(pid, os.WNOHANG)
    measured.seconds, measured.cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    if status:
        measured.failed = f"status {os.waitstatus_to_exitcode(status)}, see {folder / 'output.txt'}"
    measured.left = len(list(_of_session(pid)))
    return measured


def _start(work: Work, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("ab") as output:
        if isinstance(work, list):
            command = [sys.executable, "-m", "ocp_dc.cli", *work]
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True).pid
        if pid := os.fork():
            return pid
        os.setsid()
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            sys.__stderr__.flush()
            os._exit(status)


def _sample(pid: int, done: float) -> Sample | None:
    """None where it has ended."""
    try:
        files, own = len(os.listdir(f"/proc/{pid}/fd")), _memory(pid)["Anonymous"]
    except OSError:
        return None
    total = mapped = processes = 0
    for process in (pid, *_children(pid)):
        with suppress(OSError):
            memory = _memory(process)
            total += memory["Pss_Anon"] + memory["Pss_Shmem"]
            mapped += memory["Pss_File"]
            processes += 1
    return Sample(done, own, total, mapped, files, processes) if total else None


def _memory(pid: int) -> dict[str, int]:
    """Bytes, as Linux names them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size) * 1024 for name, size, *_ in (line.replace(":", "").split() for line in lines)}


def _children(pid: int) -> Iterator[int]:
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in file.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from _children(child)


def _of_session(session: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[3]) == session and after_name[0] != "Z":
            yield int(stat.parent.name)


def told(measured: Measured, flat: bool = True) -> int:
    """Prints it; 1 where something is wrong.

    Args:
        flat: whether memory must not grow.
    """
    if not measured.samples:
        return wrong(f"{measured.name}: {measured.failed or 'it ended at once'}")
    tenths = measured.tenths()
    megabytes = " ".join(f"{sample.own / MEGABYTE:.0f}" for sample in tenths)
    mapped = max(sample.mapped for sample in measured.samples) / MEGABYTE
    processes = max(sample.processes for sample in measured.samples)
    print(
        f"{measured.name}: {measured.seconds:.0f} s, CPU {measured.cpu:.0f} s; memory at most "
        f"{measured.peak / MEGABYTE:.0f} MB and {mapped:.0f} MB of files; by tenths {megabytes}; open files "
        f"{tenths[0].files} -> {tenths[-1].files}; processes {processes}",
        flush=True,
    )
    faults = [measured.failed, f"{measured.left} processes left" * bool(measured.left)]
    faults += [f"{measured.grew()} grew"] * (flat and bool(measured.grew()))
    return wrong(*faults)


def wrong(*faults: str) -> int:
    """Prints what is wrong, if anything; 1 then."""
    found = [fault for fault in faults if fault]
    for fault in found:
        print(f"  WRONG: {fault}", flush=True)
    return bool(found)


# --- data -------------------------------------------------------------------------------------------------------------


def first_conformation() -> Atoms:
    return read_structures(sample_path())[0]


def write_harmonic(path: Path, count: int) -> None:
    """MD17's arrays of ``count`` conformations of ethanol, atoms displaced at random and drawn back by springs."""
    atoms = first_conformation()
    shape = (len(atoms), 3)
    stiffness, width, lowest = 600.0, 0.03, -97_000.0

    def displaced() -> Iterator[np.ndarray]:
        for start in range(0, count, BLOCK):
            random = np.random.default_rng([0, start])
            yield width * random.standard_normal((min(BLOCK, count - start), *shape))

    arrays = {
        "E": ((count, 1), lambda d: lowest + 0.5 * stiffness * (d**2).sum(axis=(1, 2))[:, None]),
        "F": ((count, *shape), lambda d: -stiffness * d),
        "R": ((count, *shape), lambda d: atoms.positions + d),
    }
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, (shape_of_all, values) in arrays.items():
            header = {"descr": "<f8", "fortran_order": False, "shape": shape_of_all}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy.write_array_header_1_0(stream, header)
                for displacement in displaced():
                    stream.write(values(displacement).tobytes())
        with archive.open("z.npy", "w") as stream:
            npy.write_array(stream, atoms.numbers.astype(np.uint8))


def write_slabs(path: Path, count: int) -> None:
    """Extended XYZ of periodic slabs, of the embedded sample's first, with other noise and labels each time."""
    slab = read_structures(oxide_sample_path())[0]
    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            frame = slab.copy()
            frame.positions += 0.02 * random.standard_normal(frame.positions.shape)
            frame.calc = slab.calc
            slab.calc.atoms = frame
            io.write(file, frame, format="extxyz")


# --- jobs -------------------------------------------------------------------------------------------------------------


def convert(out: Path, share: float) -> int:
    """10⁶ conformations, and a tenth of them; they are read, in their order and at random."""
    faults, peaks = 0, []
    converted = out / "converted"
    converted.mkdir()
    for count in (math.ceil(10**5 * share), math.ceil(10**6 * share)):
        source, train, others = out / f"{count}.npz", count * 9 // 10, count // 20
        write_harmonic(source, count)
        command = ["md17", "convert", str(source), str(converted / str(count)), "--train", str(train)]
        command += ["--val", str(others), "--test", str(others), "--seed", "0"]
        measured = measure(f"md17 convert, {count:,} conformations", command, out, partial(written, converted))
        faults += told(measured)
        peaks.append(measured.peak)
        source.unlink()
    if peaks[1] > peaks[0] + LEAST_GROWTH + BYTES_OF_A_NUMBER * count:
        faults += wrong("ten times as many took more memory")

    folder = converted / str(count) / "train"
    rows = np.random.default_rng(0).integers(train, size=count // 10).tolist()
    checked = partial(check_source, "train", folder, every_record=True)
    faults += told(measure(f"every record of {train:,} checked", checked, out))
    faults += told(measure(f"{len(rows):,} records, read at random", partial(read, folder, rows), out))
    held = measure(f"{len(rows):,} records, of {train:,} held in memory", partial(read, folder, rows, True), out)
    faults += told(held, flat=False)
    return faults


def convert_slabs(out: Path, share: float) -> int:
    """5,000 slabs, with their edges."""
    count = math.ceil(5000 * share)
    write_slabs(out / "slabs.extxyz", count)
    command = ["oc22", "convert", str(out / "slabs.extxyz"), str(out / "converted" / "slabs"), "--train", str(count)]
    command += ["--cutoff", "6", "--shard-size", "1000"]
    return told(measure(f"oc22 convert, {count:,} slabs", command, out, partial(written, out / "converted")))


def written(folder: Path) -> int:
    """Bytes of all files in it."""
    sizes = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            sizes += file.stat().st_size
    return sizes


def read(folder: Path, rows: Sequence[int], packed: bool = False) -> None:
    config = {"src": str(folder), "key_mapping": KEY_MAPPING}
    dataset = PackedDataset(config) if packed else watch(LmdbDataset(config))
    for row in rows:
        assert dataset[row].pos.isfinite().all()


def training(data: Path, out: Path, epochs: int, *settings: str) -> list[str]:
    """On 200 conformations in batches of 2: 100 steps an epoch."""
    sources = [f"--dataset.train.src={data / 'train'}", f"--dataset.val.src={data / 'val'}"]
    run = ["--run-dir", str(out), "--timestamp-id", "run", "--cpu", "--hide_eval_progressbar=True"]
    optim = [f"--optim.max_epochs={epochs}", "--optim.batch_size=2"]
    return ["train", "--config-yml", "md17/schnet_irelu_recommended", *sources, *run, *optim, *NARROW, *settings]


def prepare(out: Path) -> tuple[Path, Path]:
    """The sample converted, and a checkpoint of a model of it."""
    data, run = out.parent / "inputs" / "data", out.parent / "inputs" / "model"
    checkpoint = run / "checkpoints" / "run" / "checkpoint.pt"
    if not checkpoint.exists():
        sizes = ["--train", "200", "--val", "20", "--test", "100"]
        faults = told(measure("sample converted", ["md17", "convert", "sample", str(data), *sizes], out), flat=False)
        every = ("--optim.eval_every=500", "--print-every", "100")
        faults += told(measure("a model of it trained", training(data, run, 20, *every), out), flat=False)
        if faults:
            sys.exit(1)
    return data, checkpoint


@dataclass(frozen=True)
class Training:
    """How a model is trained, for how many epochs of 100 steps."""

    epochs: int
    eval_every: int
    checkpoint_every: int
    settings: tuple[str, ...] = ()


TRAININGS = {
    "train": Training(1000, 1000, 2500),
    "train-eager": Training(100, 500, 500, ("--optim.step=eager",)),
    "train-workers": Training(100, 50, 50, ("--dataset.train.format=lmdb", "--optim.num_workers=2")),
}


def train(name: str, out: Path, share: float) -> int:
    """10⁵ steps, traced, of data in memory; 10⁴ eager ones, and 10⁴ of records that two workers read."""
    data, _ = prepare(out)
    kind = TRAININGS[name]
    epochs = math.ceil(kind.epochs * share)
    steps, log = 100 * epochs, out / "logs" / "tensorboard" / "run" / "metrics.jsonl"
    every = (f"--optim.eval_every={kind.eval_every}", f"--optim.checkpoint_every={kind.checkpoint_every}")
    command = training(data, out, epochs, *every, "--print-every", "10", *kind.settings)
    faults = told(measure(f"{name}, {steps:,} steps", command, out, lambda: last_logged_step(log)))
    lines, expected = len(read_metrics(log)), steps // 10 + steps // kind.eval_every
    print(f"  metrics.jsonl: {lines:,} lines, {log.stat().st_size:,} bytes", flush=True)
    return faults + wrong(f"{expected:,} lines were expected" * (lines != expected))


def repeat(work: Callable[[int], object], count: int, progress: Path) -> None:
    """Notes how far it is, for :func:`fraction`."""
    every = max(1, count // 100)
    for number in range(count):
        work(number)
        if number % every == 0:
            progress.write_text(f"{(number + 1) / count}")


def fraction(progress: Path) -> float:
    """0 before :func:`repeat` has begun."""
    try:
        return float(progress.read_text() or 0)
    except FileNotFoundError:
        return 0.0


def repeated(name: str, work: Callable[[int], object], count: int, out: Path) -> int:
    progress = out / f"{name}.progress"
    progress.unlink(missing_ok=True)
    running = partial(repeat, work, count, progress)
    return told(measure(f"{name}, {count:,} times", running, out, partial(fraction, progress)))


def evaluated(out: Path, share: float) -> int:
    """``evaluate`` again and again in one process."""
    data, checkpoint = prepare(out)
    return repeated("evaluate", lambda _: evaluate(checkpoint, data / "test", cpu=True), math.ceil(200 * share), out)


def calculator(out: Path, share: float) -> int:
    """10⁵ forces of one molecule, and of ever other ones, 25 times each: they are traced at the twentieth."""
    _, checkpoint = prepare(out)
    atoms = first_conformation()
    random = np.random.default_rng(0)

    def of_one() -> Callable[[int], object]:
        atoms.calc = load(checkpoint, "cpu")

        def call(_: int) -> None:
            atoms.positions += 1e-4 * random.standard_normal(atoms.positions.shape)
            atoms.get_forces()

        return call

    def of_others() -> Callable[[int], object]:
        model = load(checkpoint, "cpu", any_element=True)

        def call(number: int) -> None:
            # as many hydrogens as there are bits, in ever other places
            kind = number // 25
            numbers = np.array([6 + 2 * (kind >> bit & 1) for bit in range(9)] + [1] * (kind % 7))
            positions = 2.0 * np.stack(np.unravel_index(np.arange(len(numbers)), (3, 3, 3)), axis=1)
            other = Atoms(numbers, positions + 0.1 * random.standard_normal(positions.shape))
            model.evaluate([other])

        return call

    faults = repeated("calculator", lazily(of_one), math.ceil(10**5 * share), out)
    return faults + repeated("calculator, other molecules", lazily(of_others), math.ceil(10**4 * share), out)


def lazily(make: Callable[[], Callable[[int], object]]) -> Callable[[int], object]:
    """What ``make`` gives, made when it is first called: in the process that is looked at."""
    made = []

    def call(number: int) -> object:
        if not made:
            made.append(make())
        return made[0](number)

    return call


def simulate(out: Path, share: float) -> int:
    """10⁵ steps of a molecule."""
    data, checkpoint = prepare(out)
    command = ["simulate", str(checkpoint), "--start", str(data / "test"), "--out", str(out / "md"), "--cpu"]
    command += ["--temperature", "50", "--timestep", "0.5", "--length", str(50 * share), "--replicas", "1"]
    name = f"simulate, {100_000 * share:,.0f} steps"
    faults = told(measure(name, [*command, "--thermostat", "langevin"], out, partial(written, out / "md")))
    ended = "1 of 1 replicas" not in (out / "output.txt").read_text("utf-8")
    return faults + wrong(f"it ended early, see {out / 'output.txt'}" * ended)


def reproduce(out: Path, _: float) -> int:
    """Ten runs at once, of all models."""
    runs = out / "runs"
    command = ["reproduce", "table1", "--scale", "smoke", "--data", "sample", "--out", str(runs)]
    faults = told(measure("reproduce, 10 runs at once", [*command, "--jobs", "10"], out), flat=False)
    folders = sorted(file.parent for file in runs.rglob("experiment.json"))
    printed = (out / "output.txt").read_text("utf-8")
    expected = ["10/10", "10 finished", *(format_outcome(Outcome(folder, "finished")) for folder in folders)]
    absent = [text for text in expected if text not in printed]
    return faults + wrong(f"{len(folders)} runs" * (len(folders) != 10), *(f"not printed: {text}" for text in absent))


def lies(out: Path, _: float) -> int:
    """Every small file that announces much is refused, soon, and in little memory."""
    faults = 0
    for lie in lying_files.LIES:
        with TemporaryDirectory(dir=out) as folder:
            lie.make(Path(folder))
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            seconds, memory, said = refusal(lie, Path(folder))
        print(f"{lie.name}: {size:,} bytes, {seconds:.2f} s, {memory / MEGABYTE:.0f} MB: {said}", flush=True)
        faults += wrong(
            "too long" * (seconds > MOST_SECONDS),
            "too much memory" * (memory > MOST_MEMORY),
            "not refused in words" * (not said.startswith("InputError")),
        )
    return faults


def refusal(lie: lying_files.Lie, folder: Path) -> tuple[float, int, str]:
    """CPU seconds, the most memory and what is said, in a process of its own: it may have to be killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        os.write(writing, json.dumps(_refused(lie, folder)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(told) if told else (math.inf, 0, "it had to be killed")


def _refused(lie: lying_files.Lie, folder: Path) -> tuple[float, int, str]:
    # the peak begins anew
    Path("/proc/self/clear_refs").write_text("5")
    before, started = _peak(), time.process_time()
    try:
        lie.read(folder)
        said = "accepted"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:200].replace(f"{folder}/", "")
    return time.process_time() - started, _peak() - before, said


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


JOBS = {
    "lies": lies,
    "convert": convert,
    "convert-slabs": convert_slabs,
    **{name: partial(train, name) for name in TRAININGS},
    "evaluate": evaluated,
    "calculator": calculator,
    "simulate": simulate,
    "reproduce": reproduce,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for all files")
    parser.add_argument(
        "--jobs", nargs="+", metavar="JOB", choices=JOBS, default=list(JOBS), help=f"of {', '.join(JOBS)}"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the amounts (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for name in options.jobs:
        folder = options.out.resolve() / name
        if folder.exists():
            parser.error(f"{folder} exists; remove it, or name another folder")
        folder.mkdir(parents=True)
        faults = JOBS[name](folder, options.share)
        if not faults:
            shutil.rmtree(folder)
        failed += bool(faults)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
