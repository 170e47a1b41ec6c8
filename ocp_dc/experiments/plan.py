"""From experiments to runs: what each will do, in which folder, and how long that takes."""

from __future__ import annotations

import functools
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fairchem.core.common.utils import load_config

import ocp_dc
from ocp_dc.datasets.manifest import Manifest
from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import PAPER_BETA, Experiment, config_file
from ocp_dc.experiments.records import DONE, RUN_ID, last_logged_step, read_record, write_record
from ocp_dc.experiments.scales import SCALES, Scale
from ocp_dc.experiments.sources import Source

# what a run's folder cannot be used for with other values
IDENTITY = ("config", "scale", "epochs", "steps", "split")


@dataclass(frozen=True)
class Run:
    """An experiment at a scale, on a source of conformations, in a folder of ``out``."""

    experiment: Experiment
    scale: Scale
    source: Source
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / "runs" / self.experiment.id

    @property
    def data(self) -> Path:
        molecule = self.experiment.molecule
        if self.source.split_dir is not None:
            return self.out / "data" / f"{molecule}-given"
        return self.out / "data" / f"{molecule}-{self.sizes['train']}-s{self.source.split_seed}"

    @property
    def sizes(self) -> dict[str, int]:
        """Conformations of each split."""
        sizes = self.scale.sizes(self.experiment.train_size, self.experiment.collection)
        return self.source.sizes(self.experiment.molecule, sizes)

    @property
    def epochs(self) -> int:
        return self.scale.epochs or _config(self.experiment.config)["optim"]["max_epochs"]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * math.ceil(self.sizes["train"] / _config(self.experiment.config)["optim"]["batch_size"])

    @property
    def command(self) -> list[str]:
        """Trains it, from its checkpoint if there is one: the paper's config, the data, and the scale's overrides."""
        return [
            *("ocp-dc", "train", "--config-yml", str(config_file(self.experiment.config))),
            # the host continues from the checkpoint of a --timestamp-id that is already there
            *("--run-dir", str(self.folder), "--timestamp-id", RUN_ID, "--seed", str(self.experiment.seed)),
            *(f"--dataset.train.src={self.data / 'train'}", f"--dataset.val.src={self.data / 'val'}"),
            "--hide_eval_progressbar=True",
            *self._beta(),
            *self.scale.overrides(self.experiment.model),
        ]

    def _beta(self) -> list[str]:
        if self.experiment.beta == PAPER_BETA:
            return []
        losses = _config(self.experiment.config)["loss_functions"]
        changed = [
            {target: {**loss, "coefficient": self.experiment.beta} if target == "forces" else loss}
            for entry in losses
            for target, loss in entry.items()
        ]
        return [f"--loss_functions={changed}"]

    def write_description(self, manifests: dict[str, Manifest]) -> None:
        """``experiment.json``: everything a worker needs, and a reader wants to know.

        Raises:
            InputError: the folder holds a run at another scale, or on other data.
        """
        manifest = manifests["train"]
        description = {
            **asdict(self.experiment),
            "config": self.experiment.config,
            "scale": self.scale.name,
            "epochs": self.epochs,
            "steps": self.steps,
            "split": {
                "sizes": self.sizes,
                "method": manifest.split_method,
                "seed": manifest.seed,
                "files": manifest.split_files,
                "source_file": manifest.source_file,
                "source_sha256": manifest.source_sha256,
                "theory": manifest.theory,
            },
            "command": shlex.join(self.command),
            "test_data": str(self.data / self.source.test_split),
            "test_batch_size": self.scale.test_batch_size,
            "ocp_dc_version": ocp_dc.__version__,
        }
        path = self.folder / "experiment.json"
        earlier = read_record(path)
        different = [key for key in IDENTITY if earlier and earlier[key] != description[key]]
        if different:
            key = different[0]
            raise InputError(
                f"{self.folder} is of a run with {key} {json.dumps(earlier[key])}, not "
                f"{json.dumps(description[key])}; choose another --out, or remove that folder"
            )
        write_record(path, description)


@functools.cache
def _config(name: str) -> dict:
    return load_config(config_file(name))[0]


class StepTimes:
    """Seconds per training step in the runs that finished in a folder."""

    def __init__(self, out: Path) -> None:
        self._measured: dict[tuple, list[float]] = {}
        for path in out.glob("runs/*/experiment.json"):
            description, result = read_record(path), read_record(path.with_name("result.json"))
            if result and result["status"] == "finished" and result["seconds"]:
                experiment = Experiment.of_record(description)
                for key in self._keys(experiment, description["scale"]):
                    self._measured.setdefault(key, []).append(result["seconds"] / result["step"])

    def of(self, run: Run) -> float | None:
        """The mean over runs of its config and molecule, or else of its config, or of its model; None without any."""
        keys = self._keys(run.experiment, run.scale.name)
        times = next((self._measured[key] for key in keys if key in self._measured), None)
        return sum(times) / len(times) if times else None

    @staticmethod
    def _keys(experiment: Experiment, scale: str) -> list[tuple]:
        """From the closest to the least close."""
        collection, config = experiment.collection, experiment.config
        width = SCALES[scale, collection].width
        return [(width, config, experiment.molecule), (width, config), (width, collection, experiment.model)]


def format_plan(runs: Sequence[Run], out: Path) -> str:
    """The runs with their configs, steps, estimated times and states; ``N runs`` in the last line."""
    step_times = StepTimes(out)
    rows = [("#", "run", "config", "steps", "estimated", "state")]
    seconds = []
    for index, run in enumerate(runs):
        result, step = read_record(run.folder / "result.json"), last_logged_step(run.folder)
        estimate, state = "", f"at step {step:,}" if step else "to do"
        if result and result["status"] in DONE:
            state = result["status"]
        else:
            step_time = step_times.of(run)
            seconds.append(None if step_time is None else step_time * (run.steps - step))
            estimate = "not measured" if step_time is None else format_duration(seconds[-1])
        rows.append((str(index), run.experiment.id, run.experiment.config, f"{run.steps:,}", estimate, state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, _format_total(seconds), f"{len(runs)} runs"])


def _format_total(seconds: Sequence[float | None]) -> str:
    measured = [value for value in seconds if value is not None]
    if not seconds:
        return "nothing is left to do"
    if not measured:
        return "estimated time: not measured; it will be from the runs that finish"
    total = f"estimated time, one run after the other: {format_duration(sum(measured))}"
    left = len(seconds) - len(measured)
    return f"{total}, and that of {left} runs whose step time is not measured yet" if left else total


def format_duration(seconds: float) -> str:
    """To two units, such as ``3 h 20 min``."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes % (24 * 60) // 60} h"
