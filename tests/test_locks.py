"""Locks on files."""

import multiprocessing
import subprocess
import sys

from ocp_dc.locks import file_lock, is_locked


def test_a_forked_process_does_not_hold_a_lock_of_its_parent(tmp_path):
    forking = multiprocessing.get_context("fork")
    begun, end = forking.Event(), forking.Event()

    def work() -> None:
        begun.set()
        end.wait()

    with file_lock(tmp_path / "lock"):
        worker = forking.Process(target=work)
        worker.start()
        begun.wait()
        assert is_locked(tmp_path / "lock")
    assert worker.is_alive()
    assert not is_locked(tmp_path / "lock")
    end.set()
    worker.join()


def test_a_program_that_is_given_it_does(tmp_path):
    with file_lock(tmp_path / "lock") as lock:
        program = subprocess.Popen(
            [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()]
        )
    assert is_locked(tmp_path / "lock")
    program.communicate(b"\n")
    assert not is_locked(tmp_path / "lock")
