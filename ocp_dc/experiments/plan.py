"""From experiments to runs: what each will do, in which folder."""

from __future__ import annotations

import functools
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import ocp_dc
from ocp_dc.config_files import config_file
from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import Collection
from ocp_dc.experiments.scales import Scale
from ocp_dc.runs.records import write_description
from ocp_dc.runs.results import Cell
from ocp_dc.runs.running import Outcome

if TYPE_CHECKING:
    from ocp_dc.datasets.manifest import Manifest
    from ocp_dc.experiments.sources import Source

IDENTITY = ("config", "scale", "widths", "epochs", "steps", "split")
WORK = "ocp_dc.experiments.training:train_and_test"
# fairchem's --timestamp-id in every run's folder, which is where its log and checkpoint are
RUN_ID = "train"
LOG = f"logs/tensorboard/{RUN_ID}/metrics.jsonl"
CHECKPOINT = f"checkpoints/{RUN_ID}/checkpoint.pt"
# what plots are made of, beside result.json
PREDICTIONS_NAME = "errors.npz"


class Trainable(Protocol):
    """What a run trains: an instance of a dataclass, whose fields stand in ``experiment.json``.

    Attributes:
        id, cell: the names of its folder, and of what runs share that differ in nothing but their seed.
        config: the name of its config.
        model, molecule, train_size, seed, collection: as of an :class:`~ocp_dc.experiments.definitions.Experiment`.
    """

    id: str
    cell: str
    config: str
    model: str
    molecule: str
    train_size: int
    seed: int
    collection: Collection

    def arguments(self, config: Mapping, epoch_steps: int) -> list[str]:
        """What is added to `ocp-dc train --config-yml …`; see ``Experiment``."""


@dataclass(frozen=True)
class Run:
    """An experiment at a scale, on a source of conformations, in a folder of ``out``.

    Attributes:
        work: the function that does it, see :mod:`ocp_dc.runs`.
        identity: keys of its description that its folder cannot be used for with other values.
    """

    experiment: Trainable
    scale: Scale
    source: Source
    out: Path
    log = LOG
    work = WORK
    identity = IDENTITY

    @property
    def folder(self) -> Path:
        return self.out / "runs" / self.experiment.id

    @property
    def settings(self) -> str:
        return self.experiment.config

    @property
    def pace(self) -> tuple[str, ...]:
        """Runs of its config and molecule, of its model and molecule, of its config, and of its model are like it."""
        collection, molecule = self.experiment.collection.name, self.experiment.molecule
        of_config = f"{self.scale.width_name} {self.experiment.config}"
        of_model = f"{self.scale.width_name} {collection} {self.experiment.model}"
        return f"{of_config} {molecule}", f"{of_model} {molecule}", of_config, of_model

    @property
    def batch_size(self) -> int:
        return _config(self.experiment.config)["optim"]["batch_size"]

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
        return self.epochs * self._epoch_steps

    @property
    def _epoch_steps(self) -> int:
        return math.ceil(self.sizes["train"] / self.batch_size)

    @property
    def overrides(self) -> list[str]:
        """What the experiment changes of its config."""
        return self.experiment.arguments(_config(self.experiment.config), self._epoch_steps)

    @property
    def command(self) -> list[str]:
        """Trains it, from its checkpoint if there is one: its config, the data, the scale's overrides and its own."""
        return [
            *["ocp-dc", "train", "--config-yml", str(config_file(self.experiment.config))],
            # fairchem continues from the checkpoint of a --timestamp-id that is already there
            *["--run-dir", str(self.folder), "--timestamp-id", RUN_ID, "--seed", str(self.experiment.seed)],
            f"--dataset.train.src={self.data / 'train'}",
            f"--dataset.val.src={self.data / 'val'}",
            "--hide_eval_progressbar=True",
            *self.scale.overrides(self.experiment.model, _config(self.experiment.config)["model"]["name"]),
            *self.overrides,
        ]

    def describe(self, manifests: dict[str, Manifest]) -> None:
        """Writes ``experiment.json``: everything a worker needs, and a reader wants to know.

        Raises:
            InputError: the folder holds a run at another scale, or on other data.
        """
        manifest = manifests["train"]
        description = {
            "work": self.work,
            "steps": self.steps,
            "log": LOG,
            "cell": self.experiment.cell,
            "pace": self.pace,
            **asdict(self.experiment),
            "config": self.experiment.config,
            "scale": self.scale.name,
            # None: the scale's
            "widths": dict(self.scale.given) or None,
            "epochs": self.epochs,
            "split": {
                "sizes": self.sizes,
                "method": manifest.split_method,
                "seed": manifest.seed,
                "files": manifest.split_files,
                "source_file": manifest.source_file,
                "source_sha256": manifest.source_sha256,
                "theory": manifest.theory,
            },
            "overrides": self.overrides,
            "config_sha256": sha256(json.dumps(_config(self.experiment.config), sort_keys=True).encode()).hexdigest(),
            "command": shlex.join(self.command),
            "energy_unit": manifest.energy_unit,
            "val_data": str(self.data / "val"),
            "test_data": str(self.data / self.source.test_split),
            "test_batch_size": self.scale.test_batch_size,
            "ocp_dc_version": ocp_dc.__version__,
        }
        write_description(self.folder, description, self.identity)


def prepare(runs: Sequence[Run]) -> tuple[list[Run], list[Outcome]]:
    """Converts what is missing, and describes each run in its folder; those that can be run, and the others' failure.

    Raises:
        InputError: none can be run, or a folder holds something else.
    """
    ready, failed, prepared = [], [], {}
    for run in runs:
        if run.data not in prepared:
            try:
                prepared[run.data] = run.source.prepare(run.experiment.molecule, run.sizes, run.data)
            except InputError as error:
                prepared[run.data] = error
        if isinstance(prepared[run.data], InputError):
            failed.append(Outcome(run.folder, "failed", str(prepared[run.data])))
        else:
            run.describe(prepared[run.data])
            ready.append(run)
    if not ready:
        raise prepared[runs[0].data]
    return ready, failed


def check_path(out: Path) -> None:
    """Raises InputError where runs cannot be kept."""
    if "=" in str(out):
        raise InputError(f"--out {out}: fairchem cannot read a path with = in it; choose another")


def training_conformations(cell: Cell) -> int:
    """The number that a cell's runs were trained on; at a reduced scale not the experiment's."""
    return cell.runs[0].description["split"]["sizes"]["train"]


@functools.cache
def _config(name: str) -> dict:
    from fairchem.core.common.utils import load_config

    return load_config(config_file(name))[0]
