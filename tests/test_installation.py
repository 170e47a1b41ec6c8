"""The package as pip installs it, each time in a virtual environment of its own; nothing is downloaded."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from ocp_dc import _pyg_fallback

REPOSITORY = Path(__file__).parent.parent
START_UP_FILE = "ocp_dc_stand_ins.pth"
FIND = "from importlib.util import find_spec; print(find_spec('torch_scatter'))"

pytestmark = pytest.mark.skipif(
    len(_pyg_fallback.served()) < 2, reason="torch_scatter or torch_sparse is installed: this is about their absence"
)


class Environment:
    """A virtual environment that sees what is installed beside pytest, but not what is installed there as editable.

    Its Python runs in an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        self.empty_folder = folder / "empty"
        self.empty_folder.mkdir()
        self.packages = Path(self.run("import sysconfig; print(sysconfig.get_path('purelib'))"))
        # Python does not look for .pth files in folders that a .pth file names
        (self.packages / "beside_pytest.pth").write_text(sysconfig.get_path("purelib"))

    def call(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [self.python, "-W", "ignore", *arguments]
        folder = folder or self.empty_folder
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)

    def run(self, code: str) -> str:
        """What the code prints."""
        finished = self.call("-c", code)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.strip()

    def pip(self, *arguments: str) -> None:
        finished = self.call("-m", "pip", "--disable-pip-version-check", *arguments)
        assert finished.returncode == 0, finished.stdout + finished.stderr

    def install(self, kind: str, folder: Path) -> None:
        """Installs a copy of this repository, which `folder` is to hold, as `kind` says."""
        no_caches = shutil.ignore_patterns("__pycache__")
        for name in ("ocp_dc", "configs"):
            shutil.copytree(REPOSITORY / name, folder / name, symlinks=True, ignore=no_caches)
        for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(REPOSITORY / name, folder)
        source = [str(folder)]
        if kind == "editable":
            source.insert(0, "--editable")
        elif kind == "sdist":
            self.call("-c", "from setuptools import build_meta; build_meta.build_sdist('dist')", folder=folder)
            source = [str(file) for file in folder.glob("dist/*.tar.gz")]
        self.pip("install", "--no-deps", "--no-build-isolation", "--no-index", *source)


def environment_with(kind: str, folder: Path) -> Environment:
    environment = Environment(folder / "venv")
    environment.install(kind, folder / "repository")
    return environment


@pytest.fixture(scope="module", params=["wheel", "sdist", "editable"])
def installed(request, tmp_path_factory) -> Environment:
    return environment_with(request.param, tmp_path_factory.mktemp(request.param))


def test_stock_fairchem_starts(installed):
    code = "import sys, fairchem.core._cli, torch_scatter, torch_sparse; from torch_geometric import typing"
    flags = "typing.WITH_TORCH_SCATTER, typing.WITH_TORCH_SPARSE"
    assert installed.run(f"{code}; print('ocp_dc.models' in sys.modules, {flags})") == "False False False"


def test_every_config_is_in_the_package(installed):
    package = Path(installed.run("import ocp_dc; print(ocp_dc.__file__)")).parent
    assert not package.is_relative_to(REPOSITORY)

    def files(folder: Path) -> dict[Path, bytes]:
        return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    assert files(package / "configs") == files(REPOSITORY / "configs")


def test_a_real_package_comes_first(installed):
    real = installed.packages / "torch_scatter.py"
    real.write_text("installed = True")
    try:
        code = "import torch_scatter; print(torch_scatter.installed); from ocp_dc import _pyg_fallback as fallback"
        assert installed.run(f"{code}; print(fallback.served())").split("\n") == ["True", "['torch_sparse']"]
    finally:
        real.unlink()


def test_the_start_up_file_alone_is_harmless(installed, tmp_path):
    environment = Environment(tmp_path)
    shutil.copy(installed.packages / START_UP_FILE, environment.packages)
    start = environment.call("-c", "")
    assert (start.returncode, start.stderr) == (0, "")
    assert "No module named 'torch_scatter'" in environment.call("-c", "import torch_scatter").stderr


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_uninstalling_removes_the_start_up_file(kind, tmp_path):
    environment = environment_with(kind, tmp_path)
    assert "StandInLoader" in environment.run(FIND)
    environment.pip("uninstall", "--yes", "ocp_dc")
    assert environment.run(FIND) == "None"
    assert not list(environment.packages.glob("*ocp_dc*"))


def test_the_start_up_file_may_come_before_that_of_an_editable_install(tmp_path):
    environment = environment_with("editable", tmp_path)
    first = environment.packages / "_.pth"
    (environment.packages / START_UP_FILE).rename(first)
    assert min(environment.packages.glob("*.pth")) == first
    assert "StandInLoader" in environment.run(FIND)
