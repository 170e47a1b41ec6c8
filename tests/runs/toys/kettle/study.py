"""A study that has nothing to do with chemistry: how strong tea gets, and how warm it stays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ocp_dc.errors import InputError
from ocp_dc.runs.records import write_description
from ocp_dc.runs.results import Measure
from ocp_dc.runs.study import Study
from ocp_dc.runs.tables import Group, Row, Table

TEMPERATURE = Measure("temperature", "°C", lower_is_better=False)
BITTERNESS = Measure("bitterness", "IBU")
LEAVES = ("green", "oolong")


@dataclass(frozen=True)
class Brew:
    leaf: str
    seed: int
    spoons: int
    out: Path
    steps = 20
    log = "kettle.jsonl"
    pace = ("kettle",)

    @property
    def folder(self) -> Path:
        return self.out / "runs" / f"{self.leaf}-s{self.seed}"

    @property
    def settings(self) -> str:
        return f"{self.spoons} spoons"


class TeaStudy(Study):
    title = "tea"
    targets = ("tea",)
    scales = ("paper",)
    data_help = "none"

    def add_arguments(self, group) -> None:
        group.add_argument("--spoons", type=int, default=2, help="of leaves")

    def plan(self, args, out):
        if args.spoons < 1:
            raise InputError(f"--spoons {args.spoons}: at least one is needed")
        return [Brew(leaf, seed, args.spoons, out) for seed in range(args.seeds) for leaf in LEAVES]

    def prepare(self, runs):
        for run in runs:
            description = {
                "work": "kettle.brewing:brew",
                "steps": run.steps,
                "log": run.log,
                "pace": run.pace,
                "cell": run.leaf,
                "seed": run.seed,
                "spoons": run.spoons,
            }
            write_description(run.folder, description, identity=["spoons"])
        return list(runs), []

    def table(self, target, results):
        return Table(
            title="Tea: green and oolong",
            labels=("Leaf",),
            columns=("water",),
            groups=(Group(tuple(Row((leaf,), (leaf,)) for leaf in LEAVES)),),
            measures=(TEMPERATURE, BITTERNESS),
            published={"green": {"temperature": 70.0}, "oolong": {"temperature": 60.0}},
            format_value=lambda value: f"{value:.1f}",
        )


STUDY = TeaStudy()
