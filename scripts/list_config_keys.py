#!/usr/bin/env python
"""Prints the tables of docs/configuration.md: every key of the configs, with its values there, and this package's own.

``--to FILE`` writes them in the place of the file's own, which are what follows its line ``## Every key``.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fairchem.core.common.utils import load_config

import ocp_dc.trainers  # noqa: F401  registers models and trainer
from ocp_dc.activations import ORIGINAL, known_activations
from ocp_dc.config_files import config_file, config_names
from ocp_dc.references import REFERENCE_KINDS
from ocp_dc.trainers.traced_step import MODES

HEADING = "## Every key\n"
# this package's: what it is, its values, its default
OWN = {
    "model.activation": (
        "what takes the place of the activations that `activation_scope` names; with `original`, none is replaced",
        (*known_activations(), ORIGINAL),
        "irelu",
    ),
    "model.activation_scope": ("the sites the paper replaced, or every one", ("paper", "all"), "paper"),
    "model.denormalize": (
        "normalization layers that are removed: BatchNorm, or all of them (CGCNN's LayerNorm too)",
        ("none", "batch", "all"),
        "none",
    ),
    "model.conservative": (
        "DimeNet++: forces are the full gradient of the energy, or fairchem's, which leave out the angles",
        ("true", "false"),
        "true",
    ),
    "model.replaced_by_position": (
        "ForceNet without BatchNorm: activations replaced as in the published runs",
        ("true", "false"),
        "false",
    ),
    "task.label_rescaling": (
        "C, which divides energies and forces; `auto` chooses it from the training labels by Eq. 4",
        ("auto", "a number", "none"),
        "none",
    ),
    "task.reference_energy": (
        "an energy that is subtracted in float64 before rescaling: the mean, or least squares per element",
        REFERENCE_KINDS,
        "none",
    ),
    "optim.step": ("how a training step is computed ([training_step.md](training_step.md))", MODES, "auto"),
    "dataset.train.format": (
        "besides fairchem's: conformations of one molecule in memory ([data.md](data.md))",
        ("md17_packed",),
        "lmdb",
    ),
}
# those of the configs; fairchem's or this package's
WHAT = {
    "model.name": "the model, as it is registered",
    "trainer": "the class that trains; by its path, it registers the rest of this package",
    "logger": "where fairchem logs to, beside `metrics.jsonl`",
    "dataset.train.format": "`md17_packed` or `lmdb`; `dataset.val` takes the same unless it has its own",
    "dataset.train.src": "folder of the training LMDBs",
    "dataset.train.key_mapping.y": "the output that the LMDBs' `y` is the label of",
    "dataset.train.key_mapping.force": "the output that the LMDBs' `force` is the label of",
    "dataset.val.src": "folder of the LMDBs of validation",
    "task.label_rescaling": "C",
    "task.reference_energy": "what is subtracted from the energies",
    "outputs.energy.level": "one number a structure",
    "outputs.forces.level": "one vector an atom",
    "outputs.forces.train_on_free_atoms": "leave fixed atoms out of the loss",
    "outputs.forces.eval_on_free_atoms": "leave fixed atoms out of the errors",
    "loss_functions": "of each output: `fn`, `mae` or `mse`, and the weight `coefficient`, α and β",
    "evaluation_metrics.metrics.energy": "errors that are logged",
    "evaluation_metrics.metrics.forces": "errors that are logged",
    "evaluation_metrics.primary_metric": "the error that chooses `best_checkpoint.pt`",
    "optim.batch_size": "structures a step, in each process",
    "optim.optimizer": "a class of `torch.optim`",
    "optim.lr_initial": "the learning rate at the start",
    "optim.scheduler": "a class of `torch.optim.lr_scheduler`, its arguments beside it, or `Null` for a constant rate",
    "optim.max_epochs": "passes over the training set",
    "optim.num_workers": "processes that load `lmdb` data",
    "model.activation": "what replaces activations",
    "model.conservative": "forces are the full gradient",
    "model.denormalize": "normalization that is removed",
    "model.replaced_by_position": "activations replaced as in the published runs",
    "model.direct_forces": "forces from a decoder instead of −∂E/∂x",
    "model.regress_forces": "predict forces",
    "model.use_pbc": "edges to periodic images",
    "model.otf_graph": "build edges at every step rather than read stored ones",
    "model.cutoff": "length of the longest edge, Å",
    "model.max_neighbors": "edges per atom, the nearest",
    "model.hidden_channels": "width of the atoms' states",
    "model.num_interactions": "message passing steps",
    "model.num_filters": "width of the filters",
    "model.num_gaussians": "Gaussians that expand a distance",
    "model.readout": "how the atoms' contributions become the energy",
    "model.atom_embedding_size": "width of the atoms' states",
    "model.num_graph_conv_layers": "convolutions",
    "model.fc_feat_size": "width of the head",
    "model.num_fc_layers": "layers of the head",
    "model.embeddings": "table that describes the elements",
    "model.out_emb_channels": "width of the output blocks",
    "model.num_blocks": "interaction blocks",
    "model.int_emb_size": "width of the triplets' states",
    "model.basis_emb_size": "width of the embedded basis functions",
    "model.num_spherical": "angular basis functions",
    "model.num_radial": "radial basis functions",
    "model.num_before_skip": "residual layers before a block's skip connection",
    "model.num_after_skip": "residual layers after it",
    "model.num_output_layers": "layers of an output block",
    "model.basis": "functions that expand distances and directions",
    "model.num_freqs": "basis functions of each feature",
    "model.max_n": "spherical harmonics of degrees below this, where the basis has them",
    "model.feat": "what is known of an element: `full`, nine properties, or `simple`, a learned embedding",
    "model.ablation": "a part that is left out",
    "model.depth_mlp_edge": "activations in each MLP of the edges",
    "model.depth_mlp_node": "activations in each MLP of the atoms",
    "model.activation_str": "the model's own activation",
    "model.decoder_activation_str": "the decoder's own activation",
    "model.decoder_hidden_channels": "width of the last states",
    "model.decoder_type": "`mlp` or `linear`",
    "model.emb_size_atom": "width of the atoms' states",
    "model.emb_size_edge": "width of the edges' states",
    "model.emb_size_trip": "width of the triplets' states",
    "model.emb_size_rbf": "width of the embedded radial basis",
    "model.emb_size_cbf": "width of the embedded angular basis",
    "model.emb_size_bil_trip": "width of the edges after the bilinear layer",
    "model.num_concat": "residual layers after a concatenation",
    "model.num_atom": "residual layers of the atoms",
    "model.rbf.name": "radial basis",
    "model.cbf.name": "angular basis",
    "model.envelope.name": "what makes the radial basis vanish at the cutoff",
    "model.envelope.exponent": "its exponent",
    "model.extensive": "the energy is a sum over atoms, not a mean",
    "model.output_init": "initial weights of the output",
    "model.scale_file": "factors that scale signals ([models.md](models.md)): a JSON file, or the numbers",
}
# of which the config has many numbers, or a list
WHOLE = ("model.scale_file", "loss_functions")


def leaves(settings: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys of a config and their values."""
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if key in WHOLE:
            yield key, "…"
        elif isinstance(value, dict):
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def used_keys() -> dict[str, dict[str, set[str]]]:
    """For each key of the configs, its values, and the architectures of the configs that have each."""
    used: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in config_names():
        config = load_config(config_file(name))[0]
        architecture = config["model"]["name"].removesuffix("_irelu")
        for key, value in leaves(config):
            used[key][as_yaml(value)].add(architecture)
    return used


