"""A disk that is full at some byte: told in a line, nothing half written, all as before, and the same command goes on.

The limit of a file's size stands for it, which LMDB's and PyTorch's own writing meet too. ``scripts/fault_test.py``
tries the same on file systems that are full.
"""

from __future__ import annotations

import gc
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults import size_limit

from ocp_dc import cli

pytestmark = [
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
]
# what differs from run to run, or is no result
OTHERS = ("lock", "state.json")


@dataclass(frozen=True)
class Writer:
    """A command that writes into the folder ``out`` of the folder that it is run in.

    Attributes:
        words: after ``ocp-dc``.
        before: of another command, that has written there before; None for nothing.
        goes_on: whether what it has written is kept when the disk is full, to go on from.
        at_most: bytes at which the disk is full; None for those of the largest file.
    """

    words: str
    before: str | None = None
    goes_on: bool = False
    at_most: int | None = None


EVALUATE = "evaluate --checkpoint checkpoint.pt --data data/test --out out/result.json --overwrite --details"
TRAIN = "train {settings} --timestamp-id run --optim.checkpoint_every=2 --cpu"
WRITERS = {
    "convert": Writer(
        "md17 convert sample out/data --train 300 --val 20 --test 20 --overwrite",
        before="md17 convert sample out/data --train 20 --val 5 --test 5",
    ),
    "convert structures": Writer("oc22 convert sample out/data --train 20 --val 5"),
    "evaluate": Writer(f"{EVALUATE} --plot", before=f"{EVALUATE} --batch-size 4", goes_on=True),
    "predict to extxyz": Writer("predict checkpoint.pt data/test --to out/p.extxyz"),
    "predict to npz": Writer("predict checkpoint.pt data/test --to out/p.npz"),
    "export": Writer("export checkpoint.pt out/model.safetensors"),
    "simulate": Writer(
        "simulate checkpoint.pt --start data/test --out out/md --temperature 300 --length 0.02 --every 1 --cpu",
        goes_on=True,
    ),
    "train": Writer(f"{TRAIN} --optim.max_epochs=3", before=f"{TRAIN} --optim.max_epochs=1", goes_on=True),
    "train, and log": Writer(f"{TRAIN} --optim.max_epochs=2", goes_on=True, at_most=1500),
    "report": Writer("report . --to out/report.md"),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in OTHERS and "tfevents" not in file.name
    }


def grown(before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Whether a log was written on, and the rest is as it was."""
    return all(
        after[name].startswith(before[name]) if name.endswith(".jsonl") else after[name] == before[name]
        for name in before
    )


@pytest.fixture
def run(tmp_path, monkeypatch, sample_data, ethanol_checkpoint, train_arguments, capsys):
    """Runs a command in a folder with data and a checkpoint; its exit status, and what it said of errors."""
    shutil.copytree(sample_data, tmp_path / "data")
    shutil.copy(ethanol_checkpoint, tmp_path / "checkpoint.pt")
    monkeypatch.chdir(tmp_path)
    settings = shlex.join(train_arguments("schnet_dc", run_dir=tmp_path / "out"))

    def run(words: str, limit: int | None = None) -> tuple[int, str]:
        capsys.readouterr()
        command = shlex.split(words.format(settings=settings))
        if limit is None:
            status = cli.main(command)
        else:
            with size_limit(limit):
                status = cli.main(command)
        # LMDBs that an error still holds
        gc.collect()
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def begin(run):
    """Makes ``out`` as it was before a command."""

    def begin(writer: Writer) -> dict[str, bytes]:
        out = Path("out")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if writer.before:
            assert run(writer.before)[0] == 0
        return contents(out)

    return begin


@pytest.mark.parametrize(
    ("name", "times"),
    [*((name, 1) for name in WRITERS), *(pytest.param(name, 20, marks=pytest.mark.slow) for name in WRITERS)],
)
def test_a_full_disk(name, times, run, begin):
    writer, out, draw = WRITERS[name], Path("out"), random.Random(f"{name} {times}")
    begin(writer)
    assert run(writer.words)[0] == 0
    expected = contents(out)
    for _ in range(times):
        before = begin(writer)
        limit = draw.randrange(writer.at_most or max(map(len, expected.values())))
        status, said = run(writer.words, limit)
        assert status == 2, (limit, said)
        assert re.fullmatch(
            r"ocp-dc: error: .*out/\S+ could not be written: .*Check the free space.*", said.splitlines()[-1]
        )
        assert "Traceback" not in said
        after = contents(out)
        assert not [name for name in after if "partial" in name]
        assert grown(before, after) if writer.goes_on else after == before, limit
        assert run(writer.words)[0] == 0
        assert contents(out) == expected, limit


def test_generating_on_a_full_disk(tmp_path):
    """In processes of its own: tblite cannot be loaded after PyTorch."""
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nH 0 0 0.96\nH 0 0.93 -0.24\n")
    settings = "--frames 60 --trajectories 2 --interval 1 --equilibrate 1 --jobs 1"

    def generate(out: str, kibibytes: str) -> subprocess.CompletedProcess:
        command = f"{sys.executable} -m ocp_dc.cli md17 generate water.xyz {out} {settings}"
        limited = ["bash", "-c", f"ulimit -f {kibibytes}; exec {command}"]
        # the tests' coverage is kept in files too, which would meet the limit
        env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        return subprocess.run(limited, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    assert generate("whole.npz", "unlimited").returncode == 0
    size = (tmp_path / "whole.npz").stat().st_size
    cut = generate("cut.npz", f"{random.Random(0).randrange(1, size // 1024)}")
    assert cut.returncode == 2
    assert re.fullmatch(r"ocp-dc: error: \S+\.npz could not be written: File too large.*", cut.stderr.splitlines()[-1])
    assert "Traceback" not in cut.stderr
    assert not (tmp_path / "cut.npz").exists()
    assert generate("cut.npz", "unlimited").returncode == 0
    after = contents(tmp_path)
    assert sorted(after) == ["cut.npz", "water.xyz", "whole.npz"]
    assert after["cut.npz"] == after["whole.npz"]
