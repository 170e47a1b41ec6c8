"""Files that are there completely or not at all."""

import os
import subprocess
import sys

import pytest

from ocp_dc.files import replace_text, replacing


def test_replaces_a_file_when_the_block_ends(tmp_path):
    path = tmp_path / "result.json"
    for text in ("één", "two"):
        with replacing(path) as partial:
            partial.write_text(text, "utf-8")
            assert path.exists() == (text == "two")
        assert path.read_text("utf-8") == text
    replace_text(path, "drei µ")
    assert path.read_text("utf-8") == "drei µ"
    assert os.listdir(tmp_path) == ["result.json"]


@pytest.mark.parametrize("before", [None, "kept"])
def test_an_error_leaves_the_file_as_it_was(tmp_path, before):
    path = tmp_path / "result.json"
    if before:
        path.write_text(before)

    def write_half():
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert (path.read_text() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([path.name] if before else [])


def test_a_kill_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("kept")
    killed = f"""
import os, pathlib
from ocp_dc.files import replacing
with replacing(pathlib.Path({str(path)!r})) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -9
    assert path.read_text() == "kept"
