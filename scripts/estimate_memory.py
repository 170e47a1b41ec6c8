#!/usr/bin/env python
"""Estimate the GPU memory of training a config, without a GPU, and how many structures of a batch fit.

    python scripts/estimate_memory.py --config-yml configs/oc22/gemnet_t.yml --atoms 80 --gigabytes 80

One training step (energy, forces, loss, backward) of one structure runs on the CPU while every tensor that PyTorch
keeps for a backward pass is counted, each storage once. The estimate is that sum times the batch size, plus four times
the parameters (weights, gradients, Adam's two averages). What kernels need while they run, and what the allocator loses
to fragments, comes on top: --margin (a fifth by default) is left free for it.

The structure is a rock-salt crystal of about --atoms atoms, all of them with as many neighbours as the config's limit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from ase.build import bulk

import ocp_dc.models  # noqa: F401  registers the models

# isort: split
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import load_config, setup_imports
from torch_geometric.data import Batch, Data

GIGABYTE = 2**30


def crystal(atoms: int) -> Batch:
    """MgO of about ``atoms`` atoms, distorted so that no distances are equal."""
    cells = max(1, round(atoms / 8))
    depth = max(divisor for divisor in range(1, cells + 1) if cells % divisor == 0 and divisor**3 <= cells)
    layer = cells // depth
    width = max(divisor for divisor in range(1, layer + 1) if layer % divisor == 0 and divisor**2 <= layer)
    structure = bulk("MgO", "rocksalt", a=4.21, cubic=True).repeat((depth, width, layer // width))
    structure.rattle(0.05, seed=0)
    graph = Data(
        pos=torch.tensor(structure.positions, dtype=torch.float32),
        atomic_numbers=torch.tensor(structure.numbers),
        natoms=len(structure),
        cell=torch.tensor(structure.cell.array, dtype=torch.float32)[None],
        pbc=torch.ones(1, 3, dtype=torch.bool),
    )
    return Batch.from_data_list([graph])


def kept_bytes(model: torch.nn.Module, batch: Batch) -> int:
    """Bytes kept for the backward passes of one training step, besides the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # holding the tensor keeps its address from being used again
            storages[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        out = model(batch)
        loss = out["energy"].abs().sum() + out["forces"].abs().mean()
    total = sum(size for _, size in storages.values())
    loss.backward()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-yml", required=True, type=Path)
    parser.add_argument("--atoms", type=int, default=80, help="of a structure (default 80, a usual size in OC22)")
    parser.add_argument("--gigabytes", type=float, default=80.0, help="of the GPU (default 80)")
    parser.add_argument("--margin", type=float, default=0.2, help="fraction to leave free (default 0.2)")
    options = parser.parse_args()

    setup_imports()  # registers fairchem's models
    config = load_config(options.config_yml)[0]
    settings = dict(config["model"])
    model = registry.get_model_class(settings.pop("name"))(**settings).train()
    batch = crystal(options.atoms)
    edges = model.generate_graph(batch).edge_index.shape[1]
    per_structure = kept_bytes(model, batch)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    fixed = 4 * 4 * parameters

    room = options.gigabytes * GIGABYTE * (1 - options.margin) - fixed
    size = config["optim"]["batch_size"]
    needed = (fixed + size * per_structure) / GIGABYTE
    fitting = f"{int(room // per_structure)} structures, {options.margin:.0%} left free"
    rows = [
        ("structure", f"{int(batch.natoms)} atoms, {edges:,} edges"),
        ("parameters", f"{parameters:,}: {fixed / GIGABYTE:.2f} GiB with gradients and Adam's averages"),
        ("kept per structure", f"{per_structure / GIGABYTE:.2f} GiB"),
        (f"batch of {size}", f"{needed:.1f} GiB"),
        (f"fit in {options.gigabytes:g} GiB", fitting),
    ]
    for name, value in rows:
        print(f"{name:<20}{value}")


if __name__ == "__main__":
    main()
