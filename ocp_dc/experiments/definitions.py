"""Which runs make each table and figure of the paper on MD17, and what the paper reports for them."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import ocp_dc
from ocp_dc.errors import InputError

CONFIGS = Path(ocp_dc.__file__).parent.parent / "configs" / "md17"
PAPER_RESULTS = Path(__file__).parent / "paper_results.csv"
PROTOCOLS = ("paper", "recommended")
PAPER_SIZE = 50_000
PAPER_BETA = 30.0

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
# what a variant adds to the model's config name
VARIANTS = {
    "original": "",
    "irelu": "_irelu",
    "rescaled": "_rescaled",
    "denorm+rescaled": "_denorm_rescaled",
    "irelu+rescaled": "_dc",
    "irelu+denorm+rescaled": "_dc",
}


@dataclass(frozen=True)
class Model:
    """A network of the paper.

    Attributes:
        title: its name in the paper's tables.
        stem: its baseline's config in configs/md17.
        method: the variant that is the paper's method (*): everything that applies to the model.
    """

    title: str
    stem: str
    method: str

    @property
    def method_without_irelu(self) -> str:
        """The baseline of Table 8."""
        return self.method.removeprefix("irelu+")


MODELS = {
    "schnet": Model("SchNet", "schnet", "irelu+rescaled"),
    "cgcnn": Model("CGCNN", "cgcnn", "irelu+denorm+rescaled"),
    "dimenet_plus_plus": Model("DimeNet++", "dimenetplusplus", "irelu+rescaled"),
    "forcenet": Model("ForceNet", "forcenet", "irelu+denorm+rescaled"),
    "gemnet": Model("GemNet", "gemnet_t", "irelu+rescaled"),
}


@dataclass(frozen=True)
class Experiment:
    """One training run and its test errors.

    Attributes:
        model: of ``MODELS``.
        variant: of ``VARIANTS``.
        molecule: of ``MOLECULES``.
        train_size: number of training conformations at the paper's scale.
        beta: coefficient of the force loss.
        seed: of the weights and of the order of the training conformations.
        protocol: ``paper``, or ``recommended``, which is this package's own.
    """

    model: str
    variant: str
    molecule: str
    train_size: int = PAPER_SIZE
    beta: float = PAPER_BETA
    seed: int = 0
    protocol: str = "paper"

    @property
    def id(self) -> str:
        """A unique folder name, such as ``schnet-irelu_rescaled-ethanol-50000-b30-s0``."""
        words = [self.model, self.variant.replace("+", "_"), self.molecule, str(self.train_size), f"b{self.beta:g}"]
        return "-".join([*words, f"s{self.seed}", *([self.protocol] if self.protocol != "paper" else [])])

    @property
    def config(self) -> str:
        """The name, without ``.yml``, of its config in configs/md17.

        Raises:
            InputError: there is none for this model, variant and protocol.
        """
        model = MODELS[self.model]
        name = f"{model.stem}{VARIANTS[self.variant]}{'' if self.protocol == 'paper' else f'_{self.protocol}'}"
        of_another_variant = name == f"{model.stem}_dc" and self.variant != model.method
        if of_another_variant or not (CONFIGS / f"{name}.yml").is_file():
            raise InputError(
                f"{self.model}, variant {self.variant}, {self.protocol} protocol: no config {name}.yml in {CONFIGS}; "
                "the configs come with a clone of the repository, installed with pip install --editable"
            )
        return name


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
        sizes: numbers of training conformations.
        betas: coefficients of the force loss.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    molecules: tuple[str, ...] = tuple(MOLECULES)
    sizes: tuple[int, ...] = (PAPER_SIZE,)
    betas: tuple[float, ...] = (PAPER_BETA,)

    def experiments(self, molecules: Sequence[str], seed: int) -> Iterator[Experiment]:
        for row, molecule, size, beta in product(self.rows, molecules, self.sizes, self.betas):
            for variant in row.variants:
                if size <= LARGEST_SIZES.get(molecule, size):
                    yield Experiment(row.model, variant, molecule, size, beta, seed)


# the paper's Fig. 2 ends there, for want of conformations
LARGEST_SIZES = {"aspirin": 150_000, "uracil": 100_000}

TABLES = {
    table.name: table
    for table in (
        Table(
            "table1",
            "original settings and the paper's method",
            tuple(Row(name, "original", model.method) for name, model in MODELS.items()),
        ),
        Table(
            "table7",
            "original activation and IReLU",
            tuple(Row(name, "original", "irelu") for name in MODELS),
        ),
        Table(
            "table8",
            "original activation and IReLU, with denormalization and label rescaling",
            tuple(Row(name, model.method_without_irelu, model.method) for name, model in MODELS.items()),
        ),
        Table(
            "table9",
            "without and with denormalization and label rescaling",
            tuple(Row(name, "original", "denorm+rescaled") for name in ("cgcnn", "forcenet")),
        ),
        Table(
            "fig1",
            "the weight β of the force loss",
            (Row("schnet", "original"),),
            molecules=("aspirin",),
            betas=(0.01, 0.1, 1.0, 10.0, 30.0, 50.0, 100.0, 200.0),
        ),
        Table(
            "fig2",
            "number of training conformations",
            (Row("schnet", "irelu+rescaled"),),
            sizes=(50_000, 100_000, 150_000, 200_000),
        ),
    )
}


@dataclass(frozen=True)
class PaperValue:
    """What the paper reports for an experiment, in kcal/mol and kcal/mol/Å; NaN where training diverged.

    Attributes:
        energy, force: the mean absolute errors in the published records.
        printed_energy, printed_force: the number in the paper's table where it is not the record's, cut or rounded to
            its digits (the tables mostly cut); None where it is.
    """

    energy: float
    force: float
    printed_energy: float | None = None
    printed_force: float | None = None


def experiments_of(
    target: str,
    models: Sequence[str] | None = None,
    molecules: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    seeds: int = 1,
    with_recommended: bool = False,
) -> list[Experiment]:
    """The runs of a table or figure, each once, in a fixed order; a baseline and its method are neighbours.

    Args:
        target: a key of ``TABLES``.
        models, molecules, variants: only these; None for all that the paper has there. Fig. 1, which the paper has on
            aspirin, may be asked for on others.
        seeds: seeds 0 … seeds − 1.
        with_recommended: add the recommended protocol's runs for the models and molecules there.

    Raises:
        InputError: something is unknown, or nothing matches.
    """
    for key, given, known in (
        ("target", [target], TABLES),
        ("--model", models, MODELS),
        ("--molecule", molecules, MOLECULES),
        ("--variant", variants, VARIANTS),
    ):
        unknown = [name for name in given or () if name not in known]
        if unknown:
            raise InputError(f"{key} {unknown[0]} is unknown; choose from {', '.join(known)}")
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least one seed is needed")

    columns = [name for name in MOLECULES if name in (molecules or TABLES[target].molecules)]
    found = []
    for seed in range(seeds):
        found += TABLES[target].experiments(columns, seed)
        if with_recommended:
            found += _recommended_experiments(TABLES[target], columns, seed)
    chosen = [
        experiment
        for experiment in dict.fromkeys(found)
        if experiment.model in (models or MODELS) and experiment.variant in (variants or VARIANTS)
    ]
    if not chosen:
        rows = "; ".join(f"{row.model}: {', '.join(row.variants)}" for row in TABLES[target].rows)
        raise InputError(f"no run of {target} matches --model and --variant; it has {rows}")
    return chosen


def _recommended_experiments(table: Table, molecules: Sequence[str], seed: int) -> Iterator[Experiment]:
    for model, molecule in product(dict.fromkeys(row.model for row in table.rows), molecules):
        for variant in recommended_variants(model):
            yield Experiment(model, variant, molecule, seed=seed, protocol="recommended")


@functools.cache
def recommended_variants(model: str) -> tuple[str, ...]:
    """The variants of a model that configs/md17 has in the recommended protocol."""
    stem = MODELS[model].stem
    names = {variant: f"{stem}{suffix}_recommended.yml" for variant, suffix in VARIANTS.items()}
    return tuple(variant for variant, name in names.items() if (CONFIGS / name).is_file())


def paper_value(experiment: Experiment, target: str | None = None) -> PaperValue | None:
    """What the paper reports for an experiment, whatever its seed; None where it reports nothing.

    Args:
        experiment: of any scale.
        target: the table or figure where it is reported, for the few experiments reported differently in different
            places (SchNet with IReLU and rescaling, 50,000 conformations: Tables 1 and 8, and Fig. 2). By default the
            first of them, in the tables' order.
    """
    if experiment.protocol != "paper" or experiment.beta != PAPER_BETA:
        return None
    place = target.removeprefix("table") if target else None
    key = (experiment.model, experiment.variant, experiment.molecule, experiment.train_size)
    values = (value for places, value in _paper_values().get(key, ()) if place is None or place in places)
    return next(values, None)


@functools.cache
def _paper_values() -> dict[tuple[str, str, str, int], list[tuple[list[str], PaperValue]]]:
    """Where in the paper and what, by model, variant, molecule and training size."""
    values = {}
    with PAPER_RESULTS.open(newline="") as file:
        for record in csv.DictReader(file):
            if record["dataset"] != "md17":
                continue
            printed = [
                float(record[key]) if record[key] else None for key in ("printed_energy_mae", "printed_force_mae")
            ]
            value = PaperValue(float(record["energy_mae"]), float(record["force_mae"]), *printed)
            key = (record["model"], record["variant"], record["molecule"], int(record["train_size"]))
            values.setdefault(key, []).append((record["tables"].split(";"), value))
    return values
