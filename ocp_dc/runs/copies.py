"""Runs without what they were trained with: what a report is made from, a few kilobytes each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ocp_dc.errors import InputError
from ocp_dc.files import replace_text
from ocp_dc.runs.records import DONE, read_record, write_record
from ocp_dc.runs.results import RunResult

# what a copy has instead of the folder that it was copied from
ORIGIN = "OUT"
# of whatever installation they were read from, in quotes where its path has a space
SHIPPED_CONFIGS = re.compile(r"(?<=[\s=]')[^']*/ocp_dc/configs/|[^\s='\"]*/ocp_dc/configs/")


def copy_runs(runs: Iterable[RunResult], out: Path, to: Path, overwrite: bool) -> list[RunResult]:
    """Copies the description, the result and the log of each run that is done, but for the lines of its training loss.

    ``to`` is then the ``out`` of :func:`ocp_dc.runs.results.read_results` and of ``ocp-dc reproduce``, which does not
    repeat its runs. Runs that are there already from another folder stay. In descriptions, the path of ``out`` is
    ``OUT``, and the configs of this package have their names.

    Args:
        runs: of ``out``, done or not.
        out: their folder.
        to: a folder, made if it is not there.
        overwrite: whether a run that has other results in ``to`` is replaced.

    Returns:
        Those that are in ``to`` now.

    Raises:
        InputError: ``to`` is no folder, or is ``out``; or it has other results of a run, and ``overwrite`` is False.
            Nothing is written then.
    """
    if to.resolve() == out.resolve() or (to.exists() and not to.is_dir()):
        raise InputError(f"--to {to}: give a folder for the copies, other than that of the runs")
    done = [run for run in runs if run.status in DONE]
    if not overwrite:
        for run in done:
            earlier = read_record(to / "runs" / run.name / "result.json")
            if earlier not in (None, run.record):
                raise InputError(
                    f"{to / 'runs' / run.name} has another result than {run.folder}; name another folder with --to, "
                    "or give --overwrite"
                )
    for run in done:
        folder = to / "runs" / run.name
        write_record(folder / "experiment.json", _without_paths(run.description, out))
        log = folder / run.description["log"]
        log.parent.mkdir(parents=True, exist_ok=True)
        replace_text(log, "".join(f"{line}\n" for line in run.log_lines() if json.loads(line).get("split") != "train"))
        # last: a run that has a result is complete
        write_record(folder / "result.json", run.record)
    return done


def _without_paths(value: Any, out: Path) -> Any:
    """A piece of a description, without what is of one machine."""
    if isinstance(value, dict):
        return {key: _without_paths(each, out) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each, out) for each in value]
    if isinstance(value, str):
        return SHIPPED_CONFIGS.sub("", value.replace(f"{out.resolve()}", ORIGIN))
    return value
