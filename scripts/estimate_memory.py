#!/usr/bin/env python
"""Estimate the GPU memory of training a config, without a GPU, and how many structures of a batch fit.

    python scripts/estimate_memory.py --config-yml configs/oc22/gemnet_t.yml --atoms 80 --gigabytes 80
    python scripts/estimate_memory.py --config-yml configs/oc22/gemnet_t.yml --atoms 80 --measure 10 20

One training step (energy, forces, loss, backward) of one structure runs on the CPU while every tensor that PyTorch
keeps for a backward pass is counted, each storage once. The estimate is that sum times the batch size, plus four times
the parameters (weights, gradients, Adam's two averages). What kernels need while they run, and what the allocator loses
to fragments, comes on top: --margin (a fifth by default) is left free for it.

--measure trains on the GPU instead, three steps at each of these batch sizes, and prints the most memory and the time
of the last.

The structure is a rock-salt crystal of about --atoms atoms, all of them with as many neighbours as the config's limit.
"""

from __future__ import annotations

import argparse
import time
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
        loss = loss_of(model, batch)
    total = sum(size for _, size in storages.values())
    loss.backward()
    return total


def measured(model: torch.nn.Module, structure: Batch, size: int) -> tuple[str, str]:
    """A row: the memory and the time of the third training step of a batch on the GPU."""
    name = f"batch of {size}"
    batch = Batch.from_data_list(structure.to_data_list() * size).to("cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.Adam(model.parameters())
    try:
        for _ in range(3):
            torch.cuda.synchronize()
            started = time.perf_counter()
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
            torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        return name, "does not fit"
    tensors, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    seconds = time.perf_counter() - started
    return name, f"{tensors / GIGABYTE:.1f} GiB, {reserved / GIGABYTE:.1f} with the allocator's; {seconds:.2f} s a step"


def loss_of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    out = model(batch)
    return out["energy"].abs().sum() + out["forces"].abs().mean()


def estimate(model: torch.nn.Module, batch: Batch, size: int, gigabytes: float, margin: float) -> list[tuple[str, str]]:
    """Rows: what one structure takes, and what that makes of batches."""
    edges = model.generate_graph(batch).edge_index.shape[1]
    per_structure = kept_bytes(model, batch)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    fixed = 4 * 4 * parameters

    room = gigabytes * GIGABYTE * (1 - margin) - fixed
    needed = (fixed + size * per_structure) / GIGABYTE
    return [
        ("structure", f"{int(batch.natoms)} atoms, {edges:,} edges"),
        ("parameters", f"{parameters:,}: {fixed / GIGABYTE:.2f} GiB with gradients and Adam's averages"),
        ("kept per structure", f"{per_structure / GIGABYTE:.2f} GiB"),
        (f"batch of {size}", f"{needed:.1f} GiB"),
        (f"fit in {gigabytes:g} GiB", f"{int(room // per_structure)} structures, {margin:.0%} left free"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-yml", required=True, type=Path)
    parser.add_argument("--atoms", type=int, default=80, help="of a structure (default 80, a usual size in OC22)")
    parser.add_argument("--gigabytes", type=float, default=80.0, help="of the GPU (default 80)")
    parser.add_argument("--margin", type=float, default=0.2, help="fraction to leave free (default 0.2)")
    parser.add_argument("--measure", type=int, nargs="+", metavar="SIZE", help="train batches of so many on the GPU")
    options = parser.parse_args()
    if options.measure and not torch.cuda.is_available():
        parser.error("--measure needs a GPU, and there is none; without it the memory is estimated")

    setup_imports()  # registers fairchem's models
    config = load_config(options.config_yml)[0]
    settings = dict(config["model"])
    model = registry.get_model_class(settings.pop("name"))(**settings).train()
    batch = crystal(options.atoms)
    if options.measure:
        model.to("cuda")
        print(f"{torch.cuda.get_device_name()}, {int(batch.natoms)} atoms")
        rows = [measured(model, batch, size) for size in options.measure]
    else:
        rows = estimate(model, batch, config["optim"]["batch_size"], options.gigabytes, options.margin)
    for name, value in rows:
        print(f"{name:<20}{value}")


if __name__ == "__main__":
    main()
