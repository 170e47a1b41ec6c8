#!/usr/bin/env python
"""Kills ocp-dc at random moments, starts the same command again, and compares with what was never killed.

    python scripts/fault_test.py OUT                       # 30 kills of each job; hours
    python scripts/fault_test.py OUT --kills 3 --jobs train-traced convert

Every job is done once without a fault. Then it is begun, killed (SIGKILL, with all its processes) at a moment drawn
uniformly from the time that it took, and begun again by the same command, until that ends by itself. What it leaves
must be what the undisturbed one left: weights, optimizer and logs bit for bit, files byte for byte; nothing partial.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

SMALL = (
    "--model.hidden_channels=32",
    "--model.num_filters=16",
    "--model.num_interactions=2",
    "--model.num_gaussians=10",
)
# parts of the names of files that are not complete
PARTIAL = ("partial", ".tmp", "previous_data")
STATE = ("state_dict", "optimizer", "scheduler", "ema", "step", "best_val_metric")
LONGEST = 600


@dataclass(frozen=True)
class Job:
    """A command that can be killed.

    Attributes:
        command: gives its arguments, for a folder to write to.
        outcome: what it leaves there, to be compared.
    """

    command: Callable[[Path], list[str]]
    outcome: Callable[[Path], Mapping[str, object]]


def jobs(inputs: Path) -> dict[str, Job]:
    """By name; ``inputs`` holds data and a trained model, see :func:`prepare`."""
    data, checkpoint = inputs / "data", inputs / "model" / "checkpoints" / "run" / "checkpoint.pt"

    def train(*settings: str) -> Job:
        return Job(lambda folder: training(data, folder, "--optim.max_epochs=60", *settings), trained)

    return {
        "train-eager": train("--optim.step=eager"),
        "train-traced": train("--optim.step=traced"),
        "train-2-workers": train("--dataset.train.format=lmdb", "--optim.num_workers=2"),
        "train-averaged": train("--optim.ema_decay=0.9", "--optim.scheduler=CosineAnnealingLR"),
        "evaluate": Job(
            lambda folder: (
                words("evaluate", "--checkpoint", checkpoint, "--data", data / "test", "--overwrite")
                + words("--out", folder / "result.json", "--details")
            ),
            files,
        ),
        "predict": Job(
            lambda folder: words("predict", checkpoint, data / "test", "--to", folder / "p.extxyz", "--overwrite"),
            files,
        ),
        "convert": Job(
            lambda folder: (
                words("md17", "convert", "sample", folder / "data", "--train", 800, "--val", 100)
                + words("--test", 100, "--seed", 0, "--overwrite")
            ),
            files,
        ),
        "simulate": Job(
            lambda folder: (
                words("simulate", checkpoint, "--start", data / "test", "--out", folder / "md")
                + words("--ensemble", "nvt", "--temperature", 300, "--timestep", 0.5, "--length", 2, "--replicas", 2)
                + words("--every", 5, "--cpu")
            ),
            lambda folder: {name: value for name, value in files(folder).items() if name.endswith(".extxyz")},
        ),
        "reproduce": Job(
            lambda folder: (
                words("reproduce", "table1", "--scale", "smoke", "--data", "sample", "--model", "schnet")
                + words("--variant", "original", "--out", folder / "runs", "--jobs", 1)
            ),
            results,
        ),
    }


def words(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


def training(data: Path, folder: Path, *settings: str) -> list[str]:
    sources = (f"--dataset.train.src={data / 'train'}", f"--dataset.val.src={data / 'val'}")
    run = ("--run-dir", str(folder), "--timestamp-id", "run", "--cpu", "--print-every", "5")
    every = ("--optim.checkpoint_every=15", "--optim.eval_every=50", "--optim.batch_size=20")
    return ["train", "--config-yml", "md17/schnet_dc", *sources, *run, *every, *SMALL, *settings]


def trained(folder: Path) -> dict[str, object]:
    """Weights, optimizer, averages and scheduler, and what was logged."""
    checkpoint = torch.load(folder / "checkpoints" / "run" / "checkpoint.pt", map_location="cpu", weights_only=False)
    kept = {
        name: checkpoint[name] for name in ("state_dict", "optimizer", "scheduler", "ema", "step", "best_val_metric")
    }
    log = (folder / "logs" / "tensorboard" / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    # what came after the last checkpoint was logged twice, and is kept once
    return {**flat(kept), "log": log}


def flat(value: object, name: str = "") -> dict[str, object]:
    """The leaves of nested mappings and lists, tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return {name: value.contiguous().numpy().tobytes()}
    if isinstance(value, Mapping):
        return {key: leaf for inner in value for key, leaf in flat(value[inner], f"{name}.{inner}").items()}
    if isinstance(value, list | tuple):
        return {key: leaf for index, item in enumerate(value) for key, leaf in flat(item, f"{name}.{index}").items()}
    return {name: value}


