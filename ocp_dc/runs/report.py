"""`ocp-dc report`: every table and figure from whatever has finished, ours beside the paper's."""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, product
from pathlib import Path

from ocp_dc import __version__
from ocp_dc.errors import InputError
from ocp_dc.files import replace_bytes, replace_text, require_writable
from ocp_dc.runs.copies import copy_runs
from ocp_dc.runs.rendering import Section, to_html, to_markdown, to_text
from ocp_dc.runs.results import Results, RunResult, read_results
from ocp_dc.runs.study import Study, study_of
from ocp_dc.runs.tables import runs_section, table_section
from ocp_dc.terminal import printable

COPIES = "copies"
FORMATS = ("md", "csv", "html", "png", COPIES)
TITLE = "Our runs beside the paper's"


def run_report(args: argparse.Namespace) -> int:
    """Writes the report, over an earlier one in ``args.out``, and says where.

    Raises:
        InputError: ``args.out`` is no folder, or a run in it is damaged; what is at ``args.to`` may not be replaced, or
            copies of runs have no ``args.to``.
    """
    results = read_results(args.out)
    targets = args.known_targets if args.target == "all" else [args.target]
    introduction = _introduction(targets, results)
    print("\n".join(introduction))
    if args.format == COPIES:
        return _copy(args, targets, results)
    to = args.to or args.out / ("figures" if args.format == "png" else f"report.{args.format}")
    to.parent.mkdir(parents=True, exist_ok=True)
    overwrite = args.overwrite or args.to is None
    if args.format != "png":
        require_writable(to, "--to", overwrite)
    elif to.exists() and not to.is_dir():
        raise InputError(f"--to {to} is a file; figures are written to a folder")
    if args.format == "csv":
        replace_text(to, _csv(targets, results))
    else:
        _write_sections(args.format, to, introduction, _sections(targets, results), overwrite)
    print(f"written to {printable(str(to))}")
    return 0


def _copy(args: argparse.Namespace, targets: Sequence[str], results: Results) -> int:
    if args.to is None:
        raise InputError(f"--format {COPIES}: name the folder for them with --to")
    runs = {run.name: run for target in targets for run in _runs(target, results)}
    copied = copy_runs(runs.values(), args.out, args.to, args.overwrite)
    print(f"{len(copied)} runs copied to {printable(str(args.to))}, without checkpoints and predictions")
    return 0


def print_table(out: Path, target: str) -> None:
    """Prints the tables of a target, or the numbers of a figure, from whatever has finished in ``out``.

    Raises:
        InputError: ``out`` is no folder, or a run in it is damaged.
    """
    print("\n\n".join(map(to_text, _tables(target, read_results(out)))) or _no_runs([target]))


def _tables(target: str, results: Results) -> list[Section]:
    """A table or figure, or several tables; none while it has no run."""
    study = study_of(target)
    if not _runs(target, results):
        return []
    *others, last = study.tables(target, results)
    remarks, pictures = study.remarks(target, results), study.pictures(target, results)
    return [*(table_section(table, results) for table in others), table_section(last, results, remarks, pictures)]


def _sections(targets: Sequence[str], results: Results) -> list[Section]:
    """A section for each table and figure that has runs, and one for all those runs of a study."""
    sections = []
    for target in targets:
        if tables := _tables(target, results):
            sections += [*tables, *study_of(target).sections(target, results)]
    runs: dict[Study, dict[str, RunResult]] = {}
    for target in targets:
        runs.setdefault(study_of(target), {}).update({run.name: run for run in _runs(target, results)})
    for study, of_study in runs.items():
        if of_study:
            pictures = tuple(picture for run in of_study.values() for picture in study.run_pictures(run))
            notes = (study.run_note,) if study.run_note else ()
            shown = list(of_study.values())
            sections.append(runs_section(shown, study.run_measures(shown), notes=notes, pictures=pictures))
    return sections


def _runs(target: str, results: Results) -> list[RunResult]:
    tables = study_of(target).tables(target, results)
    return [run for table in tables for cell in table.cells(results) for run in cell.runs]


def _introduction(targets: Sequence[str], results: Results) -> list[str]:
    of_targets = {target: _runs(target, results) for target in targets}
    runs = {run.name: run.status for of_target in of_targets.values() for run in of_target}
    states = ", ".join(f"{count} {status}" for status, count in sorted(Counter(runs.values()).items()))
    absent = [target for target, of_target in of_targets.items() if not of_target]
    return [
        f"{len(runs)} runs{': ' if runs else ''}{states}. Report of ocp_dc {__version__}.",
        *([_no_runs(absent)] if absent else []),
    ]


def _no_runs(targets: Sequence[str]) -> str:
    return f"There are no runs yet for {', '.join(targets)}."


def _write_sections(
    form: str, to: Path, introduction: Sequence[str], sections: Sequence[Section], overwrite: bool
) -> None:
    if form == "html":
        replace_text(to, to_html(TITLE, introduction, sections))
        return
    folder = to if form == "png" else to.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{picture.name}.png": picture.png for section in sections for picture in section.pictures}
    for file in files:
        require_writable(file, "--to", overwrite)
    for file, png in files.items():
        replace_bytes(file, png)
    if form == "md":
        replace_text(to, to_markdown(TITLE, introduction, sections, folder.name))


def _csv(targets: Sequence[str], results: Results) -> str:
    """Long format: a line for each target, run and quantity; cells without runs have one too."""
    lines = [line for target in targets for line in _csv_lines(target, results)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(chain.from_iterable(lines))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_lines(target: str, results: Results) -> Iterator[dict]:
    study = study_of(target)
    cells = [(table, cell) for table in study.tables(target, results) for cell in table.cells(results)]
    for table, cell in cells:
        for run, measure in product(cell.runs or (None,), table.measures):
            yield {
                "target": target,
                **study.fields(cell.name, run),
                "status": run.status if run else "missing",
                "step": run.step if run else "",
                "quantity": measure.name,
                "unit": measure.unit,
                "value": measure.of(run) if run else None,
                "paper": table.published.get(cell.name, {}).get(measure.name),
                "paper_printed": table.printed.get(cell.name, {}).get(measure.name),
            }
