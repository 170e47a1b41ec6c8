"""Few files that may be open at once: a command works, or says so in a line; it never hangs."""

from __future__ import annotations

import gc
import shlex
import subprocess
import sys

import pytest
from faults import descriptor_limit

from ocp_dc import cli

SAID = "ocp-dc: error: too many files are open at once, `ulimit -n` is "


@pytest.fixture
def run(tmp_path, monkeypatch, oxide_data, oxide_checkpoint, capsys):
    """Runs a command that may open so many further files; its exit status, and the last that it said of errors."""
    monkeypatch.chdir(tmp_path)
    subset = f"oc22 subset {oxide_data} shards --train 20 --val 5 --split val --jobs 1 --shard-size 1"
    assert cli.main(shlex.split(subset)) == 0
    (tmp_path / "checkpoint.pt").symlink_to(oxide_checkpoint)

    def run(words: str, more: int) -> tuple[int, str]:
        with descriptor_limit(more):
            status = cli.main(shlex.split(words))
        # LMDBs that an error still holds
        gc.collect()
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return status, said.strip().splitlines()[-1] if status else ""

    return run


COMMANDS = {
    "evaluate": "evaluate --checkpoint checkpoint.pt --data shards/train --overwrite --out result.json",
    "predict": "predict checkpoint.pt shards/train --to {more}.npz",
    "subset": "oc22 subset shards subset-{more} --train 10 --val 2 --split val --jobs 1",
    "convert": "oc22 convert sample data-{more} --train 10",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_open_many_files(name, run):
    ends = {more: run(COMMANDS[name].format(more=more), more) for more in (0, 1, 3, 10, 40)}
    assert ends[0][0] == 2
    assert ends[40] == (0, "")
    for status, said in ends.values():
        assert (status, said[: len(SAID)]) in ((0, ""), (2, SAID))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [18, 24, 32, 40, 48, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_training(train_arguments, tmp_path, limit, workers):
    settings = ("--dataset.train.format=lmdb", "--optim.max_epochs=2", f"--optim.num_workers={workers}", "--cpu")
    command = shlex.join([sys.executable, "-m", "ocp_dc.cli", "train", *train_arguments("schnet_dc", *settings)])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n {limit}; exec {command}"], capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 0 or (done.returncode == 2 and last.startswith(SAID)), done.stderr
    if limit == 64:
        assert done.returncode == 0, done.stderr
