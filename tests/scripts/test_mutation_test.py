"""Which changes are made to a module; that tests are run on them is left to the page that documents the script."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "mutation_test.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("mutation_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutation_test"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutation_test"]


CHANGES = {
    "x <= 3": {"x < 3", "x <= 4"},
    "a @ b": {"b @ a"},
    "a and b and c": {"b and c", "a and c", "a and b"},
    "not a": {"a"},
    "-1": {"-2"},
    "f(a, b, dim=0)": {"f(b, a, dim=0)", "f(a, b)", "f(a, b, dim=1)", "pass"},
    "isinstance(a, b)": {"pass"},
    "if f:\n    x = 0.5": {"if not f:", "x = 1.0"},
    "[a for a in b if a]": {"[a for a in b]"},
    "def f(x: int = 1) -> int:\n    'Says nothing.'\n    return x": {"def f(x: int=2) -> int:", "return"},
    "def f():\n    raise Wrong('words', 1)": {"pass"},
    "a.x = 'text'": {"pass", "a.x = 'textXX'"},
    "logging.warning('words')": {"pass"},
    "with f():\n    x += 1": {"if True:", "x -= 1", "pass", "x += 2"},
}


@pytest.mark.parametrize("source", CHANGES)
def test_changes_of_a_line(script, source):
    lines = set()
    for number in range(len(script.changes_of(ast.parse(source)))):
        tree = ast.parse(source)
        script.compiled(tree, script.changes_of(tree)[number], "made.py")
        lines |= set(ast.unparse(tree).splitlines()) - set(ast.unparse(ast.parse(source)).splitlines())
    assert {line.strip() for line in lines} == CHANGES[source]


def test_decorators_are_left_out(script):
    (change,) = script.changes_of(ast.parse("@g\ndef f():\n    return"))
    assert str(change) == "2: @g  →  def f():"


def test_annotations_change_where_pydantic_reads_them(script):
    source = "class Settings:\n    scope: Literal['all'] | None = Field(None, description='words')"
    assert [str(change) for change in script.changes_of(ast.parse(source))] == []
    changes = script.changes_of(ast.parse(f"from pydantic import Field\n{source}"))
    assert [str(change) for change in changes] == [
        "3: Literal['all'] | None  →  Literal['all']",
        "3: 'all'  →  'allXX'",
    ]
