"""The fenced blocks of a page of documentation, with what comments before them say about running them.

On the lines before a fence:

- ``<!-- not run: REASON -->``: it is not run.
- ``<!-- slow: REASON -->``: it is run by the slow tests only.
- ``<!-- small: OLD => NEW -->``: NEW takes the place of OLD when it is run; there may be several.
- ``<!-- file: PATH -->``: it is written to this file rather than run.
- ``<!-- insert: PATH after LINE -->``: it is written into this file, below the first line that begins so.
- ``<!-- replace: PATH from LINE -->``: it takes the place of the first line that begins so.

Before the first heading of a page, ``<!-- given: … -->`` says what is in the folder that it is run in (:data:`GIVEN`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

RUN = ("bash", "python", "yaml")
# an output; part of a file
SHOWN = ("text", "json")
EDITS = {"file": "(.+)", "insert": "(.+) after (.+)", "replace": "(.+) from (.+)"}
MARKERS = ("not run", "slow", "small", *EDITS)
GIVEN = ("trained model", "clone", "clone to change")

FENCE = re.compile(r"^( *)(```+)(.*)$")
COMMENT = re.compile(r"^ *<!-- (.*) -->$")


class PageError(Exception):
    """A page that breaks the conventions above; the message begins with file and line."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: the file it is in.
        line: of its opening fence, from 1.
        language: the fence's info string.
        code: without the fence's indentation.
        not_run: why it is not run; None if it is.
        slow: why only the slow tests run it; None if all do.
        small: what is replaced when it is run.
        edit: ``(marker, path, line)`` where it is part of a file; line is empty for a whole one.
    """

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None = None
    slow: str | None = None
    small: list[tuple[str, str]] = field(default_factory=list)
    edit: tuple[str, str, str] | None = None

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def is_run(self) -> bool:
        return (self.language in RUN and self.not_run is None) or self.edit is not None

    @property
    def small_code(self) -> str:
        """The code with what ``small`` replaces."""
        code = self.code
        for old, new in self.small:
            if old not in code:
                raise PageError(f"{self.place}: there is no {old!r} in the block")
            code = code.replace(old, new)
        return code


@dataclass(frozen=True)
class Page:
    """A page: its blocks, and what is given."""

    path: Path
    blocks: list[Block]
    given: list[str]


def read_page(path: Path) -> Page:
    """The blocks of a Markdown file.

    Raises:
        PageError: a block without a language or with one of no use here, or a comment that no convention knows or that
            stands at another place.
    """
    given, blocks, comments = [], [], []
    # an empty line at the end, for comments there
    lines = iter(enumerate([*path.read_text("utf-8").splitlines(), ""], start=1))
    for number, line in lines:
        if comment := COMMENT.match(line):
            comments.append((number, comment[1]))
            continue
        if fence := FENCE.match(line):
            blocks.append(_block(path, number, fence, lines, comments))
        elif comments and not blocks and not given:
            given = [_given(path, *comment) for comment in comments]
        elif comments:
            raise PageError(f"{path.name}:{comments[0][0]}: this comment is not before a block: {comments[0][1]}")
        comments = []
    return Page(path, blocks, given)


def _given(path: Path, number: int, comment: str) -> str:
    marker, _, what = comment.partition(": ")
    if marker != "given" or what not in GIVEN:
        raise PageError(f"{path.name}:{number}: {comment!r} is not 'given: ' and one of {', '.join(GIVEN)}")
    return what


def _block(
    path: Path, number: int, fence: re.Match, lines: Iterator[tuple[int, str]], comments: list[tuple[int, str]]
) -> Block:
    indent, ticks, language = fence.groups()
    code = []
    for _, line in lines:
        if line.strip() == ticks:
            break
        code.append(line.removeprefix(indent))
    else:
        raise PageError(f"{path.name}:{number}: the block has no end")
    # in braces: Sphinx's own
    if language not in (*RUN, *SHOWN) and not language.startswith("{"):
        raise PageError(f"{path.name}:{number}: the language is {language!r}; give {', '.join((*RUN, *SHOWN))}")
    block = Block(path, number, language, dedent("\n".join(code)) + "\n", **_markers(path, comments))
    if block.language not in RUN and (block.not_run or block.slow or block.small):
        raise PageError(f"{block.place}: blocks of {language} are not run, so nothing need be said about it")
    return block


def _markers(path: Path, comments: list[tuple[int, str]]) -> dict:
    found: dict = {"small": []}
    for number, comment in comments:
        marker, _, value = comment.partition(": ")
        place = f"{path.name}:{number}"
        if marker not in MARKERS or not value:
            raise PageError(f"{place}: {comment!r} is not one of {', '.join(MARKERS)} with its value")
        if marker == "small":
            old, arrow, new = value.partition(" => ")
            if not arrow:
                raise PageError(f"{place}: {comment!r} has no ' => '")
            found["small"].append((old, new))
        elif marker in EDITS:
            parts = re.fullmatch(EDITS[marker], value)
            if not parts:
                raise PageError(f"{place}: {comment!r} does not say where; {EDITS[marker]}")
            found["edit"] = (marker, *parts.groups(), "")[:3]
        else:
            found[marker.replace(" ", "_")] = value
    return found
