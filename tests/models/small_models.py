"""The models at small sizes, in the forms that are tested, with what each claims."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from fairchem.core.common.registry import registry
from fairchem.core.modules.scaling import ScaleFactor
from torch import nn

import ocp_dc.models  # noqa: F401  registers them


@dataclass(frozen=True)
class SmallModel:
    """A row of the table.

    Attributes:
        name: in fairchem's registry.
        settings: common to all forms.
        forms: further settings, by label; ``name`` for another class than the row's.
        two_copies: the energy of two distant copies of a molecule is that of one times this…
        energy_offset: …but for this parameter, which is added once.
        at_cutoff: where an atom enters or leaves it, the energy and its gradient are continuous (``smooth``), the
            energy alone (``kink``), or neither (``jump``).
        rotation_invariant: whether energies are, and forces turn with the molecule.
        fairchem: fairchem's own class in its registry,
        fairchem_forms: the forms that equal it, with its settings for each.
    """

    name: str
    settings: dict
    forms: dict[str, dict]
    two_copies: Literal[1, 2] = 2
    energy_offset: str | None = None
    at_cutoff: Literal["smooth", "kink", "jump"] = "smooth"
    rotation_invariant: bool = True
    fairchem: str | None = None
    fairchem_forms: dict[str, dict] = field(default_factory=dict)

    def build(self, form: str = "irelu", seed: int = 0, **settings) -> nn.Module:
        """In float64 and evaluation mode, without images, its weights as after some training."""
        return _build(
            {"name": self.name, "use_pbc": False, "otf_graph": True, **self.settings, **self.forms[form], **settings},
            seed,
        )

    def build_fairchem(self, form: str) -> nn.Module:
        edges = {"use_pbc": True, "otf_graph": True}
        return _build({"name": self.fairchem, **edges, **self.settings, **self.fairchem_forms[form]})


SCHNET = SmallModel(
    name="schnet_irelu",
    settings={"hidden_channels": 24, "num_filters": 16, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0},
    forms={"original": {"activation": "original"}, "irelu": {}, "integrated_silu": {"activation": "integrated_silu"}},
    fairchem="schnet",
    fairchem_forms={"original": {}},
)
CGCNN = SmallModel(
    name="cgcnn_irelu",
    settings={
        "atom_embedding_size": 24,
        "num_graph_conv_layers": 2,
        "fc_feat_size": 16,
        "num_fc_layers": 3,
        "num_gaussians": 20,
        "cutoff": 5.0,
    },
    forms={
        "cgcnn": {"name": "cgcnn"},
        "original": {"activation": "original"},
        "irelu": {},
        "irelu_denorm": {"denormalize": "batch"},
        "irelu_all_denorm": {"activation_scope": "all", "denormalize": "all"},
    },
    two_copies=1,
    at_cutoff="jump",
)
DIMENETPLUSPLUS = SmallModel(
    name="dimenetplusplus_irelu",
    settings={
        "hidden_channels": 16,
        "num_blocks": 2,
        "int_emb_size": 8,
        "basis_emb_size": 4,
        "out_emb_channels": 12,
        "num_spherical": 4,
        "num_radial": 2,
        "cutoff": 4.0,
    },
    forms={
        "original": {"activation": "original"},
        "original_fairchem_forces": {"activation": "original", "conservative": False},
        "irelu": {},
        "irelu_all": {"activation_scope": "all"},
        "irelu_fairchem_forces": {"conservative": False},
    },
    fairchem="dimenetplusplus",
    fairchem_forms={"original_fairchem_forces": {}},
)
FORCENET = SmallModel(
    name="forcenet_irelu",
    settings={
        "hidden_channels": 16,
        "decoder_hidden_channels": 16,
        "num_interactions": 2,
        "cutoff": 5.0,
        "num_freqs": 5,
        "max_n": 2,
        "basis": "gauss",
    },
    forms={
        "forcenet": {"name": "forcenet"},
        "forcenet_direct": {"name": "forcenet", "direct_forces": True},
        "original": {"activation": "original"},
        "irelu": {"basis": "sphallmul"},
        "irelu_direct": {"direct_forces": True},
        "irelu_all_denorm": {"activation_scope": "all", "denormalize": "all", "basis": "linact"},
        "irelu_by_position": {"denormalize": "batch", "replaced_by_position": True},
    },
    energy_offset="energy_mlp.bias",
    at_cutoff="kink",
    rotation_invariant=False,
)
GEMNET_T = SmallModel(
    name="gemnet_t_irelu",
    settings={
        "emb_size_atom": 16,
        "emb_size_edge": 16,
        "emb_size_trip": 8,
        "emb_size_rbf": 4,
        "emb_size_cbf": 4,
        "emb_size_bil_trip": 8,
        "num_spherical": 3,
        "num_radial": 8,
        "num_blocks": 2,
        "num_before_skip": 1,
        "num_after_skip": 2,
        "num_concat": 1,
        "num_atom": 3,
        "cutoff": 4.0,
    },
    forms={
        "original": {"activation": "original"},
        "original_direct": {"activation": "original", "direct_forces": True},
        "irelu": {},
        "irelu_all": {"activation_scope": "all"},
    },
    fairchem="gemnet_t",
    fairchem_forms={"original": {}, "original_direct": {"direct_forces": True}},
)
MODELS = (SCHNET, CGCNN, DIMENETPLUSPLUS, FORCENET, GEMNET_T)


@contextmanager
def float64_by_default() -> Iterator[None]:
    """The widths of Gaussians and, where neighbours are too many, fairchem's images take the default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def scale_factors(model: nn.Module) -> dict[str, float]:
    """By name."""
    return {m.name: m.scale_factor.item() for m in model.modules() if isinstance(m, ScaleFactor)}


def _build(settings: dict, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model_class = registry.get_model_class(settings["name"])
    with float64_by_default():
        model = model_class(**{key: value for key, value in settings.items() if key != "name"})
    _leave_initial_values(model)
    return model.eval()


def _leave_initial_values(model: nn.Module) -> None:
    for parameter in model.parameters():
        # such as DimeNet++'s last layers, with which every energy is zero
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
