#!/usr/bin/env python
"""Prints the table of docs/any_model.md: what `derivative_constrained` finds in small instances of fairchem models."""

from __future__ import annotations

import logging
from typing import Any

from ocp_dc.errors import InputError
from ocp_dc.models.wrapper import derivative_constrained
from ocp_dc.transforms import denormalize

GRAPH = {"otf_graph": True, "cutoff": 4.0}
PAINN = {**GRAPH, "hidden_channels": 8, "num_layers": 2, "num_rbf": 4}
DIMENETPLUSPLUS = {
    **GRAPH,
    "hidden_channels": 8,
    "num_blocks": 1,
    "int_emb_size": 4,
    "basis_emb_size": 2,
    "out_emb_channels": 8,
    "num_spherical": 2,
    "num_radial": 2,
}
GEMNET = {
    **GRAPH,
    "num_spherical": 2,
    "num_radial": 4,
    "num_blocks": 1,
    "num_before_skip": 1,
    "num_after_skip": 1,
    "num_concat": 1,
    "num_atom": 1,
    "emb_size_atom": 8,
    "emb_size_edge": 8,
    "emb_size_rbf": 4,
    "emb_size_cbf": 4,
    "rbf": {"name": "bernstein"},
}
GEMNET_T = {**GEMNET, "emb_size_trip": 4, "emb_size_bil_trip": 4}
GEMNET_OC = {
    **GEMNET,
    "emb_size_trip_in": 4,
    "emb_size_trip_out": 4,
    "emb_size_quad_in": 4,
    "emb_size_quad_out": 4,
    "emb_size_aint_in": 4,
    "emb_size_aint_out": 4,
    "emb_size_sbf": 4,
    "num_output_afteratom": 1,
    "num_atom_emb_layers": 1,
    "quad_interaction": True,
    "atom_edge_interaction": True,
    "edge_atom_interaction": True,
    "atom_interaction": True,
}
SCN = {
    **GRAPH,
    "num_interactions": 1,
    "lmax": 3,
    "num_resolutions": 1,
    "sphere_channels": 4,
    "sphere_channels_reduce": 4,
    "hidden_channels": 8,
    "num_basis_functions": 4,
    "num_sphere_samples": 8,
    "distance_resolution": 0.5,
}
SPHERE = {"sphere_channels": 4, "num_layers": 1, "edge_channels": 4}
SAMPLED_SPHERE = {**SPHERE, "hidden_channels": 8, "num_sphere_samples": 8, "distance_resolution": 0.5}
DEGREE_LISTS = {"lmax_list": [2], "mmax_list": [1]}
ESCN = {**GRAPH, **SAMPLED_SPHERE, **DEGREE_LISTS}
ESCN_EXPORT = {**SAMPLED_SPHERE, "cutoff": 4.0, "lmax": 2, "mmax": 1}
EQUIFORMER = {
    **SPHERE,
    **DEGREE_LISTS,
    "otf_graph": True,
    "max_radius": 4.0,
    "attn_hidden_channels": 4,
    "num_heads": 1,
    "attn_alpha_channels": 4,
    "attn_value_channels": 4,
    "ffn_hidden_channels": 4,
    "num_distance_basis": 8,
    "alpha_drop": 0.0,
    "drop_path_rate": 0.0,
}
ESEN = {**SPHERE, **GRAPH, "lmax": 2, "mmax": 2, "hidden_channels": 8, "num_distance_basis": 8}
DIRECT, CONSERVATIVE = {"direct_forces": True}, {"direct_forces": False}


def hydra(backbone: str, settings: dict[str, Any], *heads: str, **head_settings: Any) -> dict[str, Any]:
    """The config of a hydra with these heads, each with the same settings."""
    return {
        "name": "hydra",
        "pass_through_head_outputs": True,
        "backbone": {"model": backbone, **settings},
        "heads": {head: {"module": head, **head_settings} for head in heads},
    }


