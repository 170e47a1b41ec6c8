"""The factors, their levels, and the experiments that they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

from ocp_dc.experiments.definitions import MD17, Collection, check_known, halved_rate
from ocp_dc.experiments.scales import SMOKE, Scale

MOLECULE = "ethanol"
# levels and their names for readers, by factor; the first of each makes the paper's baseline
ACTIVATION = {
    "original": "shifted softplus",
    "silu": "SiLU",
    "irelu": "IReLU",
    "bounded_irelu": "bounded IReLU",
    "integrated_silu": "integrated SiLU",
    "integrated_elu": "integrated ELU",
    "integrated_softplus": "integrated softplus",
}
LABELS = {"raw": "as they are", "rescaled": "divided by C = 1,000,000", "centered": "mean energy removed"}
RATE = {"constant": "constant", "halved": "halved every five epochs", "cosine": "to zero by a cosine"}
FACTORS: dict[str, Mapping[str, str]] = {"activation": ACTIVATION, "labels": LABELS, "rate": RATE}
# what others are held against
REFERENCES = {
    "paper's baseline": ("original", "raw", "constant"),
    "paper's method": ("irelu", "rescaled", "constant"),
}

_OF_LABELS = {"raw": ("none", "none"), "rescaled": ("1.0e+6", "none"), "centered": ("none", "mean")}

# In batches of 20: 50 epochs of 4,000 conformations are 10,000 steps. The width is the smallest that learns well: after
# 2,000 steps with labels centered and the cosine, IReLU's force error is 5.3 kcal/mol/Å, with narrow networks 10.8.
SCALES = {
    scale.name: scale
    for scale in (
        Scale("full", 4_000, 500, 1_000, 20, width="small", settings=("--optim.num_workers=0",)),
        # what the embedded sample has: 2,000 steps
        Scale("small", 800, 100, 100, 20, width="small", settings=("--optim.num_workers=0",)),
        SMOKE,
    )
}


@dataclass(frozen=True)
class FactorExperiment:
    """SchNet with one level of each factor.

    Attributes:
        activation, labels, rate: levels of :data:`FACTORS`.
        molecule: of MD17.
        seed: of the weights and of the order of the training conformations.
    """

    activation: str
    labels: str
    rate: str
    molecule: str = MOLECULE
    seed: int = 0
    # whatever the activation: one and the same code
    config: ClassVar[str] = "md17/schnet_irelu"
    model: ClassVar[str] = "schnet"
    train_size: ClassVar[int] = MD17.size
    collection: ClassVar[Collection] = MD17

    @property
    def id(self) -> str:
        """A unique folder name, such as ``factors-ethanol-irelu-rescaled-constant-s0``."""
        return f"factors-{self.molecule}-{'-'.join(self.levels)}-s{self.seed}"

    @property
    def cell(self) -> str:
        """What runs share that differ in nothing but their seed: the name of the one with seed 0."""
        return replace(self, seed=0).id

    @classmethod
    def of_id(cls, name: str) -> FactorExperiment:
        """The one of that id."""
        _, molecule, *levels, seed = name.split("-")
        return cls(*levels, molecule, int(seed.removeprefix("s")))

    @property
    def levels(self) -> tuple[str, str, str]:
        return self.activation, self.labels, self.rate

    def arguments(self, config: Mapping, epoch_steps: int) -> list[str]:
        """All that the levels mean, whether or not the config has the same."""
        rescaling, reference = _OF_LABELS[self.labels]
        schedules = {
            "constant": ["--optim.scheduler=Null"],
            "halved": halved_rate(epoch_steps),
            "cosine": ["--optim.scheduler=CosineAnnealingLR"],
        }
        return [
            f"--model.activation={self.activation}",
            f"--task.label_rescaling={rescaling}",
            f"--task.reference_energy={reference}",
            *schedules[self.rate],
        ]


def experiments_of(molecule: str, seeds: int, **levels: Sequence[str] | None) -> Iterator[FactorExperiment]:
    """Every combination of levels, seed by seed.

    Args:
        levels: only these of a factor; None for all.

    Raises:
        InputError: one is unknown.
    """
    for factor, asked in levels.items():
        check_known(f"--{factor}", asked, FACTORS[factor])
    chosen = [[level for level in known if level in (levels.get(factor) or known)] for factor, known in FACTORS.items()]
    for seed, combination in product(range(seeds), product(*chosen)):
        yield FactorExperiment(*combination, molecule, seed)
