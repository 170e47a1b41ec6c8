"""Does the work of one run in a process of its own: `python -m ocp_dc.runs.worker FOLDER`.

Whoever starts it holds the run's lock and hands it on (see running.py).
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ocp_dc.errors import DivergedError, InputError
from ocp_dc.runs.records import last_logged_step, read_record, write_record
from ocp_dc.signals import EndedBySignal, ended_by_signals


@dataclass(frozen=True)
class Quantity:
    """A number that was measured, and its unit (empty where it has none)."""

    value: float
    unit: str = ""


@dataclass(frozen=True)
class Work:
    """What a run came to.

    Attributes:
        quantities: by name, in the order in which they are shown.
        seconds: that all steps took; None where it was not measured.
        device: that they were taken on, by its name; None where that does not matter.
    """

    quantities: dict[str, Quantity]
    seconds: float | None = None
    device: str | None = None


def work(folder: Path) -> None:
    """Brings the run described in ``folder/experiment.json`` to its ``result.json``, from wherever it stands.

    Divergence, and an error, are results too; being killed is none, and the next worker goes on.
    """
    write_record(folder / "result.json", _result(folder, read_record(folder / "experiment.json")))


def _result(folder: Path, description: dict) -> dict:
    steps = description["steps"]
    try:
        done: Work = _function(description["work"])(folder, description)
        if not all(math.isfinite(quantity.value) for quantity in done.quantities.values()):
            raise DivergedError(f"not finite: {done.quantities}", steps)
    except DivergedError as error:
        return {"status": "diverged", "step": error.step, "message": str(error), "seconds": None}
    except Exception as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        step = last_logged_step(folder / description["log"])
        return {"status": "failed", "step": step, "message": message, "seconds": None}
    return {"status": "finished", "step": steps, "message": None, **asdict(done)}


def _function(name: str) -> Callable[[Path, dict], Work]:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"experiment.json: work is {name!r}, which is not module:function ({error})") from error


def _leave_preemption_to_submitit() -> None:
    """SLURM signals every process of a job; the one that submitit runs puts the job back in the queue and ends us."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def main(folder: Path) -> int:
    """The process's exit status."""
    try:
        with ended_by_signals():
            work(folder)
    except EndedBySignal as ended:
        return ended.status
    except (InputError, OSError) as error:  # those of its work are a result; this is of reading what it is, or of that
        with suppress(OSError):
            print(f"ocp-dc: error: {error}", file=sys.stderr)
        return os.EX_IOERR
    finally:
        logging.shutdown()
    return 0


if __name__ == "__main__":
    if "SUBMITIT_EXECUTOR" in os.environ:
        _leave_preemption_to_submitit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    status = main(Path(sys.argv[1]))
    if status == os.EX_IOERR:
        os._exit(status)  # in order it would end with another, as what is left to be printed cannot be either
    sys.exit(status)
