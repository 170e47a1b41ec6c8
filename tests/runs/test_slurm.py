"""Jobs through submitit and as an array, on a stand-in for SLURM that runs them on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from ocp_dc.cli import main
from ocp_dc.errors import InputError
from ocp_dc.experiments.plan import CHECKPOINT
from ocp_dc.runs import running
from ocp_dc.runs.records import read_record, write_record
from ocp_dc.runs.slurm import SlurmSettings, read_slurm_settings, submit

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm" / "reproduce.sbatch"
ONE_RUN = ("table9", "--model", "cgcnn", "--variant", "original", "--scale", "smoke", "--data", "sample")
FINISHES = """
import json, sys
from pathlib import Path
result = {"status": "finished", "message": None, "quantities": {"weight": {"value": 1.0, "unit": "kg"}}}
Path(sys.argv[1], "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """The stand-in's state folder; its commands, and `ocp-dc`, are first in PATH."""
    commands, state = tmp_path / "bin", tmp_path / "slurm_state"
    commands.mkdir()
    state.mkdir()
    stand_in = Path(__file__).parent / "slurm_stand_in.py"
    for name in ("sbatch", "srun", "scontrol"):
        write_command(commands / name, f'exec {sys.executable} {stand_in} {name} "$@"')
    write_command(commands / "ocp-dc", f'exec {sys.executable} -m ocp_dc.cli "$@"')
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STAND_IN", str(state))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return state


def write_command(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def sbatch(*arguments: object) -> None:
    subprocess.run(["sbatch", *map(str, arguments)], check=True)


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def requeued(state: Path) -> list[str]:
    path = state / "requeued"
    return path.read_text().split() if path.exists() else []


def test_settings_come_from_the_section_and_flags_take_precedence(tmp_path):
    file = tmp_path / "cluster.yml"
    file.write_text("slurm: {partition: gpu, time: 12, mem: 32.5, additional: {constraint: a100}}\n")
    settings = read_slurm_settings(file, account="chem", time=2.0, gpus=None)
    assert settings == SlurmSettings("gpu", "chem", None, 2.0, 32.5, 1, 4, {"constraint": "a100"})
    assert read_slurm_settings(None) == SlurmSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slurm: {partion: gpu}", "slurm.partion is unknown; known: partition, account"),
        ("slurm: {gpus: many}", "slurm.gpus is 'many'; it must be of type int"),
        ("slurm: gpu", "has no section slurm"),
        ("partition: gpu", "has no section slurm"),
        ("- slurm", "cluster.yml is a sequence; a config is a mapping"),
        ("slurm: {", "cluster.yml:1: not valid YAML"),
        ("slurm: {qos: &a [*a]}", "an alias is of what it stands in"),
    ],
)
def test_mistakes_in_the_section_are_named(tmp_path, text, message):
    file = tmp_path / "cluster.yml"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_slurm_settings(file)
    with pytest.raises(InputError, match=r"none.yml cannot be read"):
        read_slurm_settings(tmp_path / "none.yml")


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"--submit: .*or leave out --submit"):
        submit([tmp_path], SlurmSettings(), tmp_path)


def test_refused_jobs_are_reported(slurm, tmp_path):
    write_command(tmp_path / "bin" / "sbatch", "echo 'sbatch: error: invalid partition specified: gpux' >&2; exit 1")
    with pytest.raises(InputError, match=r"(?s)sbatch refused run-1 .*0 jobs were submitted"):
        submit([tmp_path / "run-1"], SlurmSettings(partition="gpux"), tmp_path / "logs")


