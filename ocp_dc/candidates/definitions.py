"""The candidates as data, and the runs that compare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from ocp_dc.config_files import config_file, has_config
from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import MD17, MODELS, OC22, Collection, changed_losses, check_known, collection_of
from ocp_dc.experiments.plan import IDENTITY, Run
from ocp_dc.experiments.scales import PUBLISHED_WIDTH, SMOKE, Scale
from ocp_dc.factors.definitions import ACTIVATION

TARGET = "candidates"
COLLECTIONS = {collection.name: collection for collection in (MD17, OC22)}


@dataclass(frozen=True)
class Candidate:
    """A config of a model, and what is changed in it.

    Attributes:
        title: what it is, for readers.
        overrides: arguments of `ocp-dc train`.
        activation: in the places where the paper's method has IReLU; None for the config's.
        losses: other settings of the loss, by target.
        config: follows the model in the config's name.
        models: that it is for.
    """

    title: str
    overrides: tuple[str, ...] = ()
    activation: str | None = None
    losses: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    config: str = "_recommended"
    models: tuple[str, ...] = tuple(MODELS)

    @property
    def changed(self) -> set[str]:
        """What it changes, of which two that are joined can have nothing in common."""
        of_losses = {f"{target}.{key}" for target, loss in self.losses.items() for key in loss}
        of_model = {"activation"} if self.activation else set()
        return {word.partition("=")[0] for word in self.overrides} | of_losses | of_model


# models by their recommended learning rates
_AT_3E_3, _AT_1E_3 = ("schnet", "cgcnn", "dimenetplusplus", "gemnet_t"), ("forcenet",)
# what all others are held against
RECOMMENDED = "recommended"
INTEGRATED = tuple(name for name in ACTIVATION if name not in ("original", "silu"))
CANDIDATES = {
    "baseline": Candidate("the paper's baseline", config=""),
    "method": Candidate("the paper's method", config="_dc"),
    RECOMMENDED: Candidate("the recommended config as it is"),
    **{name: Candidate(ACTIVATION[name], activation=name) for name in INTEGRATED},
    # the other models' own is SiLU
    "silu": Candidate(ACTIVATION["silu"], activation="silu", models=("schnet", "cgcnn", "gemnet_t")),
    "mean_force": Candidate("labels divided by the mean force", ("--task.label_rescaling=mean_force",)),
    "ema_0.99": Candidate("average of weights, decay 0.99", ("--optim.ema_decay=0.99",)),
    "ema_0.999": Candidate("average of weights, decay 0.999", ("--optim.ema_decay=0.999",)),
    "clip_1": Candidate("gradients clipped at 1", ("--optim.clip_grad_norm=1",)),
    "no_clip": Candidate("gradients not clipped", ("--optim.clip_grad_norm=None",)),
    "cosine": Candidate("no warm-up", ("--optim.scheduler=CosineAnnealingLR",)),
    "one_cycle": Candidate(
        "30 % of the steps to warm up, and momentum cycled", ("--optim.pct_start=0.3", "--optim.cycle_momentum=True")
    ),
    "plateau": Candidate(
        "rate halved when the force error on the validation set has not fallen in 4 epochs",
        ("--optim.scheduler=ReduceLROnPlateau", "--optim.mode=min", "--optim.factor=0.5", "--optim.patience=3"),
    ),
    "adamw": Candidate("AdamW, weight decay 0.01", ("--optim.optimizer=AdamW", "--optim.weight_decay=0.01")),
    "amsgrad": Candidate("AMSGrad", ("--optim.optimizer_params.amsgrad=True",)),
    "rate_0.001": Candidate("learning rate 1e-3", ("--optim.lr_initial=1.0e-3",), models=_AT_3E_3),
    "rate_0.003": Candidate("learning rate 3e-3", ("--optim.lr_initial=3.0e-3",), models=_AT_1E_3),
    "rate_0.01": Candidate("learning rate 1e-2", ("--optim.lr_initial=1.0e-2",)),
    "beta_10": Candidate("β = 10", losses={"forces": {"coefficient": 10}}),
    "beta_100": Candidate("β = 100", losses={"forces": {"coefficient": 100}}),
    "squared": Candidate("squared errors", losses={target: {"fn": "mse"} for target in ("energy", "forces")}),
    "vectors": Candidate("lengths of the forces' errors", losses={"forces": {"fn": "l2mae"}}),
    "batch_norm": Candidate("with BatchNorm", ("--model.denormalize=none",), models=("cgcnn", "forcenet")),
    "no_norm": Candidate("without LayerNorm too", ("--model.denormalize=all",), models=("cgcnn",)),
    "not_conservative": Candidate(
        "angles detached from positions", ("--model.conservative=False",), models=("dimenetplusplus",)
    ),
}

JOINT = "+"


def candidate_of(name: str) -> tuple[str, Candidate]:
    """A candidate, or several joined by +: all their changes in one, and named in the order of CANDIDATES.

    Raises:
        InputError: there is none of that name, or they cannot be joined.
    """
    names = name.split(JOINT)
    check_known("--candidate", names, CANDIDATES)
    parts = {each: CANDIDATES[each] for each in sorted(names, key=list(CANDIDATES).index)}
    if len(names) > 1:
        for first, second in combinations(names, 2):
            common = CANDIDATES[first].changed & CANDIDATES[second].changed
            if common:
                raise InputError(f"--candidate {name}: {first} and {second} both change {', '.join(sorted(common))}")
        unchanged = [each for each, part in parts.items() if not part.changed]
        if unchanged:
            raise InputError(f"--candidate {name}: {unchanged[0]} changes nothing that could be joined with others")
    joined = _joined(list(parts.values()))
    if not joined.models:
        raise InputError(f"--candidate {name}: these are of no model in common")
    return JOINT.join(parts), joined


def _joined(parts: Sequence[Candidate]) -> Candidate:
    if len(parts) == 1:
        return parts[0]
    losses: dict[str, dict[str, object]] = {}
    for target, loss in ((target, loss) for part in parts for target, loss in part.losses.items()):
        losses[target] = {**losses.get(target, {}), **loss}
    return Candidate(
        ", ".join(part.title for part in parts),
        tuple(word for part in parts for word in part.overrides),
        next((part.activation for part in parts if part.activation), None),
        losses,
        models=tuple(model for model in MODELS if all(model in part.models for part in parts)),
    )


# what the embedded samples have
_SMALL = {
    MD17: Scale("small", 800, 100, 100, 20, width="medium", settings=("--optim.num_workers=0",), own_classes=True),
    OC22: Scale("small", 320, 40, 40, 20, width="medium", settings=("--optim.num_workers=0",)),
}
# for long enough to see whether a learning rate is too high for the published widths: 200 steps, and 80 or 160 of OC22
_OF_SHORT_RUNS = {"name": "wide", "width": PUBLISHED_WIDTH, "epochs": 5}
SCALES = {
    ("small", MD17): _SMALL[MD17],
    ("small", OC22): _SMALL[OC22],
    ("wide", MD17): replace(_SMALL[MD17], **_OF_SHORT_RUNS),
    ("wide", OC22): replace(_SMALL[OC22], **_OF_SHORT_RUNS),
    ("smoke", MD17): SMOKE,
    ("smoke", OC22): SMOKE,
}


@dataclass(frozen=True)
class CandidateExperiment:
    """A model trained as a candidate says.

    Attributes:
        candidate: as :func:`candidate_of` names it.
        model: of ``MODELS``.
        molecule: of ``COLUMNS``.
        seed: of the weights and of the order of the training conformations.
    """

    candidate: str
    model: str
    molecule: str
    seed: int = 0

    @property
    def id(self) -> str:
        """A unique folder name, such as ``candidates-schnet-ethanol-no_clip-s0``."""
        return f"{TARGET}-{self.model}-{self.molecule}-{self.candidate}-s{self.seed}"

    @property
    def cell(self) -> str:
        """What runs share that differ in nothing but their seed: the name of the one with seed 0."""
        return replace(self, seed=0).id

    @classmethod
    def of_id(cls, name: str) -> CandidateExperiment:
        """The one of that id."""
        _, model, molecule, candidate, seed = name.split("-")
        return cls(candidate, model, molecule, int(seed.removeprefix("s")))

    @property
    def collection(self) -> Collection:
        return collection_of(self.molecule)

    @property
    def train_size(self) -> int:
        return self.collection.size

    @property
    def config(self) -> str:
        return f"{self.collection.name}/{self.model}{self.changes.config}"

    @property
    def changes(self) -> Candidate:
        return candidate_of(self.candidate)[1]

    def arguments(self, config: Mapping, epoch_steps: int) -> list[str]:
        """What is changed in its config, and nothing else."""
        candidate = self.changes
        return [
            *([f"--model.activation={candidate.activation}"] if candidate.activation else []),
            *candidate.overrides,
            *(changed_losses(config["loss_functions"], **candidate.losses) if candidate.losses else []),
        ]


class CandidateRun(Run):
    """It is tested on validation data too, and of no use once its config, or what is changed in it, is another."""

    work = "ocp_dc.candidates.training:train_validate_and_test"
    identity = (*IDENTITY, "overrides", "config_sha256")

    @property
    def settings(self) -> str:
        return " ".join([self.experiment.config, *(f'"{word}"' if " " in word else word for word in self.overrides)])


def experiments_of(
    molecule: str, seeds: int, models: Sequence[str] | None = None, candidates: Sequence[str] | None = None
) -> Iterator[CandidateExperiment]:
    """Seed by seed, model by model: the recommended protocol, and the candidates that are for the model.

    Args:
        molecule: of ``COLUMNS``.
        models: only these; None for all that have a recommended config.
        candidates: only these, as :func:`candidate_of` takes them; None for all.

    Raises:
        InputError: one is unknown, or a model that was asked for has no recommended config.
    """
    check_known("--model", models, MODELS)
    chosen = dict(map(candidate_of, candidates or CANDIDATES))
    chosen = {name: part for name, part in CANDIDATES.items() if name == RECOMMENDED or name in chosen} | chosen
    recommended = {model: CandidateExperiment(RECOMMENDED, model, molecule).config for model in models or MODELS}
    if models:
        for config in recommended.values():
            config_file(config)
    for seed in range(seeds):
        for model in (model for model, config in recommended.items() if has_config(config)):
            for name, candidate in chosen.items():
                if model in candidate.models:
                    yield CandidateExperiment(name, model, molecule, seed)


def on_validation(quantity: str) -> str:
    """The name that a quantity has where it is taken on the validation set."""
    return f"validation {quantity}"
