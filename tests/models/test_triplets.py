import pytest
import torch

from ocp_dc.models.triplets import Slots

# atom 1 has no edge, atom 3 the most
ATOMS = {"ragged": ([3, 0, 3, 2, 3], 4), "full": ([1, 0, 0, 1], 2), "none": ([], 2)}


@pytest.mark.parametrize("name", ATOMS)
def test_slots(name):
    atoms, num_atoms = torch.tensor(ATOMS[name][0], dtype=torch.long), ATOMS[name][1]
    slots = Slots(atoms, num_atoms)
    x = torch.arange(1.0, len(atoms) + 1)[:, None] * torch.tensor([1.0, -1.0])
    spread = slots.spread(x)
    assert spread.shape == (num_atoms, slots.width, 2)
    for atom in range(num_atoms):
        of_atom = x[atoms == atom]
        assert torch.equal(spread[atom, : len(of_atom)], of_atom)
        assert not spread[atom, len(of_atom) :].any()
        assert slots.filled[atom].tolist() == [k < len(of_atom) for k in range(slots.width)]
        assert slots.edges[atom, : len(of_atom)].tolist() == (atoms == atom).nonzero().flatten().tolist()
    assert torch.equal(slots.collect(spread), x)


def test_is_as_wide_as_the_most_edges_of_an_atom():
    assert Slots(torch.tensor([3, 0, 3, 2, 3]), 4).width == 3
    assert Slots(torch.tensor([3, 0, 3, 2, 3]), 4).is_full is False
    assert Slots(torch.tensor([1, 0, 0, 1]), 2).is_full
