"""The units and the origin of labels, in checkpoints and against other data."""

from __future__ import annotations

import gc
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from fairchem.core.common.relaxation.ase_utils import OCPCalculator
from fairchem.core.trainers.ocp_trainer import OCPTrainer

from ocp_dc.errors import InputError
from ocp_dc.evaluation import load_trainer
from ocp_dc.launch import run_fairchem

OLD = Path(__file__).parent.parent / "data" / "checkpoints"
RUN = ("--timestamp-id", "run", "--optim.max_epochs=1")
# the model of tests/data/checkpoints/schnet_dc.pt is that of the small widths
OLD_CHECKPOINT = ("--checkpoint", str(OLD / "schnet_dc.pt"))


def labels_in(run_dir: Path) -> dict:
    return torch.load(run_dir / "checkpoints/run/checkpoint.pt", weights_only=False)["config"]["labels"]


def stating(source: Path, target: Path, **units: str) -> Path:
    """A copy of a set whose manifest states other units."""
    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**manifest, **units}))
    return target


def without_manifest(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    shutil.copy(source / "data.lmdb", target)
    return target


def test_units_and_origin_are_in_the_checkpoint_and_survive_resuming(train_arguments, sample_data, tmp_path):
    run_fairchem("train", train_arguments("schnet_dc", *RUN))
    manifest = json.loads((sample_data / "train" / "manifest.json").read_text())
    assert labels_in(tmp_path) == {
        "energy_unit": "kcal/mol",
        "length_unit": "Ang",
        "units_from": manifest["units_from"],
        "elements": [1, 6, 8],
        "records": {"train": 100, "val": 20},
        "sources": [
            {
                "name": "ethanol",
                "split": "train",
                **{key: manifest[key] for key in ("count", "theory", "source_file", "source_count", "source_sha256")},
            }
        ],
    }
    checkpoint = ("--checkpoint", str(tmp_path / "checkpoints/run/checkpoint.pt"))
    resumed = ("--timestamp-id", "run", "--optim.max_epochs=2", *checkpoint)
    run_fairchem("train", train_arguments("schnet_dc", *resumed, run_dir=tmp_path / "resumed"))
    assert labels_in(tmp_path / "resumed") == labels_in(tmp_path)


def test_the_records_are_not_read_where_the_manifest_tells_all(train_arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("ocp_dc.references.read_training_labels", None)
    settings = ("--task.reference_energy=mean", "--task.label_rescaling=auto")
    run_fairchem("train", train_arguments("schnet_dc", *RUN, *settings))
    assert labels_in(tmp_path)["records"]["train"] == 100


def test_sets_in_different_units_are_refused(train_arguments, sample_data, tmp_path):
    val = stating(sample_data / "val", tmp_path / "val", energy_unit="eV")
    with pytest.raises(InputError, match=r"train, in kcal/mol and Ang; dataset\.val\.src is .*val, in eV and Ang: "):
        run_fairchem("train", train_arguments("schnet_dc", *RUN, f"--dataset.val.src={val}"))
    bare = without_manifest(sample_data / "val", tmp_path / "bare")
    with pytest.raises(InputError, match=r"dataset\.val\.src is .*bare, in eV and Ang \(assumed\): "):
        run_fairchem("train", train_arguments("schnet_dc", *RUN, f"--dataset.val.src={bare}"))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("units", "named"), [({"energy_unit": "eV"}, "eV and Ang"), ({"length_unit": "Bohr"}, "kcal/mol and Bohr")]
)
def test_resuming_and_validating_on_other_units_is_refused(train_arguments, sample_data, tmp_path, units, named):
    run_fairchem("train", train_arguments("schnet_dc", *RUN))
    sources = [
        f"--dataset.{split}.src={stating(sample_data / split, tmp_path / split, **units)}" for split in ("train", "val")
    ]
    checkpoint = ("--checkpoint", str(tmp_path / "checkpoints/run/checkpoint.pt"))
    for mode in ("train", "validate"):
        with pytest.raises(InputError, match=f"of labels in kcal/mol and Ang, the data of dataset are in {named}"):
            run_fairchem(mode, train_arguments("schnet_dc", *checkpoint, *sources))
        gc.collect()  # the refused trainer's open LMDBs


def test_data_without_a_manifest_are_assumed_to_be_in_ev(train_arguments, sample_data, tmp_path, caplog):
    bare = {split: without_manifest(sample_data / split, tmp_path / "bare" / split) for split in ("train", "val")}
    sources = [f"--dataset.{split}.src={source}" for split, source in bare.items()]
    with pytest.raises(InputError, match=r"no manifest of one molecule.*set dataset\.train\.format to lmdb"):
        run_fairchem("train", train_arguments("schnet_dc", *RUN, *sources))
    with caplog.at_level(logging.WARNING):
        run_fairchem("train", train_arguments("schnet_dc", *RUN, *sources, "--dataset.train.format=lmdb"))
    assert f"{bare['train']} has no manifest: labels taken to be in eV and Ang (assumed)" in caplog.text
    assert labels_in(tmp_path) == {
        "energy_unit": "eV",
        "length_unit": "Ang",
        "units_from": "assumed",
        "elements": None,
        "records": {"train": 100, "val": 20},
        "sources": [{"name": str(bare["train"])}],
    }


def test_resuming_an_old_checkpoint_takes_the_units_of_the_data(train_arguments, tmp_path, caplog):
    settings = ("--timestamp-id", "run", "--optim.max_epochs=3", *OLD_CHECKPOINT)
    with caplog.at_level(logging.WARNING):
        run_fairchem("train", train_arguments("schnet_dc", *settings))
    assert "schnet_dc.pt states no units: taken to be those of the data, kcal/mol and Ang" in caplog.text
    assert labels_in(tmp_path)["energy_unit"] == "kcal/mol"
    assert torch.load(tmp_path / "checkpoints/run/checkpoint.pt", weights_only=False)["step"] == 15


@pytest.mark.parametrize("config", ["schnet_dc", "schnet_irelu_recommended"])
def test_fairchems_calculator_loads_the_checkpoint_into_its_own_trainer(train_arguments, tmp_path, config):
    run_fairchem("train", train_arguments(config, *RUN))
    path = tmp_path / "checkpoints/run/checkpoint.pt"
    conformations = np.load(OLD / "schnet_dc.npz")
    atoms = Atoms(conformations["atomic_numbers"], conformations["positions"][0], cell=20 * np.eye(3))
    atoms.calc = OCPCalculator(checkpoint_path=path, cpu=True, trainer="ocp")
    assert type(atoms.calc.trainer) is OCPTrainer
    assert np.isfinite(atoms.get_potential_energy())
    assert np.isfinite(atoms.get_forces()).all()
    assert load_trainer(path, cpu=True).config["labels"]["energy_unit"] == "kcal/mol"
