import pytest
import torch

from ocp_dc.models.triplets import Slots

# atom 1 has no edge, atom 3 the most
ATOMS = {"ragged": ([3, 0, 3, 2, 3], 4), "full": ([1, 0, 0, 1], 2), "in_order": ([0, 0, 1, 1], 2), "none": ([], 2)}


@pytest.mark.parametrize("name", ATOMS)
def test_slots(name):
    atoms, num_atoms = torch.tensor(ATOMS[name][0], dtype=torch.long), ATOMS[name][1]
    slots = Slots(atoms, num_atoms)
    x = torch.arange(1.0, len(atoms) + 1)[:, None] * torch.tensor([1.0, -1.0])
    spread = slots.spread(x)
    assert spread.shape == (num_atoms, slots.edges.shape[1], 2)
    for atom in range(num_atoms):
        of_atom = x[atoms == atom]
        assert torch.equal(spread[atom, : len(of_atom)], of_atom)
        assert not spread[atom, len(of_atom) :].any()
        assert slots.filled[atom].tolist() == [k < len(of_atom) for k in range(slots.edges.shape[1])]
        assert slots.edges[atom, : len(of_atom)].tolist() == (atoms == atom).nonzero().flatten().tolist()
    assert torch.equal(slots.collect(spread), x)
    assert torch.equal(slots.total(x), spread.sum(dim=1))


def test_is_as_wide_as_the_most_edges_of_an_atom():
    assert Slots(torch.tensor([3, 0, 3, 2, 3]), 4).edges.shape == (4, 3)
    assert Slots(torch.tensor([1, 0, 0, 1]), 2).edges.shape == (2, 2)


@pytest.mark.parametrize("atoms", [[3, 0, 3, 2, 3], [1, 0, 0, 1], [0, 0, 1, 1]], ids=["ragged", "full", "in_order"])
def test_gradients(atoms):
    slots = Slots(torch.tensor(atoms), max(atoms) + 1)
    x = torch.randn(len(atoms), 3, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(*slots.edges.shape, 3, dtype=torch.float64)

    def function(x):
        return slots.collect((slots.spread(x) * filters).sin()) ** 2

    assert (slots.is_full, slots.in_order) == (atoms[0] != 3, atoms[0] == 0)
    torch.autograd.gradcheck(function, x)
    torch.autograd.gradgradcheck(function, x)
