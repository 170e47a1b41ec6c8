#!/usr/bin/env python
"""Prints what share of ocp_dc's lines and branches the tests executed, and the files below the least.

    scripts/test.sh --cov --cov-report=
    python scripts/coverage_report.py                         # status 1 if it is too little

``fail_under`` of coverage itself is of lines and branches together.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import coverage

LEAST = 92
"""Per cent of lines."""


def main() -> int:
    measured = coverage.Coverage()
    measured.load()
    with tempfile.TemporaryDirectory() as folder:
        measured.json_report(outfile=f"{folder}/coverage.json")
        told = json.loads((Path(folder) / "coverage.json").read_text())
    for file, of_file in told["files"].items():
        if lines(of_file["summary"]) < LEAST:
            print(f"{lines(of_file['summary']):5.1f} % of {file}; not line {missing(of_file['missing_lines'])}")
    total = told["totals"]
    branches = 100 * total["covered_branches"] / max(total["num_branches"], 1)
    print(f"covered: {lines(total):.1f} % of {total['num_statements']} lines, {branches:.1f} % of the branches")
    if lines(total) < LEAST:
        print(f"coverage: less than {LEAST} % of the lines", file=sys.stderr)
        return 1
    return 0


def lines(summary: dict) -> float:
    statements = summary["num_statements"]
    return 100 * summary["covered_lines"] / statements if statements else 100.0


def missing(numbers: list[int]) -> str:
    """``3, 7-9``"""
    told: list[str] = []
    start = None
    for number, following in zip(numbers, [*numbers[1:], None], strict=True):
        start = number if start is None else start
        if following != number + 1:
            told.append(f"{start}" if start == number else f"{start}-{number}")
            start = None
    return ", ".join(told)


if __name__ == "__main__":
    sys.exit(main())
