"""Which runs make each table and figure of the paper on MD17 and OC22, and what the paper reports for them."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from ocp_dc.config_files import has_config
from ocp_dc.errors import InputError

PAPER_RESULTS = Path(__file__).parent / "paper_results.csv"
# the paper's; its runs as they were made where they differ from its text (OC22 without periodic images, ForceNet with
# its activations replaced by position); the paper's with another learning rate, halved every five epochs, an option of
# its scripts that the text does not mention, or falling to zero; this package's own
PROTOCOLS = ("paper", "as_published", "halved", "decayed", "recommended")
# those that have configs of their own
CONFIGURED = ("as_published", "recommended")
# what the others do to the paper's learning rate, which is constant
SCHEDULES = {
    "halved": "learning rate halved every five epochs",
    "decayed": "learning rate from 1e-3 to zero by a cosine",
}
HALVED_EVERY_EPOCHS = 5
PAPER_BETA = 30.0
# quantities of a run that the paper's tables show, and their columns in its records
MEASURED = {"energy MAE": "energy_mae", "force MAE": "force_mae"}


@dataclass(frozen=True)
class Collection:
    """What networks are trained on.

    Attributes:
        name: of its folder in configs and in paper_results.csv.
        title: for readers.
        size: number of training conformations in the paper's tables.
        energy_unit: in the paper's tables; forces are in this per Å.
        as_published: in what the published runs differ from the paper's text.
    """

    name: str
    title: str
    size: int
    energy_unit: str
    as_published: str


MD17 = Collection("md17", "MD17", 50_000, "kcal/mol", "activations replaced by position")
OC22 = Collection("oc22", "OC22", 200_000, "eV", "no periodic images")

# in the paper's order, with its abbreviations
MOLECULES = {
    "aspirin": "Asp.",
    "benzene": "Ben.",
    "ethanol": "Eth.",
    "malonaldehyde": "Mal.",
    "naphthalene": "Nap.",
    "salicylic": "Sal.",
    "toluene": "Tol.",
    "uracil": "Ura.",
}
# the columns of all tables; OC22 is one set of many compositions
COLUMNS = {**MOLECULES, OC22.name: OC22.title}
# what a variant adds to the model's config name
VARIANTS = {
    "original": "",
    "irelu": "_irelu",
    "rescaled": "_rescaled",
    "denorm+rescaled": "_denorm_rescaled",
    "irelu+rescaled": "_dc",
    "irelu+denorm+rescaled": "_dc",
    # in none of the paper's tables: another activation that is an integral, in the recommended protocol
    "integrated": "_integrated",
}


@dataclass(frozen=True)
class Model:
    """A network.

    Attributes:
        title: its name in the paper's tables.
        record: its name in the paper's records; None if it is not there, and in none of the paper's tables.
        method: the variant that is the paper's method (*): everything that applies to the model.
    """

    title: str
    record: str | None
    method: str

    @property
    def method_without_irelu(self) -> str:
        """The baseline of Table 8."""
        return self.method.removeprefix("irelu+")


# by the stem of their configs
MODELS = {
    "schnet": Model("SchNet", "schnet", "irelu+rescaled"),
    "cgcnn": Model("CGCNN", "cgcnn", "irelu+denorm+rescaled"),
    "dimenetplusplus": Model("DimeNet++", "dimenet_plus_plus", "irelu+rescaled"),
    "forcenet": Model("ForceNet", "forcenet", "irelu+denorm+rescaled"),
    "gemnet_t": Model("GemNet", "gemnet", "irelu+rescaled"),
}
PAPERS_MODELS = {name: model for name, model in MODELS.items() if model.record}


@dataclass(frozen=True)
class Experiment:
    """One training run and its test errors.

    Attributes:
        model: of ``MODELS``.
        variant: of ``VARIANTS``.
        molecule: of ``COLUMNS``.
        train_size: number of training conformations at the paper's scale.
        beta: coefficient of the force loss.
        seed: of the weights and of the order of the training conformations.
        protocol: of ``PROTOCOLS``.
    """

    model: str
    variant: str
    molecule: str
    train_size: int = MD17.size
    beta: float = PAPER_BETA
    seed: int = 0
    protocol: str = "paper"

    @property
    def id(self) -> str:
        """A unique folder name, such as ``schnet-irelu_rescaled-ethanol-50000-b30-s0``."""
        words = [self.model, self.variant.replace("+", "_"), self.molecule, str(self.train_size), f"b{self.beta:g}"]
        return "-".join([*words, f"s{self.seed}", *([self.protocol] if self.protocol != "paper" else [])])

    @property
    def cell(self) -> str:
        """What runs share that differ in nothing but their seed: the name of the one with seed 0."""
        return replace(self, seed=0).id

    @classmethod
    def of_id(cls, name: str) -> Experiment:
        """The one of that id."""
        model, variant, molecule, size, beta, seed, *protocol = name.split("-")
        numbers = int(size), float(beta.removeprefix("b")), int(seed.removeprefix("s"))
        return cls(model, variant.replace("_", "+"), molecule, *numbers, *protocol)

    @property
    def collection(self) -> Collection:
        return collection_of(self.molecule)

    @property
    def config(self) -> str:
        """The name of its config, such as ``md17/schnet_dc``.

        Raises:
            InputError: there is none for this model, variant and protocol.
        """
        suffix = VARIANTS[self.variant]
        of_protocol = f"_{self.protocol}" if self.protocol in CONFIGURED else ""
        name = f"{self.collection.name}/{self.model}{suffix}{of_protocol}"
        of_another_variant = suffix == "_dc" and self.variant != MODELS[self.model].method
        if of_another_variant or not has_config(name):
            raise InputError(
                f"{self.model}, variant {self.variant}, {self.protocol} protocol: there is no config {name}; add it to "
                "configs/, or choose others with --model and --variant"
            )
        return name

    def arguments(self, config: Mapping, epoch_steps: int) -> list[str]:
        """What is added to `ocp-dc train --config-yml …`: its β and its schedule, where they are not the config's.

        Args:
            config: of that name, as it is read.
            epoch_steps: optimizer steps of an epoch.
        """
        return [*self._beta(config["loss_functions"]), *self._schedule(epoch_steps)]

    def _schedule(self, epoch_steps: int) -> list[str]:
        if self.protocol == "halved":
            return halved_rate(epoch_steps)
        if self.protocol == "decayed":
            return ["--optim.lr_initial=1.0e-3", "--optim.scheduler=CosineAnnealingLR"]
        return []

    def _beta(self, losses: Sequence[dict]) -> list[str]:
        if self.beta == PAPER_BETA:
            return []
        return changed_losses(losses, forces={"coefficient": self.beta})


def changed_losses(losses: Sequence[dict], **changes: Mapping) -> list[str]:
    """A config's ``loss_functions`` as arguments, with other settings of some targets."""
    changed = [{target: {**loss, **changes.get(target, {})}} for entry in losses for target, loss in entry.items()]
    return [f"--loss_functions={changed}"]