def files(folder: Path) -> dict[str, object]:
    """Every file's bytes, but for what names the folder."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name not in ("lock", "output.txt"):
            found[str(file.relative_to(folder))] = file.read_bytes().replace(str(folder).encode(), b"FOLDER")
    return found


def results(folder: Path) -> dict[str, object]:
    """The quantities of every ``result.json``."""
    found = {}
    for file in sorted(folder.rglob("result.json")):
        values = json.loads(file.read_text("utf-8"))
        found[str(file.relative_to(folder))] = {key: values[key] for key in values if key in ("quantities", "status")}
    return found


def start(arguments: list[str], folder: Path) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ocp_dc.cli", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(arguments: list[str], folder: Path) -> float:
    """Seconds; ends the program where the command fails."""
    started = time.monotonic()
    status = start(arguments, folder).wait(LONGEST)
    if status:
        sys.exit(f"{' '.join(arguments)} ended with {status}:\n{(folder / 'output.txt').read_text()[-3000:]}")
    return time.monotonic() - started


def kill_once(arguments: list[str], folder: Path, seconds: float) -> bool:
    """Whether it was killed before it ended by itself."""
    process = start(arguments, folder)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def try_job(job: Job, folder: Path, kills: int, draw: random.Random) -> list[str]:
    """What went wrong, in words."""
    whole, broken = folder / "whole", folder / "broken"
    seconds = finish(job.command(whole), whole)
    expected = job.outcome(whole)
    faults, killed = [], 0
    for attempt in range(kills):
        shutil.rmtree(broken, ignore_errors=True)
        moment = draw.uniform(0, seconds)
        killed += kill_once(job.command(broken), broken, moment)
        finish(job.command(broken), broken)
        found = job.outcome(broken)
        different = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        left = [str(file) for file in broken.rglob("*") if any(part in file.name for part in PARTIAL)]
        for what, names in (("differs", different), ("is left", left)):
            if names:
                faults.append(f"kill {attempt} at {moment:.2f} s: {what}: {', '.join(names[:5])}")
    print(f"  {killed} of {kills} killed before they ended; {seconds:.1f} s undisturbed", flush=True)
    return faults


def prepare(inputs: Path) -> None:
    """Converts the sample, and trains a model for the jobs that need one."""
    if (inputs / "ready").exists():
        return
    finish(words("md17", "convert", "sample", inputs / "data", "--train", 100, "--val", 20, "--test", 50), inputs)
    finish(training(inputs / "data", inputs / "model", "--optim.max_epochs=40"), inputs)
    (inputs / "ready").touch()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for all files")
    parser.add_argument("--kills", type=int, default=30, help="of each job (default 30)")
    parser.add_argument("--jobs", nargs="+", metavar="JOB", help=f"of {', '.join(jobs(Path()))} (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    options = parser.parse_args()
    out = options.out.resolve()
    prepare(out / "inputs")
    known = jobs(out / "inputs")
    failed = 0
    for name in options.jobs or known:
        print(name, flush=True)
        faults = try_job(known[name], out / name, options.kills, random.Random(f"{options.seed} {name}"))
        print("".join(f"  {fault}\n" for fault in faults) or "  as if nothing had happened", flush=True)
        failed += bool(faults)
    return failed


if __name__ == "__main__":
    sys.exit(main())
