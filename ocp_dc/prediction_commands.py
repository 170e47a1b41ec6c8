"""The ``ocp-dc predict`` and ``ocp-dc evaluate`` commands."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ocp_dc.errors import InputError
from ocp_dc.files import replace_bytes, require_writable
from ocp_dc.units import ENERGY_UNITS_IN_EV, energy_factor

if TYPE_CHECKING:
    from ocp_dc.evaluation import ConformationErrors, Predictions, TestErrors

# more than a result has
RESULT_BYTES = 100_000
STRUCTURES = "folder of LMDBs or .lmdb file (unpickled: trust it), npz of MD17's kind, any file ASE reads, or `sample`"


def add_prediction_commands(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``predict`` and ``evaluate``; see :func:`~ocp_dc.info.add_info_command`."""
    _add_predict(subparsers)
    _add_evaluate(subparsers)


def _add_predict(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "predict",
        help="energies and forces of structures; with --config-yml, fairchem's predict",
        usage="%(prog)s CHECKPOINT STRUCTURES --to FILE [options]\n"
        "       %(prog)s --config-yml FILE --checkpoint CHECKPOINT [fairchem's options]",
        description="Writes the energies (eV) and forces (eV/Å) of structures in any file to extended XYZ or npz.",
        epilog="With --config-yml it is fairchem's predict, on the test set of a config: all of its options are in "
        "`ocp-dc validate --help`.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint.pt of a run (unpickled: trust it)")
    parser.add_argument("structures", metavar="STRUCTURES", help=STRUCTURES)
    parser.add_argument("--to", metavar="FILE", required=True, type=Path, help="file to write: .extxyz, .xyz or .npz")
    parser.add_argument(
        "--energy-unit", metavar="UNIT", help=f"that the checkpoint was trained in, {_where_not_stated()}"
    )
    _add_shared(parser)
    parser.set_defaults(func=_predict)


def _add_evaluate(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("evaluate", help="test errors of a checkpoint")
    parser.add_argument("--checkpoint", required=True, help="checkpoint.pt of a run (it is unpickled: trust it)")
    parser.add_argument("--data", required=True, help=f"with labels: {STRUCTURES}")
    parser.add_argument("--energy-unit", metavar="UNIT", help=f"of the data's labels, {_where_not_stated()}")
    parser.add_argument("--out", type=Path, help="default: result.json beside the checkpoint")
    parser.add_argument(
        "--details", action="store_true", help="print percentiles and the worst structures, write the errors of each"
    )
    parser.add_argument("--plot", action="store_true", help="draw predicted against true labels, and the errors")
    _add_shared(parser)
    parser.set_defaults(func=_evaluate)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--any-element", action="store_true", help="take elements that the model was not trained on")
    parser.add_argument("--batch-size", type=int, help="structures at once; default: as many as are fast")
    parser.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def _where_not_stated() -> str:
    return f"where nothing states it: {', '.join(ENERGY_UNITS_IN_EV)}"


def _predict(args: argparse.Namespace) -> int:
    from ocp_dc.prediction_files import predict_file

    count = predict_file(
        args.checkpoint,
        args.structures,
        args.to,
        batch_size=args.batch_size,
        cpu=args.cpu,
        energy_unit=args.energy_unit,
        any_element=args.any_element,
        overwrite=args.overwrite,
    )
    print(f"energies (eV) and forces (eV/Å) of {count:,} structures written to {args.to}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from ocp_dc.evaluation import concatenate, conformation_errors, predict, read_labelled, summarize, write_result

    out = args.out or Path(args.checkpoint).parent / "result.json"
    extra = {"structures.csv": args.details, "parity.png": args.plot, "errors.png": args.plot}
    files = {name: out.with_name(f"{out.stem}_{name}") for name, wanted in extra.items() if wanted}
    for file in (out, *files.values()):
        require_writable(file, "--out", args.overwrite)
        if file.exists() and not _is_result(file):
            raise InputError(f"{file} is not of `ocp-dc evaluate`, so --overwrite does not replace it; name another")
    data = read_labelled(args.data, args.energy_unit)
    kept, found = [], []
    for batch in predict(args.checkpoint, data, args.batch_size, args.cpu, args.any_element):
        found.append(conformation_errors(batch))
        if args.plot:
            kept.append(batch)
    errors = concatenate(found)
    summary = summarize(errors, data.units.energy)
    print(format_errors(summary))
    write_result(out, summary, args.checkpoint, args.data)
    if without := errors.not_finite:
        print(
            f"ocp-dc: error: predictions for {len(without):,} of {len(errors.name):,} structures are not finite, the "
            f"first is {without[0]}; what cannot be told is null in {out}. Take an earlier checkpoint of the run",
            file=sys.stderr,
        )
        return 1
    if args.details:
        _print_details(files["structures.csv"], errors, summary.energy_unit)
    if args.plot:
        _draw(files["parity.png"], files["errors.png"], kept, errors, summary.energy_unit)
    print(f"written to {', '.join(map(str, (out, *files.values())))}")
    return 0


def _is_result(path: Path) -> bool:
    """Whether an earlier evaluation has written a file; a checkpoint, or a run's own result, is not replaced."""
    start = path.read_bytes()[:RESULT_BYTES]
    if path.suffix != ".json":
        return start.startswith((b"index,id,formula", b"\x89PNG"))
    try:
        return {"checkpoint", "data", "energy_mae"} <= json.loads(start).keys()
    except (ValueError, AttributeError):
        return False


def _print_details(path: Path, errors: ConformationErrors, energy_unit: str) -> None:
    from ocp_dc.evaluation_details import percentile_table, worst_table, write_errors

    print(f"\n{percentile_table(errors, energy_unit)}\n\n{worst_table(errors, energy_unit)}\n")
    write_errors(path, errors, energy_unit)


def _draw(
    parity: Path, histograms: Path, batches: list[Predictions], errors: ConformationErrors, energy_unit: str
) -> None:
    import torch

    from ocp_dc.evaluation_figures import draw_errors, draw_parity, png

    energies, forces = (
        tuple(torch.cat([getattr(batch, name).flatten() for batch in batches]).numpy() for name in names)
        for names in (("true_energy", "energy"), ("true_forces", "forces"))
    )
    title = f"{len(errors.name):,} structures"
    figures = {
        parity: draw_parity(title, energies, forces, energy_unit),
        histograms: draw_errors(title, errors.energy, errors.force, errors.largest_force, energy_unit),
    }
    for path, figure in figures.items():
        replace_bytes(path, png(figure))


def format_errors(errors: TestErrors) -> str:
    """The test errors as a table for the terminal."""
    unit = errors.energy_unit
    to_ev = energy_factor(unit, "eV")

    def energy(name: str, value: float) -> tuple[str, str, str]:
        return name, f"{value:.4f} {unit}", f"{value * to_ev:.5f} eV"

    rows = [
        ("conformations", f"{errors.conformations}", ""),
        energy("energy MAE", errors.energy_mae),
        *([energy("  centered", errors.energy_mae_centered)] if errors.energy_mae_centered is not None else []),
        energy("  offset", errors.energy_offset),
        ("force MAE", f"{errors.force_mae:.4f} {unit}/Å", f"{errors.force_mae_eV_per_angstrom:.5f} eV/Å"),
        ("EFwT", f"{100 * errors.efwt:.1f} %", "energy within 0.02 eV and every force component within 0.03 eV/Å"),
    ]
    return "\n".join(f"{name:<15}{in_source_units:>24}   {note}".rstrip() for name, in_source_units, note in rows)
