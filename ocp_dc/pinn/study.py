"""The paper's Tables 3, 4 and 5, for `ocp-dc reproduce` and `ocp-dc report`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ocp_dc
from ocp_dc.errors import InputError
from ocp_dc.pinn.extra import require_extra
from ocp_dc.pinn.protocols import (
    AS_PUBLISHED,
    NETWORKS,
    PROTOCOLS,
    SCALES,
    TABLES,
    TITLES,
    PaperTable,
    Scale,
)
from ocp_dc.runs.records import write_description
from ocp_dc.runs.rendering import Picture
from ocp_dc.runs.results import Measure, Results, RunResult
from ocp_dc.runs.running import Outcome
from ocp_dc.runs.study import Study
from ocp_dc.runs.tables import Group, Row, Table

if TYPE_CHECKING:
    from ocp_dc.pinn.sources import FileSource, GeneratedSource

WORK = "ocp_dc.pinn.training:train_and_test"
# what a run's folder cannot be used for with other values
IDENTITY = ("equation", "protocol", "network", "scale", "steps", "points", "data")
BATCH_NORM = "+bn"
NEVER_POSITIVE = Measure("never positive", "%", lower_is_better=None)
SIGNAL = Measure("signal", "", lower_is_better=None)


@dataclass(frozen=True)
class Run:
    """A network that is trained for a table's equation, by a protocol, at a scale."""

    target: str
    protocol: str
    network: str
    seed: int
    scale_name: str
    source: FileSource | GeneratedSource
    out: Path
    log = "metrics.jsonl"

    @property
    def table(self) -> PaperTable:
        return TABLES[self.target]

    @property
    def scale(self) -> Scale:
        return SCALES[self.scale_name]

    @property
    def cell(self) -> str:
        return _cell(self.target, self.protocol, self.network)

    @property
    def folder(self) -> Path:
        return self.out / "runs" / f"{self.cell}-s{self.seed}"

    @property
    def settings(self) -> str:
        return f"{self.table.equation.name}, {self.protocol}"

    @property
    def steps(self) -> int:
        return self.scale.steps(self.table.equation, self.protocol)

    @property
    def pace(self) -> tuple[str, ...]:
        of_equation = f"{self.scale_name} {self.target} {self.protocol}"
        norm = BATCH_NORM if self.network.endswith(BATCH_NORM) else ""
        return f"{of_equation} {self.network}", f"{of_equation}{norm}", of_equation

    def describe(self, path: Path, data: dict) -> None:
        """Writes ``experiment.json``."""
        description = {
            "work": WORK,
            "steps": self.steps,
            "log": self.log,
            "cell": self.cell,
            "seed": self.seed,
            "pace": self.pace,
            "equation": self.table.equation.name,
            "protocol": self.protocol,
            "network": self.network,
            "scale": self.scale_name,
            "points": self.scale.points,
            "data": data,
            "data_path": str(path),
            "ocp_dc_version": ocp_dc.__version__,
        }
        write_description(self.folder, description, IDENTITY)


