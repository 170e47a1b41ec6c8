"""What the paper says of its Tables 1, 2, 7, 8 and 9, as data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ocp_dc.experiments.definitions import (
    MEASURED,
    PAPERS_MODELS,
    TABLES,
    Experiment,
    paper_value,
    published_protocol,
)
from ocp_dc.runs.comparison import Direction

LOWER, HIGHER, NOT_LOWER = Direction
ENERGY, FORCE = MEASURED
ALL = tuple(PAPERS_MODELS)


@dataclass(frozen=True)
class Claim:
    """That a change moves an error of some models in a direction.

    Attributes:
        table: of ``TABLES``; its baselines and methods are what is compared, unless ``variants`` says otherwise.
        models: that it is about.
        quantity: of :data:`~ocp_dc.experiments.definitions.MEASURED`.
        direction: in which the error goes.
        words: the claim, in short.
        where: in the paper.
        variants: baseline and method, where they are not those of the table.
    """

    table: str
    models: tuple[str, ...]
    quantity: str
    direction: Direction
    words: str
    where: str
    variants: tuple[str, str] | None = None

    def pairs(self, protocol: str = "paper") -> Iterator[tuple[Experiment, Experiment]]:
        """Baseline and method, of each model on each molecule; as published only where that is not the paper's."""
        table = TABLES[self.table]
        rows = {row.model: row for row in table.rows}
        for model in self.models:
            variants = self.variants or (rows[model].baseline, rows[model].method)
            for molecule in table.molecules:
                baseline, method = (
                    Experiment(
                        model,
                        variant,
                        molecule,
                        table.collection.size,
                        protocol=published_protocol(model, variant, table.collection)
                        if protocol == "as_published"
                        else protocol,
                    )
                    for variant in variants
                )
                if protocol in (baseline.protocol, method.protocol):
                    yield baseline, method

    def papers_count(self, model: str) -> tuple[int, int]:
        """On how many molecules the paper's own numbers show it, of how many that they are given for."""
        shown = []
        for baseline, method in self.pairs():
            values = [paper_value(each) for each in (baseline, method)]
            if baseline.model == model and all(values):
                shown.append(_shows(self.direction, *(value.published[self.quantity] for value in values)))
        return sum(shown), len(shown)


def _shows(direction: Direction, baseline: float, method: float) -> bool:
    """Of the paper's numbers, of which those that diverged are NaN."""
    if direction is LOWER:
        return method < baseline
    diverged = math.isnan(method) and not math.isnan(baseline)
    return method > baseline or diverged if direction is HIGHER else not method < baseline


_IRELU_ALONE = "IReLU alone does not consistently lower it"
CLAIMS = (
    Claim("table1", ALL, ENERGY, LOWER, "the method lowers the energy error (38 of 40 cases)", "Sec. 5.1.1"),
    Claim(
        "table1",
        ("cgcnn", "dimenetplusplus", "forcenet"),
        FORCE,
        LOWER,
        "the method lowers the force error significantly",
        "Sec. 5.1.1",
    ),
    Claim(
        "table1",
        ("schnet", "gemnet_t"),
        FORCE,
        HIGHER,
        "there are cases where the method is worse on forces",
        "Sec. 5.1.1",
    ),
    Claim(
        "table2",
        ("cgcnn", "dimenetplusplus", "forcenet"),
        FORCE,
        LOWER,
        "the method gives better forces",
        "Sec. 5.1.2",
    ),
    Claim("table2", ("cgcnn", "dimenetplusplus"), ENERGY, LOWER, "it improves energies there too", "Sec. 5.1.2"),
    Claim("table2", ("schnet",), ENERGY, HIGHER, "SchNet with the method performs worse", "Sec. 5.1.2"),
    Claim("table2", ("schnet",), FORCE, HIGHER, "SchNet with the method performs worse", "Sec. 5.1.2"),
    Claim("table7", ALL, ENERGY, NOT_LOWER, _IRELU_ALONE, "Appx. C.1"),
    Claim("table7", ALL, FORCE, NOT_LOWER, _IRELU_ALONE, "Appx. C.1"),
    Claim("table8", ALL, ENERGY, LOWER, "with the rest of the method, IReLU largely lowers it", "Appx. C.1"),
    Claim("table8", ALL, FORCE, LOWER, "with the rest of the method, IReLU lowers it in most cases", "Appx. C.1"),
    Claim(
        "table9",
        ("cgcnn", "forcenet"),
        FORCE,
        LOWER,
        "denormalization and rescaling lower it by a large amount",
        "Appx. C.2",
    ),
    Claim("table9", ("cgcnn", "forcenet"), ENERGY, HIGHER, "at the cost of higher energy errors", "Appx. C.2"),
    Claim(
        "table9",
        ("cgcnn", "forcenet"),
        FORCE,
        LOWER,
        "with IReLU, denormalization and rescaling lower it (Table 7 against Table 1)",
        "Tables 1, 7",
        variants=("irelu", "irelu+denorm+rescaled"),
    ),
)
