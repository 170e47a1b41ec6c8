"""`metrics.jsonl`: one JSON object a line, beside fairchem's own loggers, for plots and scripts."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ocp_dc.files import replace_text, told_where


class MetricsLog:
    """Appends records to a file; a resumed run first drops what was logged after the step it resumes from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop_after(self, step: int) -> None:
        """Forget records of later steps, and a last line that a crash cut short."""
        if not self.path.exists():
            return
        kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
        replace_text(self.path, "".join(f"{line}\n" for line in kept))

    def write(self, split: str, step: int, values: dict[str, float]) -> None:
        """Values that are not finite are written as null, so that every line is valid JSON."""
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        with told_where(self.path), self.path.open("a") as file:
            file.write(json.dumps({"split": split, "step": step, **finite}) + "\n")


def read_metrics(path: Path) -> list[dict]:
    """All records of a `metrics.jsonl`, in the order written."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return math.inf
