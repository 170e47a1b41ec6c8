"""At what size an experiment is run: the paper's, or one that says less and takes less."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ocp_dc.errors import InputError
from ocp_dc.experiments.definitions import MD17, OC22, Collection

# Settings that replace those of the configs, by width and model. DimeNet++'s narrow ones have few basis functions:
# deriving the paper's 7 × 6 takes longer than training.
PUBLISHED_WIDTH = "full"
WIDTHS_FILE = Path(__file__).with_name("widths.json")
WIDTHS: dict[str, dict[str, dict[str, int]]] = json.loads(WIDTHS_FILE.read_text())
# fairchem's classes, and this package's, which with the activation `original` are the same networks to rounding
OWN_CLASSES = {name: f"{name}_irelu" for name in ("schnet", "dimenetplusplus", "gemnet_t")}


@dataclass(frozen=True)
class Scale:
    """How many conformations, for how long, at which width.

    Attributes:
        name: of ``SCALE_NAMES``.
        train: training conformations for the collection's number in the paper's tables; elsewhere in proportion.
        val, test: conformations for validation and test.
        test_batch_size: the paper's is 1 on MD17.
        epochs: None for the config's.
        width: of the networks, ``full`` (the paper's) or of ``WIDTHS``.
        settings: further arguments.
        slow: models that are left out unless they are asked for.
        own_classes: whether this package's classes stand for fairchem's: their steps are traced, and take a third of
            the time.
        given: widths that replace those of ``width``, by the model's setting; see :meth:`with_widths`.
    """

    name: str
    train: int
    val: int
    test: int
    test_batch_size: int = 1
    epochs: int | None = None
    width: str = PUBLISHED_WIDTH
    settings: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    own_classes: bool = False
    given: tuple[tuple[str, int], ...] = ()

    def with_widths(self, given: Sequence[str], models: Iterable[str]) -> Scale:
        """The same with other widths, such as ``hidden_channels=32``.

        Raises:
            InputError: one is no setting of a model's width, or no number above 0.
        """
        widths = {}
        for setting in given:
            key, _, number = setting.partition("=")
            if not (number.isascii() and number.isdigit() and int(number)):
                raise InputError(f"--width {setting}: give a setting of the model and a number, hidden_channels=32")
            widths[key] = int(number)
        for model in models:
            known = dict.fromkeys(key for of_models in WIDTHS.values() for key in of_models.get(model, ()))
            unknown = [key for key in widths if key not in known]
            if unknown:
                raise InputError(f"--width {unknown[0]}={widths[unknown[0]]}: {model} has {', '.join(known)}")
        return replace(self, given=tuple(sorted(widths.items())))

    @property
    def width_name(self) -> str:
        """What runs share whose networks of a model are as wide."""
        return " ".join([self.width, *(f"{key}={value}" for key, value in self.given)])

    def sizes(self, train_size: int, collection: Collection) -> dict[str, int]:
        """Conformations of each split, for a training size of the paper."""
        return {"train": train_size * self.train // collection.size, "val": self.val, "test": self.test}

    def overrides(self, model: str, network: str) -> list[str]:
        """What is added to `ocp-dc train --config-yml …` for this scale: nothing at the paper's.

        Args:
            model: of the widths.
            network: the config's ``model.name``.
        """
        epochs = [f"--optim.max_epochs={self.epochs}"] if self.epochs else []
        changed = {**self._class(network), **self.widths(model), **dict(self.given)}
        return [*epochs, *self.settings, *(f"--model.{key}={value}" for key, value in changed.items())]

    def _class(self, network: str) -> dict[str, str | bool]:
        if not self.own_classes or network not in OWN_CLASSES:
            return {}
        # molecules have no periodic images, for which fairchem's classes look all the same
        return {"name": OWN_CLASSES[network], "activation": "original", "use_pbc": False}

    def has_widths(self, model: str) -> bool:
        """Whether it says how wide a model is."""
        return self.width == PUBLISHED_WIDTH or model in WIDTHS[self.width]

    def widths(self, model: str) -> dict[str, int]:
        """Settings that replace those of a model's configs.

        Raises:
            InputError: there are none for it.
        """
        if self.width == PUBLISHED_WIDTH:
            return {}
        if not self.has_widths(model):
            raise InputError(
                f"--scale {self.name} has no widths for {model}, only for {', '.join(WIDTHS[self.width])}: choose with "
                f"--model, or add it to {self.width} in {WIDTHS_FILE}"
            )
        return WIDTHS[self.width][model]


SCALE_NAMES = ("paper", "length", "small", "quickstart", "smoke")
# whether everything runs: some 20 steps of small networks
SMOKE = Scale("smoke", 100, 20, 20, 20, epochs=4, width="narrow", settings=("--optim.num_workers=0", "--print-every=5"))
SCALES = {
    (scale.name, collection): scale
    for collection, scales in {
        MD17: (
            # the protocol to the letter
            Scale("paper", 50_000, 6_250, 6_250),
            # all of its 125,000 steps, of small networks: what the method does in the end, in hours of CPU
            Scale(
                "length",
                train=50_000,
                val=6_250,
                test=6_250,
                test_batch_size=20,
                width="small",
                settings=("--optim.num_workers=0",),
                slow=("gemnet_t",),
                own_classes=True,
            ),
            # full width, 50 epochs of 40 steps: a molecule of Table 1 in a CPU-day or an hour of GPU
            Scale("small", 800, 100, 100),
            # what can be seen in minutes
            Scale(
                "quickstart",
                train=800,
                val=100,
                test=100,
                test_batch_size=20,
                epochs=75,
                width="small",
                settings=("--dataset.train.format=md17_packed", "--optim.eval_every=200", "--optim.num_workers=0"),
                slow=("gemnet_t",),
                own_classes=True,
            ),
            SMOKE,
        ),
        OC22: (
            Scale("paper", 200_000, 25_000, 25_000, 20),
            # a slab has ten times a molecule's edges: smaller networks, the paper's 50 epochs, some ten minutes of CPU
            Scale("small", 320, 40, 40, 20, width="medium"),
            SMOKE,
        ),
    }.items()
    for scale in scales
}


def scale_of(name: str, collection: Collection) -> Scale:
    """A scale that fits a collection.

    Raises:
        InputError: it has none of that name.
    """
    if (name, collection) not in SCALES:
        known = ", ".join(scale for scale, of in SCALES if of == collection)
        raise InputError(f"--scale {name} is not for {collection.title}; choose from {known}")
    return SCALES[name, collection]
