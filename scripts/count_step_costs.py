#!/usr/bin/env python
"""Count what a training step of each network of the paper's tables takes, for the plan of `ocp-dc reproduce`.

    python scripts/count_step_costs.py

One step (energy, forces, loss, backward) of one structure at published widths runs eagerly on the CPU. Counted are the
floating-point operations of its matrix products, 2 a multiplication with addition, which are proportional to the
structures of a batch, and all aten operations that compute something, each a launch on a GPU, which are not. The
optimizer, one operation, is left out.

Shapes alone matter. A molecule has MD17's atoms at random places with every pair within the cutoff: of the largest ones
a few pairs are not. Of OC22 it is a crystal with as many neighbours of each atom as a config allows, counted for 8
atoms and multiplied: --atoms, 80 by default, is a usual size there.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Iterator

import torch
from ase.data import atomic_numbers
from ase.formula import Formula
from estimate_memory import crystal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch_geometric.data import Batch, Data
from torch_geometric.nn.models import dimenet_utils

import ocp_dc.models  # noqa: F401  registers the models

# isort: split
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import load_config, setup_imports
from fairchem.core.models.gemnet.layers import spherical_basis

from ocp_dc.config_files import config_file
from ocp_dc.experiments.definitions import OC22, TABLES, experiments_of
from ocp_dc.experiments.sources import MOLECULE_OF_FORMULA
from ocp_dc.experiments.step_costs import COSTS_FILE

# Å; within it every pair is within all cutoffs, and no two atoms are on top of each other
BALL = 2.9
CLOSEST = 0.7
CRYSTAL_ATOMS = 8
FORMULAS = {molecule: formula for formula, molecule in MOLECULE_OF_FORMULA.items()}


class Counter(TorchDispatchMode):
    """Counts operations, and the floating-point operations of products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += not func.is_view
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def molecule(name: str) -> Batch:
    """The atoms of one of MD17's molecules, at random places in a ball."""
    symbols = Formula(FORMULAS[name]).count()
    numbers = [atomic_numbers[symbol] for symbol, number in symbols.items() for _ in range(number)]
    graph = Data(
        pos=torch.tensor(_places(len(numbers))),
        atomic_numbers=torch.tensor(numbers),
        natoms=len(numbers),
        cell=100 * torch.eye(3)[None],
        pbc=torch.zeros(1, 3, dtype=torch.bool),
    )
    return Batch.from_data_list([graph])


def _places(count: int) -> list[list[float]]:
    generator = torch.Generator().manual_seed(0)
    places: list[torch.Tensor] = []
    while len(places) < count:
        place = BALL * (2 * torch.rand(3, generator=generator) - 1)
        if place.norm() < BALL and all((place - other).norm() > CLOSEST for other in places):
            places.append(place)
    return [place.tolist() for place in places]


def count(model: torch.nn.Module, structure: Batch) -> Counter:
    """One step of a batch of one structure."""
    with Counter() as counter:
        out = model(structure)
        (out["energy"].abs().mean() + out["forces"].abs().mean()).backward()
    model.zero_grad()
    return counter


def configs() -> Iterator[tuple[str, list[str]]]:
    """Those of the paper's tables and figures, with what they are trained on."""
    found: dict[str, dict[str, None]] = {}
    for target in TABLES:
        for experiment in experiments_of(target):
            found.setdefault(experiment.config, {})[experiment.molecule] = None
    for config, names in found.items():
        yield config, list(names)


def counted(atoms: int) -> dict[str, dict]:
    """By config: ``operations`` of a step, and ``flops`` of a structure of each kind."""
    costs, of_networks = {}, {}
    for config, names in configs():
        settings = load_config(config_file(config))[0]["model"]
        network = json.dumps([names, settings], sort_keys=True)
        if network not in of_networks:
            settings = dict(settings)
            model = registry.get_model_class(settings.pop("name"))(**settings).train()
            steps = {name: count(model, _structure(name)) for name in names}
            of_networks[network] = {
                "operations": max(step.operations for step in steps.values()),
                "flops": {name: _in_full(name, step.flops, atoms) for name, step in steps.items()},
            }
            print(config, flush=True)
        costs[config] = of_networks[network]
    return costs


def _structure(name: str) -> Batch:
    return crystal(CRYSTAL_ATOMS) if name == OC22.name else molecule(name)


def _in_full(name: str, flops: int, atoms: int) -> int:
    return flops * atoms // CRYSTAL_ATOMS if name == OC22.name else flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=80, help="of a structure of OC22 (default 80)")
    atoms = parser.parse_args().atoms
    setup_imports()  # registers fairchem's models
    # derived again for every model otherwise
    for module, name in (
        (dimenet_utils, "bessel_basis"),
        (dimenet_utils, "real_sph_harm"),
        (spherical_basis, "real_sph_harm"),
    ):
        setattr(module, name, functools.cache(getattr(module, name)))
    lines = (f'    "{config}": {json.dumps(cost)}' for config, cost in counted(atoms).items())
    head = f'{{\n  "made_by": "scripts/count_step_costs.py --atoms {atoms}",\n  "costs": {{\n'
    COSTS_FILE.write_text(head + ",\n".join(lines) + "\n  }\n}\n")
    print(f"written to {COSTS_FILE}")


if __name__ == "__main__":
    main()