def as_yaml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"


def tables() -> str:
    """The tables, as Markdown.

    Raises:
        SystemExit: a key of the configs is not described here, or one is described that no config has.
    """
    used = used_keys()
    if unknown := used.keys() ^ WHAT.keys():
        raise SystemExit(f"{Path(__file__).name}: describe (in WHAT), or remove: {', '.join(sorted(unknown))}")
    own = [(f"`{key}`", what, of_code(values), f"`{default}`") for key, (what, values, default) in OWN.items()]
    of_models = [key for key in WHAT if key.startswith("model.") and key != "model.name"]
    general = [(f"`{key}`", what, of_code(used[key])) for key, what in WHAT.items() if key not in of_models]
    model = [
        (f"`{key}`", WHAT[key], "; ".join(f"{of_code([value])} ({named(users)})" for value, users in used[key].items()))
        for key in of_models
    ]
    return "\n".join(
        [
            HEADING,
            f"Made by `python scripts/{Path(__file__).name} --to docs/configuration.md`.\n",
            "### This package's own\n",
            *rows(("key", "what", "values", "default"), own),
            "### Of the configs: data, labels, losses, optimizer\n",
            *rows(("key", "what", "in the configs"), general),
            "### Of the configs: models\n",
            *rows(("key", "what", "in the configs"), model),
        ]
    )


def of_code(values) -> str:
    return ", ".join(value if " " in value and "[" not in value else f"`{value}`" for value in values)


def named(architectures: set[str]) -> str:
    return "all" if len(architectures) == 5 else ", ".join(sorted(architectures))


def rows(header: tuple[str, ...], body: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *body)] + [""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", metavar="FILE", type=Path, help="write them into this page")
    page = parser.parse_args().to
    if page is None:
        print(tables())
    else:
        before, _, _ = page.read_text("utf-8").partition(HEADING)
        page.write_text(before + tables(), encoding="utf-8")


if __name__ == "__main__":
    main()
