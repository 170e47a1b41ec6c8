"""Files that are there completely or not at all."""

import os
import subprocess
import sys

import pytest
import torch
from faults import size_limit

from ocp_dc.errors import InputError
from ocp_dc.files import replace_text, replacing, told_where


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
    assert len(os.listdir(tmp_path)) == 2
    replace_text(path, "new")
    assert os.listdir(tmp_path) == [path.name]


def test_what_another_process_writes_is_left_alone(tmp_path):
    path = tmp_path / "result.json"
    with replacing(path) as partial:
        others = partial.with_name(partial.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
        others.write_text("half")
        partial.write_text("whole")
    replace_text(path, "new")
    assert others.read_text() == "half"


@pytest.mark.parametrize("by_pytorch", [False, True])
def test_a_full_disk_is_told_with_the_file(tmp_path, by_pytorch):
    path = tmp_path / "weights.pt"
    path.write_text("kept")

    def write():
        with size_limit(50_000), replacing(path) as partial:
            if by_pytorch:
                torch.save(torch.zeros(100_000), partial)
            else:
                partial.write_bytes(bytes(100_000))

    with pytest.raises(InputError, match=r"weights\.pt could not be written: .*Check the free space"):
        write()
    assert path.read_text() == "kept"
    assert os.listdir(tmp_path) == [path.name]


def test_errors_of_other_things_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), told_where(tmp_path / "a"):
        (tmp_path / "b").read_text()
    with pytest.raises(RuntimeError, match="sizes"), replacing(tmp_path / "a"):
        raise RuntimeError("sizes differ")
