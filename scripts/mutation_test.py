#!/usr/bin/env python
"""Changes one thing in a module, runs its tests, and says which changes no test notices.

    python scripts/mutation_test.py rescaling                 # all changes; activations, edges, … see TESTS
    python scripts/mutation_test.py edges --sample 200        # so many, drawn at random
    python scripts/mutation_test.py edges --only 12 57        # some, by their numbers

What the tests import is imported once. Each change is then compiled in a fork, which runs the tests that execute the
changed line, the quickest first, until one fails. A number of a change is the same as long as the module is.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

REPOSITORY = Path(__file__).parent.parent
TESTS = {
    "activations": ["tests/test_activations.py"],
    "rescaling": ["tests/test_rescaling.py", "tests/test_properties.py"],
    "edges": ["tests/test_edges.py", "tests/models/test_fixed_edges.py", "tests/test_properties.py"],
    "transforms": ["tests/test_transforms.py"],
    "evaluation": ["tests/test_evaluation.py", "tests/test_prediction_commands.py", "tests/test_bad_inputs.py"],
    "evaluation_details": ["tests/test_evaluation_details.py"],
    "configuration.schema": [
        "tests/configuration",
        "tests/test_documentation.py::test_config_keys_are_those_of_the_configs",
    ],
    "configuration.checking": ["tests/configuration"],
}
# their examples differ from run to run
LEFT_OUT = ("tests/configuration/test_fuzz.py",)
# whose arguments in another order are an error at once
WITH_AN_ORDER = ("isinstance", "issubclass", "getattr", "hasattr", "setattr", "partial")
SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


# --- changes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One node of a module's syntax tree, what takes its place, and the line on which its statement begins."""

    node: ast.AST
    new: ast.AST
    statement: int

    @property
    def line(self) -> int:
        return getattr(self.node, "target", self.node).lineno  # a comprehension has no line of its own

    @property
    def lines(self) -> set[int]:
        last = self.node.end_lineno if isinstance(self.node, ast.expr) else self.line
        return {self.statement, *range(self.line, last + 1)}

    def __str__(self) -> str:
        return f"{self.line}: {_shown(self.node)}  →  {_shown(self.new)}"


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node).partition("\n")[0]
    return text if len(text) <= 90 else f"{text[:89]}…"


def changes_of(tree: ast.Module) -> list[Change]:
    """All changes of a module, in the order of its lines.

    Docstrings, descriptions, and the words of errors and warnings stay as they are. So do annotations, but where
    pydantic reads them.
    """
    typed = any(isinstance(node, ast.ImportFrom) and node.module == "pydantic" for node in ast.walk(tree))
    changes = (Change(node, new, line) for node, line in _nodes(tree, typed, 0) for new in _instead_of(node))
    return sorted(changes, key=lambda change: change.line)


def _nodes(node: ast.AST, typed: bool, statement: int) -> Iterator[tuple[ast.AST, int]]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    statement = node.lineno if isinstance(node, ast.stmt) else statement
    yield node, statement
    if isinstance(node, ast.Raise) or _is_call(node, "logging"):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") and not (typed and isinstance(node, ast.AnnAssign)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and getattr(child, "arg", None) != "description":
                yield from _nodes(child, typed, statement)


