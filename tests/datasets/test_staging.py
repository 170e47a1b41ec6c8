import errno
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from ocp_dc.datasets import lmdb, molecule_conversion, staging
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.datasets.molecule_conversion import convert
from ocp_dc.datasets.samples import sample_path
from ocp_dc.errors import InputError

SIZES = {"train": 20, "test": 5}


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def start_conversion_that_stalls(source, out, monkeypatch):
    """A conversion in a process of its own that has written records and will not end by itself."""
    stalled = multiprocessing.get_context("fork").Event()
    add = molecule_conversion.MoleculeWriter.add

    def add_and_stall(writer, conformations):
        add(writer, conformations)
        # what a shell starts in the background ignores Ctrl-C, and so do the tests there
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stalled.set()
        time.sleep(60)

    monkeypatch.setattr(molecule_conversion.MoleculeWriter, "add", add_and_stall)
    process = multiprocessing.get_context("fork").Process(target=convert, args=(source, out), kwargs={"sizes": SIZES})
    process.start()
    assert stalled.wait(30)
    monkeypatch.undo()
    return process


def test_killed_conversion_leaves_no_output_and_the_next_one_clears_up(write_npz, tmp_path, monkeypatch):
    source, out = write_npz(), tmp_path / "out"
    process = start_conversion_that_stalls(source, out, monkeypatch)
    assert not out.exists()
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    leftover = staging._staging_path(out, process.pid).name
    assert entries(tmp_path) == [leftover, "molecule.npz"]
    convert(source, out, sizes=SIZES)
    assert entries(tmp_path) == ["molecule.npz", "out"]


def test_ctrl_c_leaves_nothing(write_npz, tmp_path, monkeypatch, capfd):
    source = write_npz()
    process = start_conversion_that_stalls(source, tmp_path / "made" / "out", monkeypatch)
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 1
    assert "KeyboardInterrupt" in capfd.readouterr().err
    assert entries(tmp_path) == ["molecule.npz"]


def test_a_running_conversion_is_left_alone(write_npz, tmp_path, monkeypatch):
    source, out = write_npz(), tmp_path / "out"
    process = start_conversion_that_stalls(source, out, monkeypatch)
    convert(source, out, sizes=SIZES)
    assert staging._staging_path(out, process.pid).is_dir()
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)


def test_existing_output_is_kept_without_overwrite(write_npz, tmp_path):
    source, out = write_npz(), tmp_path / "out"
    convert(source, out, sizes=SIZES, seed=1)
    before = np.load(out / "train" / "metadata.npz")["source_index"]
    with pytest.raises(InputError, match="out exists; choose another place, or give --overwrite"):
        convert(source, out, sizes=SIZES, seed=2)
    np.testing.assert_array_equal(np.load(out / "train" / "metadata.npz")["source_index"], before)


def test_overwrite_replaces_only_when_complete(write_npz, arrays, tmp_path):
    out = tmp_path / "out"
    convert(write_npz(arrays), out, sizes=SIZES, seed=1)
    arrays["E"][:] = np.nan
    broken = write_npz(arrays, name="broken.npz")
    with pytest.raises(InputError, match="NaN"):
        convert(broken, out, sizes=SIZES, seed=2, overwrite=True)
    assert read_manifest(out / "train").seed == 1
    convert(write_npz(), out, sizes={"train": 4}, seed=3, overwrite=True)
    assert read_manifest(out / "train").seed == 3
    assert entries(tmp_path) == ["broken.npz", "molecule.npz", "out"]
    assert entries(out) == ["train"]


def test_overwrite_does_not_remove_what_it_did_not_write(write_npz, tmp_path):
    source, out = write_npz(), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not something ocp-dc has written"):
        convert(source, out, sizes=SIZES, overwrite=True)
    assert (out / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not something ocp-dc has written"):
        convert(source, tmp_path / "file", sizes=SIZES, overwrite=True)


def test_a_kill_between_the_two_renames_loses_nothing(write_npz, tmp_path):
    source, out = write_npz(), tmp_path / "out"
    convert(source, out, sizes=SIZES, seed=1)
    out.rename(staging._retired_path(out))
    with pytest.raises(InputError, match="exists"):
        convert(source, out, sizes=SIZES, seed=2)
    assert read_manifest(out / "train").seed == 1
    assert entries(tmp_path) == ["molecule.npz", "out"]


def test_full_lmdb(write_npz, tmp_path, monkeypatch):
    source = write_npz()
    monkeypatch.setattr(lmdb, "MAP_SIZE", 1 << 15)
    with pytest.raises(InputError, match=r"out could not be written: .*MDB_MAP_FULL.*nothing was left"):
        convert(source, tmp_path / "out", sizes=SIZES)
    assert entries(tmp_path) == ["molecule.npz"]


def test_full_disk(write_npz, tmp_path, monkeypatch):
    source = write_npz()

    def write_to_full_disk(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(molecule_conversion, "write_npz", write_to_full_disk)
    with pytest.raises(InputError, match=r"No space left on device; nothing was left there. Check the free space"):
        convert(source, tmp_path / "made" / "out", sizes=SIZES)
    assert entries(tmp_path) == ["molecule.npz"]
    assert sample_path().is_file()


def test_a_symbolic_link_stays(write_npz, tmp_path):
    source = write_npz()
    convert(source, tmp_path / "real", sizes=SIZES, seed=1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    convert(source, tmp_path / "link", sizes=SIZES, seed=2, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert read_manifest(tmp_path / "real" / "train").seed == 2
