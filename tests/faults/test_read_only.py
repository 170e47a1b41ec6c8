"""Folders that nobody may write to: read as any others, and refused in a line as places to write to."""

from __future__ import annotations

import gc
import re
import shlex
import shutil
from pathlib import Path

import pytest
from faults import read_only

from ocp_dc import cli
from ocp_dc.datasets.samples import oxide_sample_path, sample_path

TRAIN = "train {settings} --timestamp-id run --optim.max_epochs=1 --cpu"
SIMULATE = "simulate given/checkpoint.pt --start given/data/test --temperature 300 --length 0.01 --cpu"
READERS = {
    "train": TRAIN,
    "train from LMDBs": f"{TRAIN} --dataset.train.format=lmdb",
    "train on": f"{TRAIN} --checkpoint given/checkpoint.pt --weights-only",
    "convert": "md17 convert given/sample.npz out/data --train 10",
    "convert structures": "oc22 convert given/slabs.traj out/slabs --train 10",
    "subset": "oc22 subset given/oxides out/subset --train 5 --val 2 --split val --jobs 1",
    "inspect": "md17 inspect given/data/test",
    "evaluate": "evaluate --checkpoint given/checkpoint.pt --data given/data/test --out out/result.json --details",
    "predict": "predict given/checkpoint.pt given/data/test --to out/p.npz",
    "export": "export given/checkpoint.pt out/model.safetensors",
    "simulate": f"{SIMULATE} --out out/md",
}
WRITERS = {
    "train": "train {settings} --run-dir given --timestamp-id new --optim.max_epochs=1 --cpu",
    "train on": "train {settings} --run-dir given/run --timestamp-id run --optim.max_epochs=2 --cpu",
    "convert": "md17 convert given/sample.npz given/new --train 10",
    "convert again": "md17 convert sample given/data --train 10 --overwrite",
    "convert structures": "oc22 convert given/slabs.traj given/new --train 10",
    "subset": "oc22 subset given/oxides given/new --train 5 --val 2 --split val --jobs 1",
    "evaluate": "evaluate --checkpoint given/checkpoint.pt --data given/data/test",
    "predict": "predict given/checkpoint.pt given/data/test --to given/p.npz",
    "export": "export given/checkpoint.pt given/model.safetensors",
    "simulate": f"{SIMULATE} --out given/md",
    "report": "report given --to given/report.md",
    "reproduce": "reproduce table1 --scale smoke --data sample --model schnet --out given/runs",
    "generate": "md17 generate given/water.xyz given/water.npz --frames 5",
    "fit scale factors": "fit-scale-factors --config-yml md17/gemnet_t_dc --out given/factors.json",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def run(tmp_path, monkeypatch, sample_data, oxide_data, ethanol_checkpoint, train_arguments, capsys):
    given = tmp_path / "given"
    shutil.copytree(sample_data, given / "data")
    shutil.copytree(oxide_data, given / "oxides")
    shutil.copytree(ethanol_checkpoint.parents[2], given / "run")
    shutil.copy(ethanol_checkpoint, given / "checkpoint.pt")
    shutil.copy(sample_path(), given / "sample.npz")
    shutil.copy(oxide_sample_path(), given / "slabs.traj")
    (given / "water.xyz").write_text("3\n\nO 0 0 0\nH 0 0 0.96\nH 0 0.93 -0.24\n")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = train_arguments("schnet_irelu_recommended", run_dir=tmp_path / "out")
    settings = [word.replace(str(sample_data), "given/data") for word in settings]

    def run(words: str) -> tuple[int, str]:
        capsys.readouterr()
        with read_only(given):
            status = cli.main(shlex.split(words.format(settings=shlex.join(settings))))
        gc.collect()
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize("words", READERS.values(), ids=READERS)
def test_reading(words, run):
    before = contents(Path("given"))
    status, said = run(words)
    assert status == 0, said
    assert contents(Path("given")) == before


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_writing(words, run):
    before = contents(Path("given"))
    status, said = run(words)
    assert status == 2, said
    assert re.match(r"ocp-dc: error: .*\bgiven\b.*Permission denied", said.splitlines()[-1])
    assert "Traceback" not in said
    assert contents(Path("given")) == before
