"""The tutorial's command, at a size that shows that it runs, in this environment in place of one that it makes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path):
    """Variables with which setup.sh finds an environment that is complete."""
    commands = tmp_path / "venv" / "bin"
    commands.mkdir(parents=True)
    for name, arguments in (("python", ""), ("ocp-dc", "-m ocp_dc.cli")):
        (commands / name).write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" {arguments} "$@"\n')
        (commands / name).chmod(0o755)
    stated = b"".join((REPOSITORY / name).read_bytes() for name in ("setup.cfg", "setup.py", "pyproject.toml"))
    stamp = subprocess.run(["cksum"], input=stated, capture_output=True, check=True).stdout.decode()
    (commands.parent / ".ocp_dc_installed").write_text(stamp)
    return {
        **os.environ,
        "OCP_DC_VENV": str(commands.parent),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "SMALL": "1",
    }


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tblite") is None, reason="tblite, of the extras `test` and `sample`, is not installed")
def test_it_runs_and_does_not_do_again_what_is_done(environment, tmp_path):
    command = ["bash", REPOSITORY / "scripts" / "tutorial.sh", REPOSITORY / "scripts" / "glycine.xyz", tmp_path / "out"]
    first = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    for word in ("energies shifted by", "centered", "residual", "4 of 4 replicas", "in all"):
        assert word in first
    figures = {path.name for path in (tmp_path / "out").rglob("*.png")}
    assert {"errors_parity.png", "errors_errors.png", "hr.png", "energy.png", "stability.png"} <= figures
    again = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert "$ ocp-dc" not in again
