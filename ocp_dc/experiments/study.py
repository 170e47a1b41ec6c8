"""The paper's tables and figures on MD17 and OC22, for `ocp-dc reproduce` and `ocp-dc report`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ocp_dc.datasets.samples import SAMPLE_WORD
from ocp_dc.errors import InputError
from ocp_dc.experiments.claim_sections import claim_sections
from ocp_dc.experiments.definitions import (
    MODELS,
    MOLECULES,
    OC22,
    SCHEDULES,
    TABLES,
    VARIANTS,
    Experiment,
    experiments_of,
    recommended_variants,
)
from ocp_dc.experiments.plan import Run, check_path, prepare
from ocp_dc.experiments.scales import SCALE_NAMES, Scale, scale_of
from ocp_dc.experiments.step_costs import Throughput, estimated_step_seconds
from ocp_dc.experiments.tables import EFWT_NOTE, pictures_of, remarks_of, run_measures, scale_of_run, table_of
from ocp_dc.runs.plan import Estimate
from ocp_dc.runs.rendering import Picture
from ocp_dc.runs.results import RunResult
from ocp_dc.runs.study import Study

if TYPE_CHECKING:
    from ocp_dc.experiments.sources import Source


class ChemistryStudy(Study):
    """Tables 1, 2, 7, 8 and 9, Fig. 1 and Fig. 2."""

    title = "molecules and materials"
    targets = tuple(TABLES)
    scales = SCALE_NAMES
    data_help = (
        f"for MD17 a file of one molecule, the word {SAMPLE_WORD}, or a folder of md17_<molecule>.npz, where what is "
        "missing is downloaded (default OUT/downloads); for OC22 the folder of its S2EF-total LMDBs, a file of "
        f"labelled structures that ASE reads, or the word {SAMPLE_WORD} (the default at scales other than paper)"
    )
    prepare = staticmethod(prepare)
    table, remarks, pictures = staticmethod(table_of), staticmethod(remarks_of), staticmethod(pictures_of)
    sections = staticmethod(claim_sections)
    run_measures = staticmethod(run_measures)
    run_note = EFWT_NOTE

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument("--model", metavar="M", nargs="+", help=f"only these, of {', '.join(MODELS)}")
        group.add_argument("--molecule", metavar="X", nargs="+", help=f"only these, of {', '.join(MOLECULES)}")
        group.add_argument("--variant", metavar="V", nargs="+", help=f"only these, of {', '.join(VARIANTS)}")
        group.add_argument(
            "--width",
            metavar="KEY=N",
            nargs="+",
            help="other widths than the scale's, of the models' settings: hidden_channels=32 num_filters=32",
        )
        group.add_argument("--with-recommended", action="store_true", help="add this package's recommended protocol")
        group.add_argument(
            "--with-halved",
            action="store_true",
            help="add the same runs with the learning rate halved every five epochs, as the paper's scripts can",
        )
        group.add_argument(
            "--with-decayed",
            action="store_true",
            help="add the same runs with a learning rate that falls from 1e-3 to zero by a cosine",
        )
        group.add_argument(
            "--as-published",
            action="store_true",
            help="as the paper's runs were, faults included: OC22 without periodic images, ForceNet* with its "
            "activations replaced by position",
        )
        group.add_argument(
            "--split-dir", metavar="DIR", type=Path, help="take the splits from DIR/<molecule>/{train,valid,test}.*"
        )
        group.add_argument(
            "--oc22", metavar="DIR", type=Path, help="Table 2's --data, where tables on MD17 are asked for with it"
        )
        assumed = Throughput()
        group.add_argument(
            "--assume-tflops",
            metavar="X",
            type=float,
            default=assumed.tflops,
            help="for estimated times: 10¹² floating-point operations of a GPU in a second (default %(default)g)",
        )
        group.add_argument(
            "--assume-microseconds",
            metavar="X",
            type=float,
            default=assumed.microseconds,
            help="for estimated times: what any operation takes at least (default %(default)g)",
        )
        group.add_argument("--split-seed", metavar="S", type=int, help="of the random splits (default 0)")

    def plan(self, args: argparse.Namespace, out: Path) -> list[Run]:
        _check_options(args)
        check_path(out)
        source, molecule = _source(args, out)
        asked = args.molecule or ([molecule] if molecule else None)
        experiments = experiments_of(
            args.target,
            args.model,
            asked,
            args.variant,
            args.seeds,
            with_recommended=args.with_recommended,
            as_published=args.as_published,
            schedules=[schedule for schedule in SCHEDULES if getattr(args, f"with_{schedule}")],
        )
        if molecule:
            print(f"{source.path} holds {molecule}: only its runs are planned")
            experiments = [experiment for experiment in experiments if experiment.molecule == molecule]
        if not experiments:
            raise InputError(f"--molecule {' '.join(asked)}: {source.path} holds {molecule}; give other --data")
        collection = TABLES[args.target].collection
        models = dict.fromkeys(experiment.model for experiment in experiments)
        without = [name for name in models if not recommended_variants(name, collection)]
        if args.with_recommended and without:
            print(f"configs/{collection.name} has no recommended protocol for {', '.join(without)}")
        scale = scale_of(args.scale, collection)
        planned = _with_widths(scale, models, chosen=bool(args.model))
        scale = scale.with_widths(args.width or (), planned)
        return [Run(experiment, scale, source, out) for experiment in experiments if experiment.model in planned]

    def estimate(self, args: argparse.Namespace) -> Estimate:
        throughput = Throughput(args.assume_tflops, args.assume_microseconds)
        return Estimate(lambda run: estimated_step_seconds(run, throughput), throughput.assumption)

    def run_pictures(self, run: RunResult) -> list[Picture]:
        from ocp_dc.experiments.figures import run_pictures

        return run_pictures(run)

    def fields(self, cell: str, run: RunResult | None) -> dict[str, object]:
        fields = {**asdict(Experiment.of_id(cell)), "seed": "", "scale": "", "train_conformations": "", "epochs": ""}
        if run:
            fields |= {key: run.description[key] for key in ("seed", "epochs")}
            fields["scale"] = scale_of_run(run)
            fields["train_conformations"] = run.description["split"]["sizes"]["train"]
        return fields


def _check_options(args: argparse.Namespace) -> None:
    for option in ("assume_tflops", "assume_microseconds"):
        if not getattr(args, option) > 0:
            raise InputError(f"--{option.replace('_', '-')} {getattr(args, option):g}: give a number above 0")
    if args.oc22 and not {TABLES[target].collection for target in args.targets} > {OC22}:
        raise InputError("--oc22 is for Table 2 together with tables on MD17; give --data")


def _with_widths(scale: Scale, models: Iterable[str], chosen: bool) -> list[str]:
    """The models that a scale says the widths of, without those that are slow there; the others are named.

    Raises:
        InputError: there are none, or the user has chosen one that lacks them.
    """
    having = [model for model in models if scale.has_widths(model)]
    lacking = [model for model in models if not scale.has_widths(model)]
    if lacking and (chosen or not having):
        scale.widths(lacking[0])
    if lacking:
        print(f"--scale {scale.name} has no widths for {', '.join(lacking)}: left out")
    slow = [model for model in having if model in scale.slow and not chosen]
    if slow:
        print(f"--scale {scale.name} takes long with {', '.join(slow)}: left out, add --model to have it")
    return [model for model in having if model not in slow]


def _source(args: argparse.Namespace, out: Path) -> tuple[Source, str | None]:
    """The conformations, and the one molecule they are of if it is one."""
    table = TABLES[args.target]
    if args.split_dir and args.split_seed is not None:
        raise InputError("--split-dir gives the splits; leave out --split-seed")
    if args.split_dir and len(table.sizes or ()) > 1:
        raise InputError(f"--split-dir gives one training set per molecule, {args.target} needs several; leave it out")
    kind, path = _oc22_files(args) if table.collection == OC22 else _md17_files(args, out)
    source = kind(path.resolve(), args.split_seed or 0, args.split_dir)
    return source, source.only_molecule() if args.data else None


def _md17_files(args: argparse.Namespace, out: Path) -> tuple[type[Source], Path]:
    from ocp_dc.experiments.sources import MoleculeSource, molecule_files

    return MoleculeSource, molecule_files(args.data, out)


def _oc22_files(args: argparse.Namespace) -> tuple[type[Source], Path]:
    from ocp_dc.experiments.sources import structure_files

    option, path = ("--data", args.data) if len(args.targets) == 1 else ("--oc22", args.oc22)
    if path is None and args.scale == "paper":
        if not args.dry_run:
            raise InputError(
                f"{option} is missing: for {args.target} give the folder of OC22's S2EF-total LMDBs, which holds train "
                "and val_ood, or a file of labelled structures"
            )
        path = Path("OC22")
    elif path is None:
        print(f"no {option} given: the embedded {SAMPLE_WORD} of oxide slabs takes the place of OC22")
        path = Path(SAMPLE_WORD)
    return structure_files(path)


STUDY = ChemistryStudy()
