"""How runs are shared out among processes, with workers that do as they are told instead of training."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from ocp_dc.errors import InputError
from ocp_dc.locks import file_lock, is_locked
from ocp_dc.runs import running
from ocp_dc.runs.records import is_done, last_logged_step, read_record, write_record
from ocp_dc.runs.running import default_jobs, format_outcome, run_all

# appends its process id to `tries`, waits, and ends as experiment.json says, or else finishes
FAKE_WORKER = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
description = json.loads((folder / "experiment.json").read_text())
tries = folder / "tries"
first = not tries.exists()
with tries.open("a") as file:
    file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']} {time.time()}\\n")
time.sleep(description.get("seconds", 0))
status = description["ends"] if first else "finished"
if status == "killed":
    os.kill(os.getpid(), 9)
if status == "crashed":
    sys.exit("out of luck")
if status == "full":
    sys.exit(os.EX_IOERR)
partial = folder / "partial"
partial.write_text(json.dumps(
    {"status": status, "message": None} | ({} if status != "finished" else {"quantities": {
        "weight": {"value": 1.5, "unit": "kg"}, "share": {"value": 2, "unit": ""}
    }})
))
partial.replace(folder / "result.json")
with tries.open("a") as file:
    file.write(f"{os.getpid()} - {time.time()}\\n")
"""


@pytest.fixture(autouse=True)
def _fake_worker(monkeypatch):
    monkeypatch.setattr(running, "WORKER", (sys.executable, "-S", "-c", FAKE_WORKER))
    monkeypatch.setattr(running, "POLL_SECONDS", 0.02)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def make_runs(out: Path, *ends: str, **settings) -> list[Path]:
    folders = []
    for number, end in enumerate(ends):
        folders.append(out / f"{number}-{end}")
        write_record(folders[-1] / "experiment.json", {"ends": end, "steps": 10, "log": "log.jsonl", **settings})
    return folders


def tries(folder: Path) -> int:
    """How often a worker has begun."""
    lines = (folder / "tries").read_text().splitlines() if (folder / "tries").exists() else []
    return sum(line.split()[1] != "-" for line in lines)


def statuses(outcomes) -> list[str]:
    return [outcome.status for outcome in outcomes]


def test_goes_on_past_runs_that_fail_diverge_or_are_killed(tmp_path):
    folders = make_runs(tmp_path, "killed", "failed", "diverged", "crashed", "finished", "full")
    outcomes = run_all(folders, jobs=2)
    assert [outcome.folder for outcome in outcomes] == folders
    assert statuses(outcomes) == ["killed", "failed", "diverged", "killed", "finished", "failed"]
    assert "is the disk full?" in outcomes[5].message
    assert "signal 9" in outcomes[0].message
    assert "exit status 1" in outcomes[3].message
    assert (folders[3] / "train.log").read_text() == "out of luck\n"


def test_started_again_it_repeats_only_what_has_no_result_of_its_own(tmp_path):
    folders = make_runs(tmp_path, "killed", "failed", "diverged", "finished")
    run_all(folders, jobs=2)
    assert statuses(run_all(folders, jobs=2)) == ["finished", "finished", "diverged", "finished"]
    assert [tries(folder) for folder in folders] == [2, 2, 1, 1]


def test_keeps_to_the_number_of_jobs_and_shares_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_cores", lambda: 9)
    folders = make_runs(tmp_path, *["finished"] * 5, seconds=0.15)
    run_all(folders, jobs=2)
    lines = [(folder / "tries").read_text().split() for folder in folders]
    assert {line[1] for line in lines} == {"4"}
    spans = [(float(line[2]), float(line[5])) for line in lines]
    at_once = [sum(start <= other[0] < end for start, end in spans) for other in spans]
    assert max(at_once) == 2


