"""`ocp-dc report`: every table and figure from whatever has finished, ours beside the paper's."""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ocp_dc import __version__
from ocp_dc.experiments.definitions import TABLES, paper_value
from ocp_dc.experiments.rendering import Section, to_html, to_markdown, to_text
from ocp_dc.experiments.results import QUANTITIES, Cell, Results, RunResult, read_results
from ocp_dc.experiments.sections import cells_of, section_of, sections_of

FORMATS = ("md", "csv", "html", "png")
TITLE = "Our runs beside the paper's"
CSV_COLUMNS = (
    *("target", "model", "variant", "molecule", "train_size", "beta", "protocol"),
    *("seed", "scale", "train_conformations", "epochs", "status", "step"),
    *("quantity", "unit", "value", "paper", "paper_printed"),
)


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ocp-dc report`."""
    parser.add_argument("out", metavar="OUT", type=Path, help="the --out of `ocp-dc reproduce`")
    parser.add_argument("--target", choices=(*TABLES, "all"), default="all", help="default: all that has runs")
    parser.add_argument("--format", choices=FORMATS, default="md", help="default md; png writes only the figures")
    parser.add_argument(
        "--to",
        metavar="PATH",
        type=Path,
        help="file to write (default OUT/report.FORMAT), with a folder figures beside it for md; a folder for png",
    )


def run_report(args: argparse.Namespace) -> int:
    """Writes the report, over an earlier one, and says where.

    Raises:
        InputError: ``args.out`` is no folder, or a run in it is damaged.
    """
    results = read_results(args.out)
    targets = list(TABLES) if args.target == "all" else [args.target]
    introduction = _introduction(targets, results)
    print("\n".join(introduction))
    to = args.to or args.out / ("figures" if args.format == "png" else f"report.{args.format}")
    to.parent.mkdir(parents=True, exist_ok=True)
    if args.format == "csv":
        to.write_text(_csv(targets, results), "utf-8")
    else:
        _write_sections(args.format, to, introduction, sections_of(targets, results))
    print(f"written to {to}")
    return 0


def print_table(out: Path, target: str) -> None:
    """Prints a table, or the numbers of a figure, from whatever has finished in ``out``.

    Raises:
        InputError: ``out`` is no folder, or a run in it is damaged.
    """
    section = section_of(target, read_results(out))
    print(to_text(section) if section else _no_runs([target]))


def _introduction(targets: Sequence[str], results: Results) -> list[str]:
    cells = {target: cells_of(target, results) for target in targets}
    runs = {run.experiment.id: run.status for of_target in cells.values() for cell in of_target for run in cell.runs}
    states = ", ".join(f"{count} {status}" for status, count in sorted(Counter(runs.values()).items()))
    absent = [target for target, of_target in cells.items() if not any(cell.runs for cell in of_target)]
    return [
        f"{len(runs)} runs{': ' if runs else ''}{states}. Report of ocp_dc {__version__}.",
        *([_no_runs(absent)] if absent else []),
    ]


def _no_runs(targets: Sequence[str]) -> str:
    return f"There are no runs yet for {', '.join(targets)}."


def _write_sections(form: str, to: Path, introduction: Sequence[str], sections: Sequence[Section]) -> None:
    if form == "html":
        to.write_text(to_html(TITLE, introduction, sections), "utf-8")
        return
    folder = to if form == "png" else to.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for picture in (picture for section in sections for picture in section.pictures):
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    if form == "md":
        to.write_text(to_markdown(TITLE, introduction, sections, folder.name), "utf-8")


def _csv(targets: Sequence[str], results: Results) -> str:
    """Long format: a line for each target, run and quantity; cells without runs have one too."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for target in targets:
        for cell in cells_of(target, results):
            for run in cell.runs or (None,):
                writer.writerows(_csv_line(target, cell, run, quantity) for quantity in QUANTITIES)
    return text.getvalue()


def _csv_line(target: str, cell: Cell, run: RunResult | None, quantity: str) -> list:
    experiment = cell.experiment
    of_run = ["", "", "", "", "missing", ""]
    if run:
        description = run.description
        of_run = [run.experiment.seed, description["scale"], description["split"]["sizes"]["train"]]
        of_run += [description["epochs"], run.status, run.step]
    paper = paper_value(experiment, target)
    return [
        *(target, experiment.model, experiment.variant, experiment.molecule, experiment.train_size),
        *(experiment.beta, experiment.protocol, *of_run, quantity, experiment.collection.units[quantity]),
        run.error(quantity) if run else None,
        getattr(paper, quantity) if paper else None,
        getattr(paper, f"printed_{quantity}") if paper else None,
    ]