def halved_rate(epoch_steps: int) -> list[str]:
    """The schedule that is an option of the paper's scripts, as arguments; the trainer's schedules count steps."""
    steps = HALVED_EVERY_EPOCHS * epoch_steps
    return ["--optim.scheduler=StepLR", f"--optim.step_size={steps}", "--optim.gamma=0.5"]


def collection_of(molecule: str) -> Collection:
    """What a column of the tables belongs to."""
    return OC22 if molecule == OC22.name else MD17


@dataclass(frozen=True)
class Row:
    """A model in a table: a baseline and, in the tables that compare, the method it is held against (*)."""

    model: str
    baseline: str
    method: str | None = None

    @property
    def variants(self) -> list[str]:
        return [variant for variant in (self.baseline, self.method) if variant]


@dataclass(frozen=True)
class Table:
    """The runs of a table, or of a figure, of the paper: every row on every molecule, size and β.

    Attributes:
        name: as on the command line and (its digit) in paper_results.csv.
        title: what it compares.
        rows: the models and their variants.
        molecules: the columns.
        sizes: numbers of training conformations; None for the collection's.
        betas: coefficients of the force loss.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    molecules: tuple[str, ...] = tuple(MOLECULES)
    sizes: tuple[int, ...] | None = None
    betas: tuple[float, ...] = (PAPER_BETA,)

    @property
    def collection(self) -> Collection:
        return collection_of(self.molecules[0])

    def experiments(self, molecules: Sequence[str], seed: int, protocol: str = "paper") -> Iterator[Experiment]:
        """The paper's, in its protocol or as published, which is the same where no config says otherwise."""
        sizes = self.sizes or (self.collection.size,)
        for row, molecule, size, beta in product(self.rows, molecules, sizes, self.betas):
            for variant in row.variants:
                if size <= LARGEST_SIZES.get(molecule, size):
                    of_run = protocol
                    if protocol == "as_published":
                        of_run = published_protocol(row.model, variant, self.collection)
                    yield Experiment(row.model, variant, molecule, size, beta, seed, of_run)


