"""`ocp-dc reproduce factors`, and its report."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from ocp_dc.datasets.samples import SAMPLE_WORD
from ocp_dc.errors import InputError
from ocp_dc.experiments.plan import Run, check_path, prepare
from ocp_dc.experiments.tables import EFWT_NOTE, run_measures
from ocp_dc.factors.definitions import FACTORS, MOLECULE, SCALES, FactorExperiment, experiments_of
from ocp_dc.factors.tables import effects_section, molecules_of, remarks, table_of
from ocp_dc.runs.rendering import Picture, Section
from ocp_dc.runs.results import Results, RunResult
from ocp_dc.runs.study import Study
from ocp_dc.runs.tables import Table


class FactorStudy(Study):
    """Every activation with all kinds of labels and of learning rates."""

    title = "one factor at a time"
    targets = ("factors",)
    scales = tuple(SCALES)
    seeds = 2
    data_help = (
        f"a file of one molecule, the word {SAMPLE_WORD} (with --scale small), or a folder of md17_{MOLECULE}.npz, "
        "which is downloaded if it is not there (default OUT/downloads)"
    )
    prepare = staticmethod(prepare)
    run_measures = staticmethod(run_measures)
    run_note = EFWT_NOTE

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        for factor, levels in FACTORS.items():
            group.add_argument(f"--{factor}", metavar="L", nargs="+", help=f"only these, of {', '.join(levels)}")

    def plan(self, args: argparse.Namespace, out: Path) -> list[Run]:
        from ocp_dc.experiments.sources import one_molecule

        check_path(out)
        if str(args.data) == SAMPLE_WORD and args.scale == "full":
            raise InputError(
                f"--data {SAMPLE_WORD} has 1,000 conformations, too few for --scale full; add --scale small"
            )
        source, molecule = one_molecule(args.data, out, MOLECULE)
        levels = {factor: getattr(args, factor) for factor in FACTORS}
        experiments = experiments_of(molecule, args.seeds, **levels)
        return [Run(experiment, SCALES[args.scale], source, out) for experiment in experiments]

    def table(self, target: str, results: Results) -> Table:
        return table_of(results)

    def remarks(self, target: str, results: Results) -> list[str]:
        return remarks(results)

    def sections(self, target: str, results: Results) -> list[Section]:
        return [effects_section(molecule, results) for molecule in molecules_of(results)]

    def pictures(self, target: str, results: Results) -> list[Picture]:
        from ocp_dc.factors.figures import plot_factors

        return [
            Picture(f"factors-{molecule}", f"{molecule}: test errors by factor", plot_factors(molecule, results))
            for molecule in molecules_of(results)
        ]

    def fields(self, cell: str, run: RunResult | None) -> dict[str, object]:
        of_run = {key: run.description[key] if run else "" for key in ("seed", "scale", "epochs")}
        return {**asdict(FactorExperiment.of_id(cell)), **of_run}


STUDY = FactorStudy()
