"""Without the extra: one line that says how to install it, and everything else as ever."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocp_dc.pinn.extra import INSTALL

REPOSITORY = Path(__file__).parents[2]
# what is found where a package is not installed
BLOCK = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name in ("deepxde", "h5py") else find(name, *more)
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs code in another process, in an empty folder, where the extra's packages are missing."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}

    def code(text: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "ignore", "-c", text]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return code


def test_one_line_says_how_to_install_it(run):
    finished = run("from ocp_dc.cli import main; raise SystemExit(main(['reproduce', 'table3', '--scale', 'smoke']))")
    assert finished.returncode == 2
    expected = "ocp-dc: error: h5py is not installed, which physics-informed networks need; run: pip install "
    assert finished.stderr.splitlines() == [f'{expected}"deepxde>=1.15,<1.16" "h5py>=3.8"']


def test_that_line_is_what_setup_cfg_has():
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    needs = settings["options.extras_require"]["pinn"].split()
    assert " ".join(["pip install", *(f'"{need}"' for need in needs)]) == INSTALL


def test_plans_and_other_tables_need_nothing_of_it(run):
    for arguments in (
        ["reproduce", "table5", "--dry-run"],
        ["reproduce", "table1", "--dry-run"],
        ["reproduce", "--help"],
    ):
        finished = run(f"from ocp_dc.cli import main; raise SystemExit(main({arguments}))")
        assert finished.returncode == 0, finished.stderr


def test_a_run_without_it_fails_with_that_line(run):
    finished = run("from ocp_dc.pinn import training")
    assert finished.stderr.splitlines()[-1].endswith('"deepxde>=1.15,<1.16" "h5py>=3.8"')


def test_nothing_else_imports_it(run):
    modules = """
import importlib, pkgutil, sys, ocp_dc

names = [module.name for module in pkgutil.walk_packages(ocp_dc.__path__, "ocp_dc.")]
for name in names:
    if not name.startswith("ocp_dc.pinn"):
        importlib.import_module(name)
from ocp_dc.pinn import generation, measures, protocols, study
print([name for name in sys.modules if name.startswith(("deepxde", "h5py"))])
"""
    finished = run(modules)
    assert finished.stdout.splitlines()[-1:] == ["[]"], finished.stderr
