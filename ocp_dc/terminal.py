"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns, for a terminal."""
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
    rows = {label: [column[label] for column in columns] for label in columns[0]}
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