def _is_call(node: ast.AST, owner: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith(f"{owner}.")


def _instead_of(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(2 * value or 1.0)
        case ast.Constant(value=str(value)):
            yield ast.Constant(f"{value}XX")
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                yield _with(node, ops=[*operators[:index], SWAPPED[type(operator)](), *operators[index + 1 :]])
        case ast.BinOp(op=ast.MatMult()):
            yield _with(node, left=node.right, right=node.left)
        case ast.BinOp(op=ast.BitOr(), right=ast.Constant(value=None)):
            yield node.left
        case ast.BinOp() | ast.AugAssign() if type(node.op) in SWAPPED:
            yield _with(node, op=SWAPPED[type(node.op)]())
            if isinstance(node, ast.AugAssign):
                yield ast.Pass()
        case ast.BoolOp(values=values):
            for left_out in values:
                rest = [value for value in values if value is not left_out]
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield operand
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[_, *_]):
            yield _with(node, ifs=[])
        case ast.Call(args=arguments, keywords=keywords):
            apart = [each for each in arguments[:2] if not isinstance(each, ast.Starred)]
            if len(apart) == 2 and ast.unparse(node.func) not in WITH_AN_ORDER:
                yield _with(node, args=[arguments[1], arguments[0], *arguments[2:]])
            for keyword in keywords:
                if keyword.arg not in (None, "description"):
                    yield _with(node, keywords=[other for other in keywords if other is not keyword])
        case ast.Return(value=value) if value and not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(None)
        case ast.Raise() | ast.Continue() | ast.Break() | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield ast.Pass()
        case ast.With(items=[ast.withitem(optional_vars=None)], body=body):
            yield ast.If(ast.Constant(True), body, [])
        case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
            for decorator in decorators:
                yield _with(node, decorator_list=[other for other in decorators if other is not decorator])


def _with(node: ast.AST, **fields) -> ast.AST:
    return ast.copy_location(type(node)(**{**dict(ast.iter_fields(node)), **fields}), node)


class _Put(ast.NodeTransformer):
    def __init__(self, change: Change) -> None:
        self.change = change

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.copy_location(self.change.new, node) if node is self.change.node else self.generic_visit(node)


def compiled(tree: ast.Module, change: Change, file: str):
    """The code of the changed module; the tree is used up."""
    return compile(ast.fix_missing_locations(_Put(change).visit(tree)), file, "exec")


# --- running tests ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Covered:
    """Of a run without changes: for each line the tests that execute it, and how long each test takes."""

    tests_of_line: dict[int, list[str]]
    seconds: dict[str, float]

    def tests_of(self, lines: Iterable[int]) -> list[str]:
        """The quickest first; all, where a line is executed when the module is imported."""
        found = {test for line in lines for test in self.tests_of_line.get(line, [])}
        return sorted(self.seconds if "" in found else found, key=self.seconds.__getitem__)


class _Measured:
    """A pytest plugin: a coverage context, and a time, for each test."""

    def __init__(self, measuring: coverage.Coverage) -> None:
        self.measuring, self.seconds = measuring, {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        self.measuring.switch_context(item.nodeid)
        start = time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - start


class _Chosen:
    """A pytest plugin: these tests, in this order; before them those that stand for one that there is no longer."""

    def __init__(self, tests: list[str]) -> None:
        self.order = {test: place for place, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        gone = {_function(test) for test in self.order.keys() - {item.nodeid for item in items}}
        found = [item for item in items if item.nodeid in self.order or _function(item.nodeid) in gone]
        items[:] = sorted(found, key=lambda item: self.order.get(item.nodeid, -1))


def _function(test: str) -> str:
    """Of a test, without its parameters."""
    return test.partition("[")[0]


def run_tests(tests: list[str], plugin: object) -> int:
    """Pytest's exit status."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    quiet = ["-x", "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    left_out = [f"--ignore={file}" for file in LEFT_OUT]
    return int(pytest.main([*quiet, *left_out, *tests], plugins=[plugin]))


def forked(work: Callable[[], int], cpu_seconds: int) -> tuple[int, float]:
    """What ``work`` returns in a process of its own, -1 if it did not end in time; and the CPU seconds that it took."""
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        status = 1
        with contextlib.suppress(BaseException):
            status = work()
        os._exit(status)
    while not (ended := os.wait4(pid, os.WNOHANG))[0]:
        if time.monotonic() - start > 20 * cpu_seconds:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    _, status, usage = ended
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else -1, usage.ru_utime + usage.ru_stime


def measure(tests: list[str], file: Path) -> Covered:
    """Runs the tests of a module as it is, in a fork, and imports what they imported."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"

        def work() -> int:
            measuring = coverage.Coverage(data_file=None, include=[str(file)], config_file=False)
            measuring.start()
            status = run_tests(tests, plugin := _Measured(measuring))
            measuring.stop()
            contexts = measuring.get_data().contexts_by_lineno(str(file))
            told.write_text(json.dumps([contexts, plugin.seconds, list(sys.modules)]))
            return status

        status, _ = forked(work, 600)
        if status:
            sys.exit(f"the tests of {file} end with status {status} without any change: {' '.join(tests)}")
        contexts, seconds, modules = json.loads(told.read_text())
    for name in modules:
        if name.partition(".")[0] not in ("ocp_dc", "conftest", "__main__") and importable(name):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return Covered({int(line): tests for line, tests in contexts.items()}, seconds)


def importable(name: str) -> bool:
    """Whether it is a module that is installed, not one of the tests."""
    with contextlib.suppress(Exception):
        origin = importlib.util.find_spec(name).origin
        return origin is None or not Path(origin).is_relative_to(REPOSITORY)
    return False


class Changed(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module, whose code is given."""

    def __init__(self, name: str, file: Path, code) -> None:
        self.name, self.file, self.code = name, file, code

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self.file, loader=self) if name == self.name else None

    def get_code(self, name):
        return self.code

    def get_source(self, name):
        return None


def outcome(name: str, file: Path, tree: ast.Module, change: Change, covered: Covered) -> tuple[str, float]:
    """``killed``, ``endless`` or ``survived``, or ``uncovered`` where no test executes it; and CPU seconds."""
    chosen = covered.tests_of(change.lines)
    if not chosen:
        return "uncovered", 0.0

    def work() -> int:
        for imported in [each for each in sys.modules if each.partition(".")[0] == "ocp_dc"]:
            if "_pyg_fallback" not in imported:
                del sys.modules[imported]
        sys.meta_path.insert(0, Changed(name, file, compiled(tree, change, str(file))))
        files = dict.fromkeys(test.partition("::")[0] for test in covered.seconds)
        of_file = {file: [test for test in chosen if test.partition("::")[0] == file] for file in files}
        return next((status for file, own in of_file.items() if own and (status := run_tests([file], _Chosen(own)))), 0)

    status, seconds = forked(work, int(20 + 4 * sum(covered.seconds[test] for test in chosen)))
    return {0: "survived", -1: "endless"}.get(status, "killed"), seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="+", choices=TESTS, metavar="MODULE", help=", ".join(TESTS))
    parser.add_argument("--sample", type=int, help="at most so many changes of each module, drawn at random")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of changes, of a single module")
    arguments = parser.parse_args()
    os.chdir(REPOSITORY)
    for module in arguments.modules:
        file = REPOSITORY / "ocp_dc" / f"{module.replace('.', '/')}.py"
        tree = ast.parse(file.read_text(encoding="utf-8"))
        changes = changes_of(tree)
        numbers = arguments.only or sorted(
            random.Random(0).sample(range(len(changes)), min(arguments.sample or len(changes), len(changes)))
        )
        covered = measure(TESTS[module], file)
        counts: dict[str, int] = {}
        spent = 0.0
        for number in numbers:
            found, seconds = outcome(f"ocp_dc.{module}", file, tree, changes[number], covered)
            counts[found] = counts.get(found, 0) + 1
            spent += seconds
            if found != "killed":
                print(f"{found} {module} {number}, line {changes[number]}", flush=True)
        told = ", ".join(f"{count} {found}" for found, count in sorted(counts.items()))
        print(f"{module}: {len(numbers)} of {len(changes)} changes: {told}; {spent:.0f} s of CPU", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
