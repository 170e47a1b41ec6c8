"""The JSON files of a run's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ocp_dc.errors import InputError
from ocp_dc.files import replace_text

LOCK_NAME = "lock"
# the states of a result that a run is not repeated for
DONE = ("finished", "diverged")
# the host's --timestamp-id in every run's folder
RUN_ID = "train"
TAIL_BYTES = 4096


def read_record(path: Path) -> dict | None:
    """A JSON file, None where there is none.

    Raises:
        InputError: it is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove {path.parent} and start again") from error


def write_record(path: Path, record: dict) -> None:
    """Writes a JSON file that is there completely or not at all, even if several processes write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def is_done(folder: Path) -> bool:
    """Whether a run has a result that it is not repeated for."""
    result = read_record(folder / "result.json")
    return result is not None and result["status"] in DONE


def metrics_path(folder: Path) -> Path:
    """``metrics.jsonl`` of a run's folder."""
    return folder / "logs" / "tensorboard" / RUN_ID / "metrics.jsonl"


def checkpoint_path(folder: Path) -> Path:
    """The checkpoint of a run's folder."""
    return folder / "checkpoints" / RUN_ID / "checkpoint.pt"


def last_logged_step(folder: Path) -> int:
    """The last step in ``metrics.jsonl``, 0 where there is none; only the end of the file is read."""
    try:
        with metrics_path(folder).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return 0
    # the last piece is empty or a line that is being written, the first may have been cut
    for line in reversed(lines[:-1]):
        try:
            return json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return 0
