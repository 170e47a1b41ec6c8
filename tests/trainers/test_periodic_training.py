"""Training on periodic structures: stored edges, mixed periodicity, fixed atoms."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ocp_dc.datasets.samples import oxide_sample_path
from ocp_dc.datasets.structure_conversion import convert_structures
from ocp_dc.errors import InputError
from ocp_dc.launch import run_fairchem
from ocp_dc.trainers.metrics_log import read_metrics

SIZES = {"train": 20, "val": 5}
ONE_EPOCH = ("--optim.max_epochs=1", "--optim.batch_size=10")


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    return ase.io.read(oxide_sample_path(), ":")[::10]


def convert(frames, folder, **settings):
    ase.io.write(folder / "frames.traj", frames)
    convert_structures([folder / "frames.traj"], folder / "data", sizes=SIZES, **settings)
    return [f"--dataset.{split}.src={folder / 'data' / split}" for split in SIZES]


def relabelled(frame: Atoms, shift: float = 0.0, pbc: list[bool] | None = None) -> Atoms:
    """A copy with ``shift`` added to the forces on its fixed atoms, or with other periodicity."""
    forces = frame.get_forces(apply_constraint=False)
    forces[frame.constraints[0].index] += shift
    copy = frame.copy()
    copy.pbc = frame.pbc if pbc is None else pbc
    copy.calc = SinglePointCalculator(copy, energy=frame.get_potential_energy(), forces=forces)
    return copy


def losses(run_dir) -> list[float]:
    (log,) = run_dir.glob("logs/tensorboard/*/metrics.jsonl")
    return [record["loss"] for record in read_metrics(log) if record["split"] == "train"]


def test_stored_edges_train_as_those_built_on_the_fly(frames, train_arguments_on_oxides, tmp_path):
    # no limit is reached: an atom's own images are equally near in pairs, of which a limit keeps one by chance
    sources = convert(frames, tmp_path, cutoff=6.0, max_neighbors=300)
    found = []
    for otf_graph in (True, False):
        run_dir = tmp_path / str(otf_graph)
        graph = (f"--model.otf_graph={otf_graph}", "--model.max_neighbors=300")
        arguments = train_arguments_on_oxides("cgcnn_dc", *sources, *ONE_EPOCH, *graph)
        run_fairchem("train", [*arguments, "--run-dir", str(run_dir)])
        found.append(losses(run_dir))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize(("cutoff", "stored"), [(None, "with no edges"), (5.0, r"with edges within 5\.0 Å")])
def test_stored_edges_must_be_the_models(frames, train_arguments_on_oxides, tmp_path, cutoff, stored):
    sources = convert(frames, tmp_path, cutoff=cutoff)
    with pytest.raises(InputError, match=rf"{stored}; .* convert with --cutoff 6\.0"):
        run_fairchem("train", train_arguments_on_oxides("schnet_dc", *sources, "--model.otf_graph=False"))


def test_slabs_beside_bulks(frames, train_arguments_on_oxides, tmp_path):
    slabs = [relabelled(frame, pbc=[True, True, False]) for frame in frames[::2]]
    sources = convert([*slabs, *frames[1::2]], tmp_path)
    run_fairchem("train", train_arguments_on_oxides("cgcnn_dc", *sources, *ONE_EPOCH))
    assert np.isfinite(losses(tmp_path)).all()
    with pytest.raises(InputError, match=r"model\.name schnet, a model of fairchem, cannot build edges"):
        run_fairchem("train", train_arguments_on_oxides("schnet", *sources, *ONE_EPOCH))


@pytest.mark.parametrize("free_only", [True, False])
def test_fixed_atoms_are_left_out_of_the_loss_on_request(frames, train_arguments_on_oxides, tmp_path, free_only):
    found = []
    for shift in (0.0, 1_000.0):
        folder = tmp_path / str(shift)
        folder.mkdir()
        arguments = train_arguments_on_oxides(
            *("schnet_dc", *convert([relabelled(frame, shift) for frame in frames], folder), *ONE_EPOCH),
            f"--outputs.forces.train_on_free_atoms={free_only}",
        )
        run_fairchem("train", [*arguments, "--run-dir", str(folder)])
        found.append(losses(folder))
    assert (found[0] == found[1]) == free_only
