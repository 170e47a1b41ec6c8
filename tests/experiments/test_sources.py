"""Conformations for the runs: found, converted once, and never mistaken for others."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from ocp_dc.datasets.samples import oxide_sample_path, sample_path
from ocp_dc.datasets.structure_conversion import convert_structures
from ocp_dc.errors import InputError
from ocp_dc.experiments import sources
from ocp_dc.experiments.sources import FrameSource, MoleculeSource, OC22Source

SIZES = {"train": 12, "val": 4, "test": 4}


@pytest.fixture
def folder_with_ethanol(tmp_path) -> Path:
    folder = tmp_path / "npz"
    folder.mkdir()
    shutil.copy(sample_path(), folder / "md17_ethanol.npz")
    return folder


def write_split(folder: Path, shift: int = 0) -> Path:
    folder.mkdir(parents=True)
    for name, rows in (("train", range(6)), ("valid", range(6, 8)), ("test", range(8, 10))):
        np.save(folder / f"{name}.npy", np.array(rows) + shift)
    return folder


def test_a_file_is_of_one_molecule_and_a_folder_of_any(tmp_path):
    assert MoleculeSource(sample_path()).only_molecule() == "ethanol"
    assert MoleculeSource(tmp_path).only_molecule() is None


def test_a_file_of_another_molecule_is_refused(tmp_path):
    file = tmp_path / "water.npz"
    positions = np.random.default_rng(0).normal(size=(5, 3, 3)) * 3
    np.savez(file, E=np.zeros((5, 1)), F=np.zeros((5, 3, 3)), R=positions, z=np.array([8, 1, 1]), name="water")
    with pytest.raises(InputError, match=r"holds water, H2O; the paper's molecules are aspirin \(C9H8O4\)"):
        MoleculeSource(file).only_molecule()
    with pytest.raises(InputError, match=r"none: there is no such file or folder"):
        MoleculeSource(tmp_path / "none").only_molecule()


def test_converts_once(folder_with_ethanol, tmp_path, monkeypatch):
    source = MoleculeSource(folder_with_ethanol, split_seed=3)
    manifests = source.prepare("ethanol", SIZES, tmp_path / "data" / "ethanol")
    assert {name: manifest.count for name, manifest in manifests.items()} == SIZES
    assert manifests["train"].seed == 3
    monkeypatch.setattr(sources, "convert", None)
    assert source.prepare("ethanol", SIZES, tmp_path / "data" / "ethanol") == manifests


def test_several_at_once_convert_once(folder_with_ethanol, tmp_path, monkeypatch):
    converted = []

    def convert(*arguments, **settings):
        converted.append(arguments)
        return original(*arguments, **settings)

    original = sources.convert
    monkeypatch.setattr(sources, "convert", convert)
    threads = [
        threading.Thread(
            target=MoleculeSource(folder_with_ethanol).prepare, args=("ethanol", SIZES, tmp_path / "data" / "e")
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(converted) == 1


def test_what_is_missing_is_downloaded_to_the_folder(tmp_path, monkeypatch):
    def download(molecule, folder, show_progress):
        folder.mkdir(exist_ok=True)
        return Path(shutil.copy(sample_path(), folder / f"md17_{molecule}.npz"))

    monkeypatch.setattr(sources, "download", download)
    source = MoleculeSource(tmp_path / "downloads")
    assert source.prepare("ethanol", SIZES, tmp_path / "data" / "e")["val"].source_file == "md17_ethanol.npz"


def test_a_conversion_outlives_its_source(folder_with_ethanol, tmp_path):
    source = MoleculeSource(folder_with_ethanol)
    source.prepare("ethanol", SIZES, tmp_path / "data" / "e")
    (folder_with_ethanol / "md17_ethanol.npz").unlink()
    assert source.prepare("ethanol", SIZES, tmp_path / "data" / "e")["test"].count == 4


def test_another_conversion_in_its_place_is_refused(folder_with_ethanol, tmp_path):
    data = tmp_path / "data" / "e"
    MoleculeSource(folder_with_ethanol).prepare("ethanol", SIZES, data)
    with pytest.raises(InputError, match="other sizes"):
        MoleculeSource(folder_with_ethanol).prepare("ethanol", {**SIZES, "val": 5}, data)
    arrays = dict(np.load(sample_path()))
    np.savez(folder_with_ethanol / "md17_ethanol.npz", **{**arrays, "E": arrays["E"] + 1})
    with pytest.raises(InputError, match=r"was converted from another md17_ethanol.npz than .*choose another --out"):
        MoleculeSource(folder_with_ethanol).prepare("ethanol", SIZES, data)
    shutil.rmtree(data / "test")
    with pytest.raises(InputError, match="is not a conversion to train, val, test"):
        MoleculeSource(folder_with_ethanol).prepare("ethanol", SIZES, data)


def test_given_splits_are_used_and_kept_apart(folder_with_ethanol, tmp_path):
    split_dir = tmp_path / "splits"
    write_split(split_dir / "ethanol")
    source = MoleculeSource(folder_with_ethanol, split_dir=split_dir)
    sizes = source.sizes("ethanol", SIZES)
    assert sizes == {"train": 6, "val": 2, "test": 2}
    manifests = source.prepare("ethanol", sizes, tmp_path / "data" / "e")
    assert manifests["train"].split_method == "given"
    assert set(manifests["train"].split_files) == {"train.npy", "valid.npy", "test.npy"}
    rows = np.load(tmp_path / "data" / "e" / "train" / "metadata.npz")["source_index"]
    assert rows.tolist() == list(range(6))

    other = MoleculeSource(folder_with_ethanol, split_dir=write_split(tmp_path / "others" / "ethanol", shift=1).parent)
    with pytest.raises(InputError, match=re.escape(f"was not split by --split-dir {tmp_path / 'others'}")):
        other.prepare("ethanol", sizes, tmp_path / "data" / "e")


def test_given_splits_of_a_single_file_may_lie_in_the_folder_itself(tmp_path):
    split_dir = write_split(tmp_path / "split")
    assert MoleculeSource(sample_path(), split_dir=split_dir).indices_dir("ethanol") == split_dir
    with pytest.raises(InputError, match=r"split/ethanol: there is no such folder"):
        MoleculeSource(tmp_path, split_dir=split_dir).sizes("ethanol", SIZES)


def test_oc22_is_drawn_from_its_folders(tmp_path):
    convert_structures([oxide_sample_path()], tmp_path / "OC22", sizes={"train": 30, "val": 10}, seed=0)
    (tmp_path / "OC22" / "val").rename(tmp_path / "OC22" / "val_ood")
    source = OC22Source(tmp_path / "OC22")
    of_scale = {"train": 12, "val": 3, "test": 5}
    sizes = source.sizes("oc22", of_scale)
    assert sizes == {"train": 12, "val": 5}
    manifests = source.prepare("oc22", sizes, tmp_path / "data" / "oc22")
    assert {name: manifest.count for name, manifest in manifests.items()} == sizes
    assert manifests["val"].source_file == "OC22/val_ood"
    assert source.prepare("oc22", sizes, tmp_path / "data" / "oc22") == manifests

    write_split(tmp_path / "indices")
    given = OC22Source(tmp_path / "OC22", split_dir=tmp_path / "indices")
    assert given.sizes("oc22", of_scale) == {"train": 6, "val": 2}
    with pytest.raises(InputError, match="has splits of other sizes"):
        given.prepare("oc22", {"train": 6, "val": 2}, tmp_path / "data" / "oc22")


def test_frames_of_another_file_are_not_mistaken(tmp_path):
    shutil.copy(oxide_sample_path(), tmp_path / "frames.traj")
    manifests = FrameSource(tmp_path / "frames.traj").prepare("oc22", SIZES, tmp_path / "data" / "oc22")
    assert manifests["train"].theory.startswith("GFN1-xTB")
    with (tmp_path / "frames.traj").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"was converted from another frames\.traj"):
        FrameSource(tmp_path / "frames.traj").prepare("oc22", SIZES, tmp_path / "data" / "oc22")
    with pytest.raises(InputError, match=r"none: there is no such file or folder; name .* the folder of OC22's"):
        OC22Source(tmp_path / "none").prepare("oc22", {"train": 1, "val": 1}, tmp_path / "data" / "other")
