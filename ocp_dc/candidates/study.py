"""`ocp-dc reproduce candidates`, and its report."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ocp_dc.candidates.definitions import (
    CANDIDATES,
    COLLECTIONS,
    JOINT,
    SCALES,
    TARGET,
    CandidateExperiment,
    CandidateRun,
    experiments_of,
)
from ocp_dc.candidates.tables import comparison_sections, remarks, tables_of
from ocp_dc.datasets.samples import SAMPLE_WORD
from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import MD17, OC22, Collection, check_known
from ocp_dc.experiments.plan import check_path, prepare
from ocp_dc.experiments.tables import EFWT_NOTE, run_measures
from ocp_dc.factors.definitions import MOLECULE
from ocp_dc.runs.rendering import Section
from ocp_dc.runs.results import Results, RunResult
from ocp_dc.runs.study import Study
from ocp_dc.runs.tables import Table

if TYPE_CHECKING:
    from ocp_dc.experiments.scales import Scale
    from ocp_dc.experiments.sources import Source


class CandidateStudy(Study):
    """The recommended protocol of each model, the paper's two, and one change at a time."""

    title = "candidates for the recommended protocol"
    targets = (TARGET,)
    scales = tuple(dict.fromkeys(name for name, _ in SCALES))
    seeds = 3
    data_help = (
        f"the word {SAMPLE_WORD}; a file of one molecule, or a folder of md17_{MOLECULE}.npz, which is downloaded if "
        "it is not there (default OUT/downloads); with --collection oc22 a file of labelled structures, or the folder "
        f"of OC22's S2EF-total LMDBs (default {SAMPLE_WORD})"
    )
    shared_options = ("model",)
    prepare = staticmethod(prepare)
    run_measures = staticmethod(run_measures)
    run_note = EFWT_NOTE

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--collection",
            metavar="C",
            nargs="+",
            help=f"of {', '.join(COLLECTIONS)} (default {MD17.name}; both with --data {SAMPLE_WORD})",
        )
        group.add_argument(
            "--candidate",
            metavar="N",
            nargs="+",
            help=f"beside the recommended protocol only these, of {', '.join(CANDIDATES)}; joined by {JOINT}, in one",
        )
        group.add_argument("--epochs", metavar="N", type=int, help="of each run (default, the scale's or the config's)")

    def plan(self, args: argparse.Namespace, out: Path) -> list[CandidateRun]:
        check_path(out)
        runs = []
        for collection in _collections(args):
            source, molecule = _source(collection, args.data, out)
            experiments = experiments_of(molecule, args.seeds, args.model, args.candidate)
            scale = _of_length(SCALES[args.scale, collection], args.epochs)
            runs += [CandidateRun(experiment, scale, source, out) for experiment in experiments]
        return runs

    def tables(self, target: str, results: Results) -> list[Table]:
        return tables_of(results)

    def remarks(self, target: str, results: Results) -> list[str]:
        return remarks(results)

    def sections(self, target: str, results: Results) -> list[Section]:
        return comparison_sections(results)

    def fields(self, cell: str, run: RunResult | None) -> dict[str, object]:
        of_run = {key: run.description[key] if run else "" for key in ("seed", "scale", "epochs")}
        return {**asdict(CandidateExperiment.of_id(cell)), **of_run}


def _collections(args: argparse.Namespace) -> list[Collection]:
    check_known("--collection", args.collection, COLLECTIONS)
    is_sample = str(args.data) == SAMPLE_WORD
    chosen = list(dict.fromkeys(args.collection or (COLLECTIONS if is_sample else [MD17.name])))
    if len(chosen) > 1 and args.data and not is_sample:
        raise InputError(f"--collection {' '.join(chosen)}: --data {args.data} is of one of them; give that")
    return [COLLECTIONS[name] for name in chosen]


def _of_length(scale: Scale, epochs: int | None) -> Scale:
    if epochs is None:
        return scale
    if epochs < 1:
        raise InputError(f"--epochs {epochs}: give 1 or more")
    return replace(scale, epochs=epochs)


def _source(collection: Collection, given: Path | None, out: Path) -> tuple[Source, str]:
    """The conformations or structures, and the column that they make."""
    from ocp_dc.experiments.sources import one_molecule, structure_files

    if collection == MD17:
        return one_molecule(given, out, MOLECULE)
    kind, path = structure_files(given or Path(SAMPLE_WORD))
    return kind(path.resolve()), OC22.name


STUDY = CandidateStudy()
