"""Commands that are killed and started again leave what they leave undisturbed; the rest is for the script itself."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "fault_test.py"


def test_a_killed_training_and_conversion(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--kills", "1", "--jobs", "train-traced", "convert"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("as if nothing had happened") == 2
