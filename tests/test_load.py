"""Large amounts, and small files that announce them: memory stays what it was."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells what memory is")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import load_test

    yield load_test
    for name in ("load_test", "lying_files"):
        sys.modules.pop(name)


def test_small_files_that_announce_much_are_refused(script, tmp_path, capsys):
    assert script.lies(tmp_path, 1) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("memory", "files", "grew"),
    [
        (lambda step: 100, lambda step: 9, ""),
        # what the first steps take, and what is there for a moment
        (lambda step: min(step, 15), lambda step: 9 + 5 * (step % 2), ""),
        (lambda step: 400 + step // 2, lambda step: 9, "memory"),
        (lambda step: 100, lambda step: step, "open files"),
    ],
)
def test_what_grows_is_seen(script, memory, files, grew):
    samples = [
        script.Sample(step, memory(step) * script.MEGABYTE, 0, 0, files(step), processes=1) for step in range(101)
    ]
    assert script.Measured("work", samples=samples).grew() == grew


def test_how_work_ends_is_told(script, tmp_path, capsys):
    assert script.told(script.measure("waiting", lambda: time.sleep(0.3), tmp_path)) == 0
    assert script.told(script.measure("failing", lambda: 1 / 0, tmp_path)) == 1
    assert "WRONG: " in capsys.readouterr().out
    assert "ZeroDivisionError" in (tmp_path / "output.txt").read_text()
    left = script.measure("leaving", lambda: subprocess.Popen(["sleep", "3"]), tmp_path)
    assert left.left == 1


@pytest.mark.slow
def test_training_and_simulations_stay_as_they_are(tmp_path):
    command = [sys.executable, SCRIPTS / "load_test.py", tmp_path, "--share", "0.02", "--jobs", "train", "simulate"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