def test_two_at_once_do_no_run_twice_and_both_see_all_results(tmp_path):
    folders = make_runs(tmp_path, *["finished"] * 6, seconds=0.1)
    seen = {}

    def reproduce(name: str) -> None:
        seen[name] = statuses(run_all(folders, jobs=2))

    threads = [threading.Thread(target=reproduce, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": ["finished"] * 6, "b": ["finished"] * 6}
    assert [tries(folder) for folder in folders] == [1] * 6


def test_gives_up_waiting_when_told_so(tmp_path):
    folders = make_runs(tmp_path, "finished", "finished")
    with file_lock(folders[0] / "lock"):
        assert statuses(run_all(folders, jobs=2, patience=0.1)) == ["busy", "finished"]
    assert statuses(run_all(folders, jobs=2, patience=0.1)) == ["finished", "finished"]


def test_a_worker_keeps_its_run_when_its_parent_has_been_killed(tmp_path):
    (folder,) = make_runs(tmp_path, "finished", seconds=0.5)
    with file_lock(folder / "lock") as lock:
        worker = running._Worker(folder, 0, 1, 0.1, lock)
    assert is_locked(folder / "lock")
    assert statuses(run_all([folder], jobs=1)) == ["finished"]
    worker._process.wait()
    assert worker.ended()
    assert tries(folder) == 1


def test_takes_over_when_another_process_dies(tmp_path):
    (folder,) = make_runs(tmp_path, "finished")
    lock = file_lock(folder / "lock")
    lock.__enter__()
    threading.Timer(0.3, lambda: lock.__exit__(None, None, None)).start()
    started = time.monotonic()
    assert statuses(run_all([folder], jobs=1)) == ["finished"]
    assert time.monotonic() - started > 0.3


def test_workers_end_with_it(tmp_path, monkeypatch):
    (folder,) = make_runs(tmp_path, "finished", seconds=60)

    def interrupted(_: float) -> None:
        if tries(folder):
            raise KeyboardInterrupt

    monkeypatch.setattr(running.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_all([folder], jobs=1)
    pid = int((folder / "tries").read_text().split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not is_locked(folder / "lock")


def test_one_job_per_gpu_else_two_on_the_cpu(monkeypatch):
    monkeypatch.setattr(running, "_gpus", lambda: 0)
    monkeypatch.setattr(running, "_cores", lambda: 16)
    assert default_jobs() == 2
    monkeypatch.setattr(running, "_cores", lambda: 1)
    assert default_jobs() == 1
    monkeypatch.setattr(running, "_gpus", lambda: 3)
    assert default_jobs() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    assert [running._environment(slot, 4)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["4", "6", "7", "4"]


def test_last_logged_step_survives_a_line_that_is_being_written(tmp_path):
    path = tmp_path / "log.jsonl"
    assert last_logged_step(path) == 0
    path.write_text("")
    assert last_logged_step(path) == 0
    records = [json.dumps({"split": "train", "step": step, "loss": 0.5}) for step in range(10, 2_000, 10)]
    path.write_text("\n".join(records) + '\n{"split": "train", "st')
    assert last_logged_step(path) == 1_990


def test_records_are_there_or_not(tmp_path):
    assert read_record(tmp_path / "result.json") is None
    write_record(tmp_path / "result.json", {"unit": "kcal/mol/Å"})
    assert read_record(tmp_path / "result.json") == {"unit": "kcal/mol/Å"}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    (tmp_path / "result.json").write_text('{"status": ')
    with pytest.raises(InputError, match=r"result.json is damaged .*; remove"):
        read_record(tmp_path / "result.json")


def test_a_finished_run_is_told_in_a_line_with_its_units(tmp_path):
    (outcome,) = run_all(make_runs(tmp_path, "finished"), jobs=1)
    assert format_outcome(outcome) == "0-finished: weight 1.50 kg, share 2.00"


def test_results_of_the_first_versions_are_made_again(tmp_path):
    (folder,) = make_runs(tmp_path, "finished")
    old = {"status": "finished", "message": None, "step": 10, "energy_mae": 1.0}
    write_record(folder / "result.json", old)
    assert not is_done(old)
    os.utime(folder / "result.json", (0, 0))
    assert statuses(run_all([folder], jobs=1)) == ["finished"]
    assert "quantities" in read_record(folder / "result.json")
