"""What a worker makes of each way in which its work can end."""

from __future__ import annotations

import json
import math
import os
import re

import pytest
from faults import size_limit

from ocp_dc.errors import DivergedError, InputError
from ocp_dc.runs import worker
from ocp_dc.runs.records import read_record, write_description, write_record
from ocp_dc.runs.worker import Quantity, Work

RESULT = Work({"weight": Quantity(3.0, "kg"), "share": Quantity(0.5)}, seconds=7.0, device="CPU")


@pytest.fixture
def folder(tmp_path):
    write_record(tmp_path / "experiment.json", {"work": f"{__name__}:weigh", "steps": 100, "log": "log.jsonl"})
    return tmp_path


@pytest.fixture
def weigh(monkeypatch):
    """Makes the work do what is given, and keeps what it was called with."""

    def do(result: Work | BaseException) -> list:
        calls = []

        def function(*call):
            calls.append(call)
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setattr(worker, "_function", lambda name: function)
        return calls

    return do


def test_finished(folder, weigh):
    calls = weigh(RESULT)
    worker.work(folder)
    assert calls == [(folder, read_record(folder / "experiment.json"))]
    assert read_record(folder / "result.json") == {
        "status": "finished",
        "step": 100,
        "message": None,
        "quantities": {"weight": {"value": 3.0, "unit": "kg"}, "share": {"value": 0.5, "unit": ""}},
        "seconds": 7.0,
        "device": "CPU",
    }


def test_diverged(folder, weigh):
    weigh(DivergedError("loss not finite at step 42", 42))
    worker.work(folder)
    result = read_record(folder / "result.json")
    assert (result["status"], result["step"], result["message"]) == ("diverged", 42, "loss not finite at step 42")


def test_quantities_that_are_not_finite_are_divergence_too(folder, weigh):
    weigh(Work({"weight": Quantity(math.nan, "kg")}))
    worker.work(folder)
    result = json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert (result["status"], result["step"]) == ("diverged", 100)
    assert "quantities" not in result


def test_an_error_is_recorded(folder, weigh, capsys):
    weigh(InputError("dataset.train.src is gone"))
    (folder / "log.jsonl").write_text('{"step": 30}\n')
    worker.work(folder)
    result = read_record(folder / "result.json")
    assert (result["status"], result["step"]) == ("failed", 30)
    assert result["message"] == "InputError: dataset.train.src is gone"
    assert "Traceback" in capsys.readouterr().err


def test_being_stopped_leaves_no_result(folder, weigh):
    weigh(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        worker.work(folder)
    assert not (folder / "result.json").exists()


def test_a_result_that_cannot_be_written_is_told_by_the_exit_status(folder, weigh, capsys):
    weigh(Work({"weight": Quantity(1.5, "kg")}))
    with size_limit(10):
        assert worker.main(folder) == os.EX_IOERR
    assert re.search(r"ocp-dc: error: \S+ could not be written: File too large", capsys.readouterr().err)
    assert not (folder / "result.json").exists()
    assert worker.main(folder) == 0


@pytest.mark.parametrize("name", ["json:nothing", "no_such_module:work", "json", ""])
def test_work_that_is_no_function_is_a_failure_that_names_it(folder, name):
    write_record(folder / "experiment.json", {"work": name, "steps": 100, "log": "log.jsonl"})
    worker.work(folder)
    result = read_record(folder / "result.json")
    assert result["status"] == "failed"
    assert f"work is {name!r}, which is not module:function" in result["message"]


def test_a_description_without_a_key_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"experiment.json would lack log, cell, seed, spoons; ocp_dc.runs says"):
        write_description(tmp_path, {"work": "kettle.brewing:brew", "steps": 20}, identity=["spoons"])
    assert not any(tmp_path.iterdir())