# the paper's Fig. 2 ends there, for want of conformations
LARGEST_SIZES = {"aspirin": 150_000, "uracil": 100_000}

_BASELINE_AND_METHOD = tuple(Row(name, "original", model.method) for name, model in PAPERS_MODELS.items())
_BASELINE_AND_IRELU = tuple(Row(name, "original", "irelu") for name in PAPERS_MODELS)
_IRELU_APART = tuple(Row(name, model.method_without_irelu, model.method) for name, model in PAPERS_MODELS.items())
_REST_APART = (Row("cgcnn", "original", "denorm+rescaled"), Row("forcenet", "original", "denorm+rescaled"))
# the paper could not run GemNet on OC22
_ON_OC22 = tuple(row for row in _BASELINE_AND_METHOD if row.model != "gemnet_t")
_BETAS = (0.01, 0.1, 1.0, 10.0, 30.0, 50.0, 100.0, 200.0)
_SIZES = (50_000, 100_000, 150_000, 200_000)
_ALL_THREE = "original activation and IReLU, with denormalization and label rescaling"
_TABLES = (
    Table("table1", "original settings and the paper's method", _BASELINE_AND_METHOD),
    Table("table2", "original settings and the paper's method", _ON_OC22, molecules=(OC22.name,)),
    Table("table7", "original activation and IReLU", _BASELINE_AND_IRELU),
    Table("table8", _ALL_THREE, _IRELU_APART),
    Table("table9", "without and with denormalization and label rescaling", _REST_APART),
    Table("fig1", "the weight β of the force loss", (Row("schnet", "original"),), ("aspirin",), betas=_BETAS),
    Table("fig2", "number of training conformations", (Row("schnet", "irelu+rescaled"),), sizes=_SIZES),
)
TABLES = {table.name: table for table in _TABLES}


@dataclass(frozen=True)
class PaperValue:
    """What the paper reports for an experiment, by the names of :data:`MEASURED`, in the collection's units.

    Attributes:
        published: the mean absolute errors in the published records; NaN where training diverged.
        printed: the number in the paper's table where it is not the record's, cut or rounded to its digits (the tables
            mostly cut).
    """

    published: Mapping[str, float]
    printed: Mapping[str, float] = field(default_factory=dict)


