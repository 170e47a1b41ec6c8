#!/usr/bin/env python
"""Time evaluation and validation: this package's against stock fairchem's, on the embedded ethanol sample.

    python scripts/benchmark_inference.py
    python scripts/benchmark_inference.py --models schnet --width published --threads 2 --conformations 200

For each model it prints conformations a second, of networks that have not been trained:

- evaluation: the errors of `ocp-dc evaluate` (reading the data, energies, forces, per-conformation errors), at the
  default batch size and at 1, against fairchem's own `validate` at its default, the training batch of 20;
- validation: what `ocp-dc train` does between steps, against the same.

The sides take turns in this process, --repeats times after one that is not counted. The ratio is that of the medians;
in brackets, its range over the repeats. Models are built and checkpoints read beforehand. "MAE" is the largest relative
difference from stock's mean absolute errors; with another activation than `original` they are of two networks.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from benchmark_sides import MODELS, STOCK_MODELS, add_options, check_options, clock, machine, ratio, trainers_of

from ocp_dc.datasets.samples import sample_path
from ocp_dc.evaluation import concatenate, conformation_errors, predict_by
from ocp_dc.terminal import format_table

HEADER = ["model", "what", "ours, conf/s", "stock, conf/s", "stock / ours (range)", "MAE"]


def errors_by_evaluation(trainer, data: Path, batch_size: int | None) -> tuple[float, float]:
    errors = concatenate([conformation_errors(batch) for batch in predict_by(trainer, data, batch_size)])
    return float(errors.energy.mean()), float(errors.force.mean())


def errors_by_validation(trainer) -> tuple[float, float]:
    metrics = trainer.validate(disable_tqdm=True)
    return float(metrics["energy_mae"]["metric"]), float(metrics["forces_mae"]["metric"])


def rows(options: argparse.Namespace, model: str, folder: Path) -> list[list[str]]:
    sizes = {"train": 20, "val": options.conformations, "test": 1}
    with trainers_of(["ours", "stock"], options, model, sample_path(), sizes, folder) as trainers:
        ours = trainers["ours"]
        # a process can open an LMDB once
        data = shutil.copytree(folder / "ours" / "data" / "val", folder / "evaluated")
        work: dict[str, Callable[[], tuple[float, float]]] = {
            "evaluation": lambda: errors_by_evaluation(ours, data, None),
            "evaluation, batches of 1": lambda: errors_by_evaluation(ours, data, 1),
            "validation": lambda: errors_by_validation(ours),
        }
        if "stock" in trainers:
            work["stock"] = lambda: errors_by_validation(trainers["stock"])
        seconds, errors = {what: [] for what in work}, {}
        now = clock(options)
        for repeat in range(options.repeats + 1):
            for what, run in work.items():
                torch.set_flush_denormal(what != "stock")
                start = now()
                errors[what] = run()
                if repeat:
                    seconds[what].append(now() - start)
    return [
        [model, what, *compared(options.conformations, seconds[what], seconds.get("stock")), difference(errors, what)]
        for what in work
        if what != "stock"
    ]


def compared(count: int, ours: list[float], stock: list[float] | None) -> list[str]:
    own = f"{count / statistics.median(ours):,.0f}"
    return [own, f"{count / statistics.median(stock):,.0f}", ratio(ours, stock)] if stock else [own, "", ""]


def difference(errors: dict[str, tuple[float, float]], what: str) -> str:
    if "stock" not in errors:
        return ""
    pairs = zip(errors[what], errors["stock"], strict=True)
    return f"{max(abs(own / other - 1) for own, other in pairs):.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=STOCK_MODELS, help="default: fairchem's")
    add_options(parser)
    parser.set_defaults(activation="original")
    parser.add_argument("--conformations", type=int, default=960, help="at most 979 (default 960)")
    parser.add_argument("--repeats", type=int, default=5, help="default 5")
    options = parser.parse_args()
    check_options(parser, options, options.models)

    logging.disable()
    table = [HEADER]
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            table += rows(options, model, Path(folder))
    print(f"\n{options.width} width, {options.activation}, {options.conformations} conformations; {machine(options)}")
    print(format_table(table))


if __name__ == "__main__":
    main()
