"""At what size an experiment is run: the paper's, or one that says less and takes less."""

from __future__ import annotations

from dataclasses import dataclass

from ocp_dc.experiments.definitions import PAPER_SIZE

# the settings of configs/md17 that smoke makes smaller, by the model's name in the paper's records
NARROW = {
    "schnet": {"hidden_channels": 32, "num_filters": 16, "num_interactions": 2, "num_gaussians": 10},
    "cgcnn": {"atom_embedding_size": 32, "num_graph_conv_layers": 2, "fc_feat_size": 16, "num_gaussians": 10},
    "dimenet_plus_plus": {
        **{"hidden_channels": 16, "out_emb_channels": 16, "num_blocks": 1, "int_emb_size": 8, "basis_emb_size": 4},
        # deriving the paper's 7 × 6 takes longer than training
        **{"num_spherical": 3, "num_radial": 3},
    },
    "forcenet": {"hidden_channels": 16, "decoder_hidden_channels": 16, "num_interactions": 2, "num_freqs": 5},
    "gemnet": {"emb_size_atom": 16, "emb_size_edge": 16},
}


@dataclass(frozen=True)
class Scale:
    """How many conformations, for how long, at which width.

    Attributes:
        name: ``paper``, ``small`` or ``smoke``.
        train: training conformations where the paper has 50,000; elsewhere in proportion.
        val, test: conformations for validation and test.
        test_batch_size: the paper's is 1.
        epochs: None for the config's.
        full_width: whether the networks are the paper's.
        settings: further arguments.
    """

    name: str
    train: int
    val: int
    test: int
    test_batch_size: int = 1
    epochs: int | None = None
    full_width: bool = True
    settings: tuple[str, ...] = ()

    def sizes(self, train_size: int) -> dict[str, int]:
        """Conformations of each split, for a training size of the paper."""
        return {"train": train_size * self.train // PAPER_SIZE, "val": self.val, "test": self.test}

    def overrides(self, model: str) -> list[str]:
        """What is added to `ocp-dc train --config-yml …` for this scale: nothing at the paper's."""
        epochs = [f"--optim.max_epochs={self.epochs}"] if self.epochs else []
        widths = [] if self.full_width else [f"--model.{key}={value}" for key, value in NARROW[model].items()]
        return [*epochs, *self.settings, *widths]


SCALES = {
    scale.name: scale
    for scale in (
        # the protocol to the letter
        Scale("paper", 50_000, 6_250, 6_250),
        # full width, 50 epochs of 40 steps: a molecule of Table 1 in a CPU-day or an hour of GPU
        Scale("small", 800, 100, 100),
        # whether everything runs: 20 steps of small networks
        Scale(
            "smoke", 100, 20, 20, 20, epochs=4, full_width=False, settings=("--optim.num_workers=0", "--print-every=5")
        ),
    )
}