def experiments_of(
    target: str,
    models: Sequence[str] | None = None,
    molecules: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    seeds: int = 1,
    with_recommended: bool = False,
    as_published: bool = False,
    schedules: Sequence[str] = (),
) -> list[Experiment]:
    """The runs of a table or figure, each once, in a fixed order; a baseline and its method are neighbours.

    Args:
        target: a key of ``TABLES``.
        models, molecules, variants: only these; None for all that the paper has there. Fig. 1, which the paper has on
            aspirin, may be asked for on others.
        seeds: seeds 0 … seeds − 1.
        with_recommended: add the recommended protocol's runs for the models and molecules there.
        as_published: as the paper's runs were made, where that differs from its text.
        schedules: add the same runs with these, of ``SCHEDULES``.

    Raises:
        InputError: something is unknown, or nothing matches.
    """
    check_known("target", [target], TABLES)
    check_known("--model", models, MODELS)
    check_known("--molecule", molecules, MOLECULES)
    check_known("--variant", variants, VARIANTS)
    table = TABLES[target]
    protocol = "as_published" if as_published else "paper"
    if as_published and not any(each.protocol == protocol for each in table.experiments(table.molecules, 0, protocol)):
        raise InputError(f"--as-published: {target} was run as the paper's text has it; leave it out")
    if molecules and table.collection != MD17:
        raise InputError(f"--molecule {molecules[0]}: {target} is on {table.collection.title}; leave it out")
    columns = [name for name in COLUMNS if name in (molecules or table.molecules)]
    found = []
    for seed in range(seeds):
        found += table.experiments(columns, seed, protocol)
        for schedule in schedules:
            found += table.experiments(columns, seed, schedule)
        if with_recommended:
            found += _recommended_experiments(table, columns, seed)
    chosen = [
        experiment
        for experiment in dict.fromkeys(found)
        if experiment.model in (models or MODELS) and experiment.variant in (variants or VARIANTS)
    ]
    if not chosen:
        rows = "; ".join(f"{row.model}: {', '.join(row.variants)}" for row in table.rows)
        raise InputError(f"no run of {target} matches --model and --variant; it has {rows}")
    return chosen


def check_known(option: str, given: Sequence[str] | None, known: Iterable[str]) -> None:
    """Raises InputError if something given is none of those that are known."""
    for name in given or ():
        if name not in known:
            raise InputError(f"{option} {name} is unknown; choose from {', '.join(known)}")


def _recommended_experiments(table: Table, molecules: Sequence[str], seed: int) -> Iterator[Experiment]:
    for model, molecule in product(dict.fromkeys(row.model for row in table.rows), molecules):
        for variant in recommended_variants(model, table.collection):
            size = table.collection.size
            yield Experiment(model, variant, molecule, size, seed=seed, protocol="recommended")


@functools.cache
def recommended_variants(model: str, collection: Collection) -> tuple[str, ...]:
    """The variants of a model that a collection's configs have in the recommended protocol."""
    names = {variant: f"{collection.name}/{model}{suffix}_recommended" for variant, suffix in VARIANTS.items()}
    return tuple(variant for variant, name in names.items() if has_config(name))


@functools.cache
def published_protocol(model: str, variant: str, collection: Collection) -> str:
    """``as_published`` where the paper's run was not as its text has it and a config says how, else ``paper``."""
    name = f"{collection.name}/{model}{VARIANTS[variant]}_as_published"
    return "as_published" if has_config(name) else "paper"


def paper_value(experiment: Experiment, target: str | None = None) -> PaperValue | None:
    """What the paper reports for an experiment, whatever its seed; None where it reports nothing.

    Args:
        experiment: of any scale.
        target: the table or figure where it is reported, for the few experiments reported differently in different
            places (SchNet with IReLU and rescaling, 50,000 conformations: Tables 1 and 8, and Fig. 2). By default the
            first of them, in the tables' order.
    """
    if experiment.protocol in (*SCHEDULES, "recommended") or experiment.beta != PAPER_BETA:
        return None
    place = target.removeprefix("table") if target else None
    key = (MODELS[experiment.model].record, experiment.variant, experiment.molecule, experiment.train_size)
    values = (value for places, value in _paper_values().get(key, ()) if place is None or place in places)
    return next(values, None)


@functools.cache
def _paper_values() -> dict[tuple[str, str, str, int], list[tuple[list[str], PaperValue]]]:
    """Where in the paper and what, by model, variant, column and training size."""
    values = {}
    with PAPER_RESULTS.open(newline="") as file:
        for record in csv.DictReader(file):
            published, printed = (
                {name: float(record[before + column]) for name, column in MEASURED.items() if record[before + column]}
                for before in ("", "printed_")
            )
            place = record["molecule"] or record["dataset"]
            key = (record["model"], record["variant"], place, int(record["train_size"]))
            values.setdefault(key, []).append((record["tables"].split(";"), PaperValue(published, printed)))
    return values