DETACHED_ANGLES = "not conservative: fairchem detaches the positions in its angles"
NO_SIGNAL = "on points of the sphere; with IReLU, the forces of an untrained model are noise"
ON_SPHERE = "some on points of the sphere: equivariant only approximately, as with SiLU"
# Every model, backbone and head that fairchem registers, with what to know about it.
MODELS: list[tuple[dict[str, Any], str]] = [
    ({"name": "schnet", **GRAPH, "hidden_channels": 8, "num_filters": 4, "num_interactions": 2}, ""),
    ({"name": "dimenetplusplus", **DIMENETPLUSPLUS}, DETACHED_ANGLES),
    ({"name": "gemnet_t", **GEMNET_T}, ""),
    (
        {"name": "gp_gemnet_t", **GEMNET_T},
        "built only: fairchem's own forward fails (`GraphData` has no `distance_vec`)",
    ),
    ({"name": "gemnet_oc", **GEMNET_OC}, ""),
    ({"name": "painn", **PAINN}, ""),
    ({"name": "scn", **SCN}, NO_SIGNAL),
    ({"name": "escn", **ESCN}, NO_SIGNAL),
    ({"name": "escn_export", **ESCN_EXPORT}, NO_SIGNAL),
    ({"name": "equiformer_v2", **EQUIFORMER}, ON_SPHERE),
    (hydra("painn_backbone", PAINN, "painn_energy_head", "painn_force_head"), ""),
    (hydra("dimenetplusplus_backbone", DIMENETPLUSPLUS, "dimenetplusplus_energy_and_force_head"), DETACHED_ANGLES),
    (
        hydra(
            "gemnet_t_backbone",
            {**GEMNET_T, **DIRECT},
            "gemnet_t_energy_and_grad_force_head",
            "gemnet_t_force_head",
        ),
        "",
    ),
    (
        hydra(
            "gemnet_oc_backbone",
            {**GEMNET_OC, **DIRECT},
            "gemnet_oc_energy_and_grad_force_head",
            "gemnet_oc_force_head",
            num_global_out_layers=1,
        ),
        "",
    ),
    (hydra("escn_backbone", ESCN, "escn_energy_head", "escn_force_head"), NO_SIGNAL),
    (
        hydra(
            "equiformer_v2_backbone",
            EQUIFORMER,
            "equiformerV2_scalar_head",
            "equiformerV2_vector_head",
            "rank2_symmetric_head",
        ),
        ON_SPHERE,
    ),
    (hydra("equiformer_v2_backbone", EQUIFORMER, "equiformer_v2_energy_head", "equiformer_v2_force_head"), ON_SPHERE),
    (
        hydra(
            "equiformer_v2_dens_backbone",
            EQUIFORMER,
            "eqV2_DeNS_scalar_head",
            "eqV2_DeNS_vector_head",
            "dens_rank2_symmetric_head",
        ),
        ON_SPHERE,
    ),
    (
        hydra("esen_backbone", {**ESEN, **DIRECT}, "esen_mlp_energy_head", "esen_linear_force_head", "esen_rank2_head"),
        ON_SPHERE,
    ),
    (hydra("esen_backbone", {**ESEN, **CONSERVATIVE}, "esen_mlp_efs_head"), ON_SPHERE),
    (hydra("esen_backbone_dens", {**ESEN, **DIRECT}, "esen_mlp_energy_head", "esen_linear_force_head_dens"), ON_SPHERE),
    (hydra("esen_backbone_dens", {**ESEN, **CONSERVATIVE}, "esen_mlp_efs_head_dens"), ON_SPHERE),
]
HEADER = ["model", "sites (all)", "sites (output)", "normalization layers", "notes"]


def label(base: dict[str, Any]) -> str:
    """``painn``, or ``hydra: painn_backbone with painn_energy_head, painn_force_head``."""
    if base["name"] != "hydra":
        return base["name"]
    return f"hydra: {base['backbone']['model']} with {', '.join(base['heads'])}"


def row(base: dict[str, Any], notes: str) -> list[str]:
    """One row of the table."""
    model = derivative_constrained(base, activation_scope="all")
    in_output = derivative_constrained(base, activation_scope="output").replaced_activations
    try:
        norms = len(denormalize(model))
    except InputError:
        norms = 0
    return [label(base), *map(str, (len(model.replaced_activations), len(in_output), norms)), notes]


def table() -> str:
    """The table, in Markdown."""
    rows = [HEADER, ["---"] * len(HEADER), *(row(*model) for model in MODELS)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


if __name__ == "__main__":
    logging.disable()
    print(table())
