"""Tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text in which what a terminal obeys, or cannot show, is written as an escape, such as ``\\x1b``."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns, for a terminal."""
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def table(columns: Sequence[Mapping[str, str]]) -> str:
    """Labels down the left side, then a column each; a value that all columns share is printed once.

    Args:
        columns: label to text, with the same labels in each; the first one's order is the table's.
    """
    label_width = max(map(len, columns[0]))
    rows = {label: [printable(column[label]) for column in columns] for label in columns[0]}
    differing = [values for values in rows.values() if len(set(values)) > 1]
    widths = [max(map(len, values)) for values in zip(*differing, strict=True)]
    lines = []
    for label, values in rows.items():
        if values in differing:
            cells = [value.rjust(width) for value, width in zip(values, widths, strict=True)]
        else:
            cells = values[:1]
        lines.append("  ".join([label.ljust(label_width), *cells]))
    return "\n".join(lines)
