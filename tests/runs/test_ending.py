"""``ocp-dc reproduce`` that is ended from outside: its workers end with it, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocp_dc.locks import is_locked

TOYS = Path(__file__).parent / "toys"
# with the study of tea, the work of which takes longer here
COMMAND = f"""
import sys
import ocp_dc
ocp_dc.__path__.append({str(TOYS)!r})
from ocp_dc.cli import main
sys.exit(main(["reproduce", "tea", "--out", "out", "--jobs", "2"]))
"""
BREWING = """
import json
import os
import time
from ocp_dc.files import replacing
from ocp_dc.runs.records import last_logged_step
from ocp_dc.runs.worker import Quantity, Work

def brew(folder, description):
    log = folder / description["log"]
    (folder / "process").write_text(str(os.getpid()))
    for step in range(last_logged_step(log) + 1, description["steps"] + 1):
        with replacing(folder / "cup") as half_full:
            half_full.touch()
            with log.open("a") as file:
                file.write(json.dumps({"step": step}) + "\\n")
            time.sleep(0 if step > 3 else 0.1 if (folder.parent / "hurry").exists() else 60)
    return Work({"temperature": Quantity(80.0, "°C"), "bitterness": Quantity(1.0, "IBU")}, seconds=2.0)
"""


@pytest.fixture
def start(tmp_path):
    """Starts the command in an empty folder."""
    kettle = tmp_path / "work" / "kettle"
    kettle.mkdir(parents=True)
    (kettle / "__init__.py").touch()
    (kettle / "brewing.py").write_text(BREWING)
    places = [str(kettle.parent), os.environ.get("PYTHONPATH", "")]

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def runs_at_work(folder: Path, process: subprocess.Popen) -> list[Path]:
    """Waits until both runs have logged a step."""
    while len(logs := list(folder.glob("out/runs/*/kettle.jsonl"))) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return [log.parent for log in logs]


def test_sigterm_ends_reproduce_and_its_workers_and_the_same_command_goes_on(start, tmp_path):
    process = start()
    runs = runs_at_work(tmp_path, process)
    workers = [int((run / "process").read_text()) for run in runs]
    assert len(list(tmp_path.rglob("*partial*"))) == 2
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert output.splitlines()[-1] == "ocp-dc: ended by SIGTERM"
    assert "Traceback" not in output
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    assert not any(is_locked(run / "lock") for run in runs)
    assert not list(tmp_path.rglob("*partial*"))

    (tmp_path / "out" / "runs" / "hurry").touch()
    process = start()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "2 finished"
    for run in runs:
        steps = [json.loads(line)["step"] for line in (run / "kettle.jsonl").read_text().splitlines()]
        assert steps == list(range(1, 21))
