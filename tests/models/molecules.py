"""Structures for the tests of the models, in float64, and what a model says of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data


def structure(
    pos: Tensor, atomic_numbers: Tensor, cell: float | Tensor = 100.0, periodic: bool | Sequence[bool] = False
) -> Data:
    return Data(
        pos=pos.double(),
        atomic_numbers=atomic_numbers,
        natoms=len(pos),
        # fairchem's search for images takes float32 cells
        cell=(cell * torch.eye(3) if isinstance(cell, float) else cell).float()[None],
        pbc=torch.as_tensor(periodic).expand(3)[None],
    )


def molecule(seed: int, natoms: int, **cell) -> Data:
    """Atoms of H, C, N and O drawn around the points of a grid."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*3 * [torch.arange(3.0)])[:natoms] * 1.3
    pos = grid + 0.2 * torch.randn(natoms, 3, generator=generator, dtype=torch.float64)
    atomic_numbers = torch.tensor([1, 6, 8, 7])[torch.randint(4, (natoms,), generator=generator)]
    return structure(pos, atomic_numbers, **cell)


MOLECULES = (molecule(0, 9), molecule(1, 5), molecule(2, 12))
# no cell is as long as a model's cutoff, where rounding would decide on the edges
CRYSTALS = (molecule(3, 4, cell=5.25, periodic=True), molecule(1, 5, cell=6.0, periodic=True))
TRICLINIC = molecule(6, 4, cell=torch.tensor([[4.25, 0, 0], [0.5, 3.5, 0], [-0.75, 1, 4.5]]), periodic=True)
# each atom sees several images of each other, and of itself
THIN = molecule(7, 3, cell=torch.tensor([[2.5, 0, 0], [0.25, 3.5, 0], [0.5, -0.75, 4.75]]), periodic=True)
SLAB = molecule(8, 4, cell=torch.tensor([[4.5, 0, 0], [-1.5, 3.25, 0], [0, 0, 0]]), periodic=(True, True, False))
WIRE = molecule(9, 3, cell=torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0.5, 3.75]]), periodic=(False, False, True))
ONE_ATOM = structure(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([8]), cell=2.75, periodic=True)
# its atoms are in line
ACETYLENE = structure(
    torch.tensor([-1.66, -0.6, 0.6, 1.66]).double()[:, None] * torch.tensor([0.6, 0.0, 0.8]).double(),
    torch.tensor([1, 6, 6, 1]),
)


def moved(data: Data, pos: Tensor) -> Data:
    other = copy.copy(data)
    other.pos = pos
    return other


def supercell(data: Data, *repeats: int) -> Data:
    offsets = torch.cartesian_prod(*(torch.arange(float(count)) for count in repeats)) @ data.cell[0]
    pos = (data.pos + offsets[:, None]).reshape(-1, 3)
    cell = data.cell[0] * torch.tensor(repeats)[:, None]
    return structure(pos, data.atomic_numbers.repeat(len(offsets)), cell=cell, periodic=data.pbc[0])


def batch_of(*structures: Data) -> Batch:
    return Batch.from_data_list([copy.copy(structure) for structure in structures])


def outputs(model: nn.Module, *structures: Data) -> tuple[Tensor, Tensor]:
    """Energies (B, 1) and forces (N, 3)."""
    out = model(batch_of(*structures))
    return out["energy"].detach(), out["forces"].detach()


def slope_of_energy(model: nn.Module, batch: Batch, direction: Tensor, step: float = 1e-5) -> Tensor:
    """Of the total energy as the atoms move along ``direction`` (N, 3), by central differences."""
    ahead, behind = batch.clone(), batch.clone()
    ahead.pos, behind.pos = batch.pos + step * direction, batch.pos - step * direction
    return (model(ahead)["energy"].sum() - model(behind)["energy"].sum()).detach() / (2 * step)


def slopes(model: nn.Module, *structures: Data) -> tuple[Tensor, Tensor]:
    """Of the total energy along three random directions: by differences, and according to the forces."""
    batch, (_, forces) = batch_of(*structures), outputs(model, *structures)
    directions = torch.randn(3, *forces.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    by_differences = torch.stack([slope_of_energy(model, batch, direction) for direction in directions])
    return by_differences, -(forces * directions).sum(dim=(1, 2))