def test_a_job_asks_for_what_the_settings_say_and_does_its_run(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STAND_IN_HOLD", "1")
    folders = [tmp_path / "runs" / name for name in ("run-1", "run-2")]
    for folder in folders:
        write_record(folder / "experiment.json", {"steps": 1, "log": "log.jsonl"})
    settings = SlurmSettings("gpu", "chem", "normal", 36.0, 24.0, 2, 8, {"constraint": "a100"})
    assert submit(folders, settings, tmp_path / "logs") == ["1", "2"]
    options = read_record(slurm / "2.json")["options"]
    expected = {
        "job-name": "run-2",
        "partition": "gpu",
        "account": "chem",
        "qos": "normal",
        "time": "2160",
        "mem": "24GB",
        "gpus-per-node": "2",
        "cpus-per-task": "8",
        "constraint": "a100",
        "requeue": "",
        "signal": "USR2@90",
    }
    assert {name: options.get(name) for name in expected} == expected

    monkeypatch.setattr(running, "WORKER", (sys.executable, "-S", "-c", FINISHES))
    job = DelayedSubmission.load(tmp_path / "logs" / "2" / "2_submitted.pkl")
    assert job.result() == "finished"
    assert read_record(folders[1] / "result.json")["status"] == "finished"
    assert job._checkpoint_function().function.folder == folders[1]


def test_without_gpus_none_are_asked_for(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STAND_IN_HOLD", "1")
    submit([tmp_path / "run"], SlurmSettings(gpus=0), tmp_path / "logs")
    options = read_record(slurm / "1.json")["options"]
    assert "gpus-per-node" not in options
    assert options["time"] == "1440"


def test_array_script_passes_its_arguments_and_index(slurm, tmp_path):
    write_command(tmp_path / "bin" / "ocp-dc", 'echo "$@" > "$SLURM_STAND_IN/called.$SLURM_ARRAY_TASK_ID"')
    sbatch("--array=3-4", SCRIPT, "table1", "--scale", "smoke", "--out", "my out")
    wait_until(lambda: all((slurm / f"called.{index}").exists() for index in (3, 4)), 10)
    wait_until(lambda: (slurm / "called.4").read_text() != "", 10)
    assert (slurm / "called.4").read_text() == "reproduce table1 --scale smoke --out my out --only-index 4\n"
    assert requeued(slurm) == []


def test_array_script_requeues_itself_when_its_time_is_over(slurm, tmp_path):
    # the first time until it is ended, the second time to the end
    write_command(
        tmp_path / "bin" / "ocp-dc",
        "sleep 60 & trap 'touch \"$SLURM_STAND_IN/ended\"; kill $!; exit 143' TERM\n"
        'echo >> "$SLURM_STAND_IN/called"; [ $(wc -l < "$SLURM_STAND_IN/called") = 1 ] && wait; kill $!',
    )
    sbatch("--array=0-0", SCRIPT, "table1")
    wait_until((slurm / "called").exists, 10)
    os.kill(int((slurm / "1_0.pid").read_text()), signal.SIGUSR2)
    wait_until(lambda: len((slurm / "called").read_text().splitlines()) == 2, 20)
    assert (slurm / "ended").exists()
    assert requeued(slurm) == ["1_0"]


def test_what_is_finished_is_not_submitted(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_STAND_IN_HOLD", "1")
    finished = tmp_path / "out" / "runs" / "cgcnn-original-ethanol-50000-b30-s0"
    write_record(finished / "result.json", {"status": "finished", "step": 20, "seconds": None, "quantities": {}})
    command = ["reproduce", *ONE_RUN, "--seeds", "2", "--out", "out", "--submit", "--slurm-partition", "gpu"]
    assert main(command) == 0
    assert "job 1: cgcnn-original-ethanol-50000-b30-s1\n1 jobs submitted" in capsys.readouterr().out
    assert read_record(slurm / "1.json")["options"]["partition"] == "gpu"
    assert not (slurm / "2.json").exists()


@pytest.mark.slow
def test_a_preempted_job_goes_on_from_its_checkpoint(slurm, tmp_path, capfd):
    out = tmp_path / "out"
    assert main(["reproduce", *ONE_RUN, "--out", str(out), "--submit", "--slurm-gpus", "0"]) == 0
    assert "job 1: cgcnn-original-ethanol-50000-b30-s0" in capfd.readouterr().out
    folder = out / "runs" / "cgcnn-original-ethanol-50000-b30-s0"
    wait_until((folder / CHECKPOINT).exists, 120)
    os.killpg(int((slurm / "1.pid").read_text()), signal.SIGUSR2)
    wait_until((folder / "result.json").exists, 240)
    assert requeued(slurm) == ["1"]
    assert read_record(folder / "result.json")["status"] == "finished"
    assert "resuming job from this check" in (folder / "train.log").read_text()


@pytest.mark.slow
def test_array_of_two_runs(slurm, tmp_path):
    sbatch("--array=0-1", SCRIPT, *ONE_RUN, "--seeds", "2", "--out", tmp_path / "out")
    folders = [tmp_path / "out" / "runs" / f"cgcnn-original-ethanol-50000-b30-s{seed}" for seed in (0, 1)]
    wait_until(lambda: all((folder / "result.json").exists() for folder in folders), 240)
    results = [read_record(folder / "result.json") for folder in folders]
    assert [result["status"] for result in results] == ["finished"] * 2
    assert results[0]["quantities"] != results[1]["quantities"]
