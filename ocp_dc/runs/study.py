"""What a kind of experiment brings, so that `ocp-dc reproduce` and `ocp-dc report` can serve it."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import ocp_dc
from ocp_dc.errors import InputError
from ocp_dc.runs.plan import Estimate, PlannedRun
from ocp_dc.runs.rendering import Picture, Section
from ocp_dc.runs.results import Measure, Results, RunResult
from ocp_dc.runs.running import Outcome
from ocp_dc.runs.tables import Table


class Study(ABC):
    """The tables of one kind of experiment.

    A package of ``ocp_dc`` moves in by having a module ``study`` with an instance, ``STUDY``. Importing that must be
    quick: what is heavy is imported by the methods that need it.

    Attributes:
        title: for readers.
        targets: what `ocp-dc reproduce` and `ocp-dc report` know it by, such as ``table1``.
        scales: values of ``--scale``, the default first.
        seeds: the default of ``--seeds``.
        data_help: what ``--data`` may be.
        shared_options: options of other studies that it takes too, by their names without hyphens.
        run_note: what :meth:`run_measures` are.
    """

    title: ClassVar[str]
    targets: ClassVar[tuple[str, ...]]
    scales: ClassVar[tuple[str, ...]]
    seeds: ClassVar[int] = 1
    data_help: ClassVar[str]
    shared_options: ClassVar[tuple[str, ...]] = ()
    run_note: ClassVar[str] = ""

    @abstractmethod
    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        """Its own options of `ocp-dc reproduce`."""

    @abstractmethod
    def plan(self, args: argparse.Namespace, out: Path) -> Sequence[PlannedRun]:
        """The runs of ``args.target``, one of ``args.targets``, in the order of their numbers; nothing is written.

        Raises:
            InputError: an option that cannot be used.
        """

    def estimate(self, args: argparse.Namespace) -> Estimate | None:
        """How long a step may take where none was measured; None where nothing is known."""
        return None

    @abstractmethod
    def prepare(self, runs: Sequence[PlannedRun]) -> tuple[list[PlannedRun], list[Outcome]]:
        """Makes the data and describes each run in its folder; those that can be run, and the failure of the others.

        Raises:
            InputError: none can be run, or a folder holds something else.
        """

    def table(self, target: str, results: Results) -> Table:
        """A table, or the numbers of a figure; not of studies that have :meth:`tables`."""
        raise NotImplementedError

    def tables(self, target: str, results: Results) -> Sequence[Table]:
        """The table of a target; or several, each with runs, where rows have other units or do not compete."""
        return [self.table(target, results)]

    def remarks(self, target: str, results: Results) -> Sequence[str]:
        """What is to be said about it, below the last table."""
        return ()

    def pictures(self, target: str, results: Results) -> Sequence[Picture]:
        """What is to be seen with it, below the last table."""
        return ()

    def sections(self, target: str, results: Results) -> Sequence[Section]:
        """What a report has of it below the tables."""
        return ()

    def run_measures(self, runs: Sequence[RunResult]) -> Sequence[Measure]:
        """What a report shows with each of these runs."""
        return ()

    def run_pictures(self, run: RunResult) -> Sequence[Picture]:
        """What is to be seen of one run."""
        return ()

    def fields(self, cell: str, run: RunResult | None) -> dict[str, object]:
        """Columns of a CSV report that tell a cell, and a run of it, from others."""
        return {"cell": cell, "seed": run.description["seed"] if run else ""}


def studies() -> list[Study]:
    """Of all packages of ``ocp_dc`` that have one."""
    # looked for as a file, since importing a package may take long
    names = {file.parent.name for folder in ocp_dc.__path__ for file in Path(folder).glob("*/study.py")}
    modules = [import_module(f"ocp_dc.{name}.study") for name in sorted(names - {Path(__file__).parent.name})]
    for module in modules:
        if not hasattr(module, "STUDY"):
            raise InputError(f"{module.__file__} has no STUDY; ocp_dc.runs.study says what that is")
    return [module.STUDY for module in modules]


def study_of(target: str) -> Study:
    """Raises InputError if no study has it."""
    for study in studies():
        if target in study.targets:
            return study
    known = ", ".join(each for study in studies() for each in study.targets)
    raise InputError(f"target {target} is unknown; choose from {known}")
