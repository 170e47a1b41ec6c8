"""A report as Markdown, as one HTML file, or as text for a terminal."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ocp_dc.terminal import format_table

MISSING = "–"
STYLE = """
body { font-family: sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 0.9em; margin: 1em 0; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ccc; padding: 0.3em 0.7em; text-align: left; white-space: nowrap }
td { vertical-align: top } .paper { color: #777 } .same { color: #00714f } .other { color: #b34700 }
.highlighted { background: #f2f6fa } img { max-width: 100%; display: block }
"""


@dataclass(frozen=True)
class Value:
    """An error in a cell.

    Attributes:
        ours: the number, with its deviation and remarks.
        best: whether it is the better of its pair.
        paper: the paper's number; None where it reports none.
        agrees: whether the direction is the paper's; None where that cannot be said.
    """

    ours: str
    best: bool = False
    paper: str | None = None
    agrees: bool | None = None

    @property
    def parenthesis(self) -> str:
        return "" if self.paper is None else f" ({self.paper})"

    @property
    def mark(self) -> str:
        return {None: "", True: " ✓", False: " ✗"}[self.agrees]


@dataclass(frozen=True)
class Line:
    """A line of a table: its labels, then cells of one value above another; highlighted where it is set apart."""

    labels: tuple[str, ...]
    cells: tuple[tuple[Value, ...], ...] = ()
    highlighted: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure as PNG; ``name`` is its file name without the ending."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """A table with what is to be said about it, and pictures.

    Attributes:
        legend: of the cells, with ``{best}`` for how the best is marked; empty where there is none.
        folded: whether the pictures are shown only when asked for.
    """

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[Line, ...] = ()
    legend: str = ""
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    folded: bool = False


def format_number(value: float) -> str:
    """Two decimals as in the paper; two digits of small numbers, none after the point of large ones."""
    if math.isnan(value):
        return "NaN"
    if abs(value) >= 1e4:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:#.2g}" if 0 < abs(value) < 0.1 else f"{value:.2f}"


def format_duration(seconds: float) -> str:
    """To two units, such as ``3 h 20 min``."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes % (24 * 60) // 60} h"


def to_markdown(title: str, introduction: Sequence[str], sections: Sequence[Section], figures: str) -> str:
    """GitHub Markdown; ``figures`` is the folder of the pictures as the file names it."""
    lines = [f"# {title}", *introduction]
    for section in sections:
        lines.append(f"## {section.title}")
        if section.rows:
            rows = [section.header, ["---"] * len(section.header)]
            rows += [[*map(_escape, row.labels), *_cells(row, _markdown_value, "<br>")] for row in section.rows]
            lines.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        lines += map(_escape, _remarks(section, "in bold"))
        files = [(picture, f"{figures}/{picture.name}.png") for picture in section.pictures]
        if section.folded:
            lines.append("\n".join(f"- [{picture.caption}]({file})" for picture, file in files))
        else:
            lines += [f"![{picture.caption}]({file})" for picture, file in files]
    return "\n\n".join(line for line in lines if line) + "\n"


def to_html(title: str, introduction: Sequence[str], sections: Sequence[Section]) -> str:
    """One file that needs no other: the pictures are in it."""
    body = [f"<h1>{html.escape(title)}</h1>", *map(_paragraph, introduction)]
    for section in sections:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.rows:
            header = "".join(f"<th>{html.escape(name)}</th>" for name in section.header)
            body += ["<table>", f"<tr>{header}</tr>", *map(_html_row, section.rows), "</table>"]
        body += map(_paragraph, _remarks(section, "in bold"))
        for picture in section.pictures:
            caption = html.escape(picture.caption)
            source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
            image = f'<img alt="{caption}" src="{source}">'
            if section.folded:
                body.append(f"<details><summary>{caption}</summary>{image}</details>")
            else:
                body.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return "\n".join(['<!DOCTYPE html><html lang="en"><head>', head, "</head><body>", *body, "</body></html>\n"])


def to_text(section: Section) -> str:
    """For a terminal; pictures are left out, and the best is in brackets."""
    lines = [section.title, ""]
    blocks = [[[name] for name in section.header]]
    blocks += [[*([label] for label in row.labels), *(_lines(cell) for cell in row.cells)] for row in section.rows]
    lines.append(
        format_table(
            [
                [cell[number] if number < len(cell) else "" for cell in block]
                for block in blocks
                for number in range(max(map(len, block), default=0))
            ]
        )
    )
    return "\n".join([*lines, "", *_remarks(section, "in [brackets]")])


def _remarks(section: Section, best: str) -> list[str]:
    return [*([section.legend.format(best=best)] if section.legend else []), *section.notes]


def _cells(row: Line, render: Callable[[Value], str], line_break: str) -> list[str]:
    return [line_break.join(map(render, cell)) for cell in row.cells]


def _escape(text: str) -> str:
    return text.replace("*", "\\*")


def _markdown_value(value: Value) -> str:
    ours = f"**{value.ours}**" if value.best else value.ours
    return f"{ours}{value.parenthesis}{value.mark}"


def _html_row(row: Line) -> str:
    kind = ' class="highlighted"' if row.highlighted else ""
    cells = "".join(f"<td>{cell}</td>" for cell in (*map(html.escape, row.labels), *_cells(row, _html_value, "<br>")))
    return f"<tr{kind}>{cells}</tr>"


def _html_value(value: Value) -> str:
    ours = f"<b>{html.escape(value.ours)}</b>" if value.best else html.escape(value.ours)
    mark = f'<span class="{"same" if value.agrees else "other"}">{value.mark}</span>' if value.mark else ""
    return f'{ours}<span class="paper">{value.parenthesis}</span>{mark}'


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _lines(cell: tuple[Value, ...]) -> list[str]:
    return [f"{f'[{value.ours}]' if value.best else value.ours}{value.parenthesis}{value.mark}" for value in cell]
