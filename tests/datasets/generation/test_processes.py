from __future__ import annotations

import os

import pytest

from ocp_dc.datasets.generation.processes import Workers, limit_threads
from ocp_dc.errors import InputError


def write_after(folder, chain, index):
    """Fails where the task before it in the chain has not been done."""
    if index and not (folder / f"{chain}_{index - 1}").exists():
        raise AssertionError(f"{chain}_{index} before {index - 1}")
    (folder / f"{chain}_{index}").write_text(os.environ.get("OMP_NUM_THREADS", ""))


@pytest.mark.parametrize("jobs", [0, 2])
def test_tasks_of_a_chain_follow_each_other(tmp_path, jobs):
    done = []
    chains = [[(tmp_path, chain, index) for index in range(3)] for chain in "abc"] + [[]]
    with Workers(jobs) as workers:
        workers.run_chains(write_after, chains, lambda *task: done.append(task))
    assert sorted(done) == [task for chain in chains for task in chain]
    assert len(list(tmp_path.iterdir())) == 9


@pytest.mark.parametrize("jobs", [0, 2])
def test_the_first_error_ends_the_run(tmp_path, jobs):
    chain = [(tmp_path, "a", 0), (tmp_path, "a", 2), (tmp_path, "a", 3)]
    with Workers(jobs) as workers, pytest.raises(AssertionError, match="a_2 before 1"):
        workers.run_chains(write_after, [chain], lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["a_0"]


def test_threads_are_limited_unless_the_user_chose(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    limit_threads(0)
    assert os.environ["OMP_NUM_THREADS"] == "1"
    limit_threads(4)
    assert os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("OMP_NUM_THREADS")


def test_workers_have_not_loaded_torch():
    with Workers(1) as workers:
        assert workers.call(eval, "'torch' in __import__('sys').modules") is False
    with Workers(0) as workers:
        assert workers.call(os.getpid) == os.getpid()


def test_a_process_that_is_killed_is_an_error_that_says_what_to_do():
    with Workers(1) as workers, pytest.raises(InputError, match=r"a process of --jobs ended.*same command goes on"):
        workers.call(os._exit, 1)
