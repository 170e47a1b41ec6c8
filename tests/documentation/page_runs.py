"""Runs the blocks of a page in a folder, as who reads it would."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from fairchem.core.common.flags import flags
from page_blocks import Block, PageError

from ocp_dc.cli import main
from ocp_dc.files import replacing

REPOSITORY = Path(__file__).parent.parent.parent
LIMIT_SECONDS = 900.0

# `ocp-dc` of a block hands its arguments to this process, which has imported everything: starting anew takes seconds
CLIENT = """#!/usr/bin/env bash
call=$(mktemp --directory "$OCP_DC_CALLS/XXXXXX")
printf '%s\\0' "$PWD" "$@" > "$call/unfinished"
mv "$call/unfinished" "$call/arguments"
until [ -e "$call/status" ]; do sleep 0.02; done
cat "$call/stdout"
cat "$call/stderr" >&2
exit "$(cat "$call/status")"
"""
SEPARATE_PROCESS = """#!/usr/bin/env bash
exec "{python}" -W ignore -m ocp_dc.cli "$@"
"""
PYTHON = """#!/usr/bin/env bash
exec "{python}" "$@"
"""


class PageRun:
    """Runs blocks one after the other; Python blocks share their names."""

    def __init__(self, folder: Path, package: Path = REPOSITORY) -> None:
        """``folder`` is where blocks are run; ``package`` the repository, or a copy of it that blocks change."""
        self.folder = folder
        self._package = package
        self._names: dict = {"__name__": "__main__"}
        self._calls = folder.parent / f"{folder.name}-calls"
        self._commands = folder.parent / f"{folder.name}-commands"
        self._calls.mkdir()
        self._commands.mkdir()
        self._add_command("ocp-dc", CLIENT if package == REPOSITORY else SEPARATE_PROCESS)
        self._add_command("python", PYTHON)

    def _add_command(self, name: str, script: str) -> None:
        path = self._commands / name
        path.write_text(script.replace("{python}", sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, block: Block) -> None:
        """Runs a block, or makes its edit.

        Raises:
            PageError: a command of the block failed.
        """
        if block.edit:
            edit_file(self.folder, block)
        elif block.language == "yaml":
            yaml.safe_load(block.small_code)
        elif block.language == "python":
            self._run_python(block)
        else:
            self._run_bash(block)

    def _run_python(self, block: Block) -> None:
        # at the lines they have on the page, so that a traceback names them
        code = compile("\n" * block.line + block.small_code, str(block.page), "exec")
        with working_in(self.folder):
            exec(code, self._names)

    def _run_bash(self, block: Block) -> None:
        environment = {
            **os.environ,
            "PATH": f"{self._commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self._package),
            "OCP_DC_CALLS": str(self._calls),
            "OMP_NUM_THREADS": "1",
        }
        output = self._calls.with_suffix(".log")
        with output.open("w") as log:
            bash = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", block.small_code],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self._answer_until_ended(bash)
        if bash.returncode:
            raise PageError(f"{block.place}: exit status {bash.returncode} after\n{output.read_text()[-4000:]}")

    def _answer_until_ended(self, bash: subprocess.Popen) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        try:
            while bash.poll() is None and time.monotonic() < end:
                for arguments in self._calls.glob("*/arguments"):
                    answer(arguments)
                time.sleep(0.02)
        finally:
            bash.kill()
            bash.wait()


@contextlib.contextmanager
def working_in(folder: str | Path) -> Iterator[None]:
    """With this working folder (``contextlib.chdir`` of Python 3.11)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_command(folder: str | Path, arguments: list[str]) -> int:
    """`ocp-dc ARGUMENTS` in a folder, by this process; gives the exit status."""
    with working_in(folder):
        # fairchem asks for the working folder once, when it is imported
        flags.get_parser().set_defaults(run_dir=os.getcwd())
        try:
            return main(arguments)
        except SystemExit as exit_:
            return int(exit_.code or 0)
        finally:
            # LMDBs that are still open cannot be opened again
            gc.collect()


def answer(arguments: Path) -> None:
    """Runs the command of a call's file of arguments, and leaves its outputs and its exit status beside it."""
    folder, *given = arguments.read_text().split("\0")[:-1]
    arguments.unlink()
    outputs = {"stdout": io.StringIO(), "stderr": io.StringIO()}
    try:
        with contextlib.redirect_stdout(outputs["stdout"]), contextlib.redirect_stderr(outputs["stderr"]):
            status = run_command(folder, given)
    finally:
        for name, text in outputs.items():
            arguments.with_name(name).write_text(text.getvalue())
    # the client reads it as soon as it is there
    with replacing(arguments.with_name("status")) as unfinished:
        unfinished.write_text(f"{status}\n")


def edit_file(folder: Path, block: Block) -> None:
    """Writes a block to the file, or the place in it, that its marker names."""
    marker, name, anchor = block.edit
    path = folder / name
    if marker == "file":
        path.write_text(block.small_code, encoding="utf-8")
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    found = [number for number, line in enumerate(lines) if line.startswith(anchor)]
    if not found:
        raise PageError(f"{block.place}: {name} has no line that begins with {anchor!r}")
    at = found[0]
    lines[at : at + 1] = [block.small_code] if marker == "replace" else [lines[at], block.small_code]
    path.write_text("".join(lines), encoding="utf-8")


def copy_clone(folder: Path, names: Iterable[str]) -> None:
    """Copies parts of the repository, as a clone of it would have them."""
    for name in names:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
