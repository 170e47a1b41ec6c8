"""The count of what a training step keeps, on networks small enough to count by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "estimate_memory.py"
CONFIG = Path(__file__).parent.parent.parent / "configs" / "oc22" / "cgcnn.yml"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("estimate_memory", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Cubes(nn.Module):
    """Energy Σ w x³, whose two passes keep x, x², and what they are multiplied by."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, batch):
        position = batch.pos.requires_grad_()
        energy = (self.weight * position**3).sum()
        (gradient,) = torch.autograd.grad(energy, position, create_graph=True)
        return {"energy": energy, "forces": -gradient}


@pytest.mark.parametrize("atoms", [8, 16, 64, 80, 96])
def test_the_crystal_has_the_atoms_asked_for(script, atoms):
    assert int(script.crystal(atoms).natoms) == atoms


def test_what_is_kept_grows_with_the_atoms_and_leaves_out_the_parameters(script):
    small, large = (script.kept_bytes(Cubes(), script.crystal(atoms)) for atoms in (8, 80))
    array = 8 * 3 * 4
    assert 3 * array <= small <= 12 * array
    # single numbers of the sums are kept too, whatever the size
    assert large == pytest.approx(10 * small, rel=0.05)


def test_prints_what_fits(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["estimate_memory.py", "--config-yml", str(CONFIG), "--atoms", "8"])
    script.main()
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["structure"].strip() == "8 atoms, 400 edges"
    assert "batch of 20" in lines
    assert lines["fit in 80 GiB"].strip().endswith("structures, 20% left free")


def test_measures_nothing_without_a_gpu(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["estimate_memory.py", "--config-yml", str(CONFIG), "--measure", "3"])
    with pytest.raises(SystemExit):
        script.main()
    assert "--measure needs a GPU, and there is none" in capsys.readouterr().err