class PhysicsStudy(Study):
    """Tables 3, 4 and 5."""

    title = "physics-informed networks"
    targets = tuple(TABLES)
    scales = tuple(SCALES)
    data_help = "the folder of PDEBench's HDF5 files, or one of them (default: data made by the same recipe)"
    run_note = (
        "Never positive: hidden units into whose activation nothing positive goes at any collocation point. Signal: "
        "the root mean square of what the last hidden layer gives there."
    )

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--protocol",
            metavar="P",
            nargs="+",
            default=[AS_PUBLISHED],
            help="; ".join(f"{name}: {protocol.about}" for name, protocol in PROTOCOLS.items())
            + f" (default {AS_PUBLISHED})",
        )
        group.add_argument(
            "--network",
            metavar="N",
            nargs="+",
            default=list(NETWORKS),
            help=f"activations by name, with {BATCH_NORM} for BatchNorm (default {' '.join(NETWORKS)})",
        )
        group.add_argument(
            "--sample", metavar="I", type=int, help="of the data (default: the paper's; of data that is made, 0)"
        )

    def plan(self, args: argparse.Namespace, out: Path) -> list[Run]:
        _check(args)
        source = _source(args, out)
        return [
            Run(args.target, protocol, network, seed, args.scale, source, out)
            for seed in range(args.seeds)
            for protocol in dict.fromkeys(args.protocol)
            for network in dict.fromkeys(args.network)
        ]

    def prepare(self, runs: Sequence[Run]) -> tuple[list[Run], list[Outcome]]:
        """Makes the data if they are not given."""
        require_extra()
        prepared = {}
        for run in runs:
            if run.target not in prepared:
                prepared[run.target] = run.source.prepare(run.table.equation)
            run.describe(*prepared[run.target])
        return list(runs), []

    def table(self, target: str, results: Results) -> Table:
        table = TABLES[target]
        rows = {protocol: tuple(_rows(target, protocol, results)) for protocol in PROTOCOLS}
        return Table(
            title=table.title,
            labels=("Protocol", "Network"),
            columns=("",),
            groups=tuple(Group(rows[protocol], optional=protocol != AS_PUBLISHED) for protocol in PROTOCOLS),
            measures=tuple(Measure(name, "") for name in table.quantities),
            measured_on="of the last 20 times, and each loss term after the last iteration",
            published={_cell(target, AS_PUBLISHED, network): table.paper(network) for network in NETWORKS},
            measures_in_columns=True,
            format_value=lambda value: f"{value:.3g}",
        )

    def remarks(self, target: str, results: Results) -> list[str]:
        runs = [run for cell in self.table(target, results).cells(results) for run in cell.runs]
        data = {run.description["data"]["about"] for run in runs}
        sizes = {f"{run.description['protocol']}: {run.description['steps']:,} iterations" for run in runs}
        scale = ", ".join(sorted({run.description["scale"] for run in runs}))
        seeds = ", ".join(map(str, sorted({run.description["seed"] for run in runs})))
        return [
            "What the paper calls MSE is PDEBench's nRMSE, beside which it stands here; a constant 0 has 1. †: has "
            "derivatives of the network.",
            f"Data: {'; '.join(sorted(data))}. Scale {scale}, {', '.join(sorted(sizes))}. Seeds: {seeds}.",
        ]

    def pictures(self, target: str, results: Results) -> list[Picture]:
        from ocp_dc.pinn.figures import compare_runs

        pictures = []
        for protocol in PROTOCOLS:
            cells = [results.cell(row.cells[0]) for row in _rows(target, protocol, results)]
            runs = {_label(cell.runs[0].description["network"]): cell.runs[0] for cell in cells if cell.runs}
            if runs:
                caption = f"{TABLES[target].title}, {protocol}: error and residual by iteration"
                pictures.append(Picture(f"{target}-{protocol}", caption, compare_runs(runs)))
        return pictures

    def run_measures(self, runs: Sequence[RunResult]) -> tuple[Measure, ...]:
        return NEVER_POSITIVE, SIGNAL

    def run_pictures(self, run: RunResult) -> list[Picture]:
        from ocp_dc.pinn.figures import plot_fields, plot_losses

        if run.status != "finished":
            return []
        return [
            Picture(f"{run.name}-fields", f"{run.name}: predicted and true fields", plot_fields(run)),
            Picture(f"{run.name}-losses", f"{run.name}: loss terms", plot_losses(run)),
        ]

    def fields(self, cell: str, run: RunResult | None) -> dict[str, object]:
        _, protocol, network = cell.split("-")
        of_run = {key: run.description[key] if run else "" for key in ("seed", "scale")}
        return {"protocol": protocol, "network": network, **of_run}


def _cell(target: str, protocol: str, network: str) -> str:
    return f"{target}-{protocol}-{network}"


def _label(network: str) -> str:
    activation, *norm = network.split("+")
    return " + ".join([TITLES.get(activation, activation), *map(str.upper, norm)])


def _rows(target: str, protocol: str, results: Results) -> Iterator[Row]:
    """The paper's, and those of other networks that were run."""
    for network in _known_networks():
        cell = _cell(target, protocol, network)
        if network in NETWORKS or results.cell(cell).runs:
            yield Row((protocol, _label(network)), (cell,), highlighted=network not in NETWORKS)


def _known_networks() -> list[str]:
    """The paper's first."""
    from ocp_dc.activations import known_activations

    every = (f"{name}{norm}" for name in known_activations() for norm in ("", BATCH_NORM))
    return list(dict.fromkeys([*NETWORKS, *every]))


def _check(args: argparse.Namespace) -> None:
    for option, asked, known in (
        ("--protocol", args.protocol, list(PROTOCOLS)),
        ("--network", args.network, None if set(args.network) <= set(NETWORKS) else _known_networks()),
    ):
        for name in asked:
            if known is not None and name not in known:
                raise InputError(f"{option} {name} is unknown; choose from {', '.join(known)}")


def _source(args: argparse.Namespace, out: Path) -> FileSource | GeneratedSource:
    from ocp_dc.pinn.sources import FileSource, GeneratedSource

    equation = TABLES[args.target].equation
    if args.data is not None:
        return FileSource(args.data.resolve(), equation.sample if args.sample is None else args.sample)
    sample = args.sample or 0
    if sample < 0:
        raise InputError(f"--sample {sample}: samples of data that is made are numbered from 0")
    return GeneratedSource(out / "data", sample, *SCALES[args.scale].grid(equation))


STUDY = PhysicsStudy()
