"""Few files that may be open at once: a command works, or says so in a line; it never hangs."""

from __future__ import annotations

import gc
import resource
import shlex
import subprocess
import sys

import pytest
import torch
from faults import descriptor_limit
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from ocp_dc import cli
from ocp_dc.errors import InputError
from ocp_dc.trainers.descriptors import allow_descriptors

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


def loader(workers: int) -> DataLoader:
    return DataLoader([Data(pos=torch.zeros(2, 3), y=torch.zeros(1))], num_workers=workers, batch_size=1)


def test_the_limit_is_raised_for_workers_as_far_as_it_may_be(monkeypatch):
    with descriptor_limit(5):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        allow_descriptors([loader(0)])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
        allow_descriptors([loader(2), loader(1)])
        allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert allowed > before[0] + 3 * 2 * 4
        assert most == before[1]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    with pytest.raises(InputError, match=r"num_workers is 2: that may take \d+ open files, and `ulimit -n` is 40"):
        allow_descriptors([loader(2), loader(1)])


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["-n 18", "-n 24", "-n 32", "-n 40", "-n 48", "-n 64", "-S -n 40"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training(train_arguments, tmp_path, limit, workers):
    settings = ("--dataset.train.format=lmdb", "--optim.max_epochs=2", f"--optim.num_workers={workers}", "--cpu")
    command = shlex.join([sys.executable, "-m", "ocp_dc.cli", "train", *train_arguments("schnet_dc", *settings)])
    done = subprocess.run(
        ["bash", "-c", f"ulimit {limit}; exec {command}"], capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    if done.returncode:
        assert done.returncode == 2, done.stderr
        assert last.startswith(SAID) or f"optim.num_workers is {workers}: that may take " in last
    # the hard limit is as it was
    if limit.startswith("-S"):
        assert done.returncode == 0, done.stderr
