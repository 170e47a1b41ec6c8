"""The JSON files of a run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ocp_dc.errors import InputError
from ocp_dc.files import replace_text

LOCK_NAME = "lock"
# the states of a result that a run is not repeated for
DONE = ("finished", "diverged")
REQUIRED = ("work", "steps", "log", "cell", "seed")
TAIL_BYTES = 4096


def read_record(path: Path) -> dict | None:
    """A JSON file, None where there is none.

    Raises:
        InputError: it is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); remove {path.parent} and start again") from error


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"it has {word}, which is no number")


def write_record(path: Path, record: dict) -> None:
    """Writes a JSON file that is there completely or not at all, even if several processes write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def is_done(result: dict | None) -> bool:
    """Whether a run with this result is not repeated. Those of the first versions, without quantities, are."""
    return result is not None and (result["status"] == "diverged" or "quantities" in result)


def write_description(folder: Path, description: dict, identity: Sequence[str]) -> None:
    """Writes ``experiment.json``.

    Args:
        folder: of the run.
        description: what it will say.
        identity: the keys that may not differ from those of a run that is there.

    Raises:
        InputError: the folder holds another run, or the description lacks a key.
    """
    missing = [key for key in dict.fromkeys((*REQUIRED, *identity)) if key not in description]
    if missing:
        raise InputError(f"{folder}: experiment.json would lack {', '.join(missing)}; ocp_dc.runs says what it has")
    path = folder / "experiment.json"
    earlier = read_record(path)
    for key in identity:
        # None where an earlier version did not have the key
        if earlier and earlier.get(key) != description[key]:
            raise InputError(
                f"{folder} is of a run with {key} {json.dumps(earlier.get(key))}, not {json.dumps(description[key])}; "
                "choose another --out, or remove that folder"
            )
    write_record(path, description)


def last_logged_step(log: Path) -> int:
    """The last step in a file of JSON lines, 0 where there is none; only the end of the file is read."""
    try:
        with log.open("rb") as file:
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
