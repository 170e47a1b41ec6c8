import json
import shutil

import numpy as np
import pytest
import torch
from fairchem.core.datasets.base_dataset import create_dataset
from torch.utils.data import ConcatDataset, Dataset
from torch_geometric.data import Batch, Data

from ocp_dc.errors import InputError
from ocp_dc.references import (
    KEY_MAPPING,
    fit_element_references,
    parse_reference_energy,
    read_training_labels,
    training_labels,
)
from ocp_dc.rescaling import rescaling_constant

ELEMENT_ENERGIES = {1: -13.6, 6: -1027.5, 8: -2041.25}


def molecule(numbers, energy, force):
    return Data(
        atomic_numbers=torch.tensor(numbers),
        natoms=len(numbers),
        pos=torch.zeros(len(numbers), 3),
        energy=torch.tensor([energy], dtype=torch.float64),
        forces=torch.full((len(numbers), 3), force),
    )


@pytest.fixture
def molecules():
    compositions = [[1, 1, 8], [6, 1, 1, 1, 1], [6, 8], [1, 1], [6, 6, 1, 1]]
    return [molecule(z, sum(ELEMENT_ENERGIES[n] for n in z), -0.5 * i) for i, z in enumerate(compositions)]


def test_labels_of_a_training_set(molecules):
    labels = read_training_labels(molecules, show_progress=False)
    assert labels.energies.dtype == np.float64
    assert labels.energies[0] == 2 * -13.6 - 2041.25
    assert labels.compositions[1, 6] == 1
    assert labels.compositions[1, 1] == 4
    assert labels.max_abs_force == 2.0
    # 0, 0.5, 1, 1.5 and 2 on three, five, two, two and four atoms
    assert labels.mean_abs_force == pytest.approx(15.5 / 16)
    assert labels.max_abs_label == abs(labels.energies).max()
    assert labels.relative_to(labels.energies).max_abs_label == 2.0


def test_element_references_recover_a_sum_of_elements(molecules):
    references = fit_element_references(read_training_labels(molecules, show_progress=False))
    for number, energy in ELEMENT_ENERGIES.items():
        assert references.element_references[number].item() == pytest.approx(energy, abs=1e-9)
    batch = Batch.from_data_list(molecules)
    residual = references.dereference(batch.energy[:, None], batch)
    assert residual.dtype == torch.float64
    assert residual.abs().max() < 1e-9


def test_one_molecule_gives_its_mean_energy_exactly():
    energies = [-97_073.125, -97_071.0, -97_080.5]
    labels = read_training_labels([molecule([6, 6, 8] + 6 * [1], e, 0.0) for e in energies], show_progress=False)
    references = fit_element_references(labels).element_references.numpy()
    assert labels.compositions[0] @ references == pytest.approx(np.mean(energies), abs=1e-9)


def test_config_values():
    assert parse_reference_energy(None) == "none"
    assert parse_reference_energy("element") == "element"
    with pytest.raises(InputError, match="none, mean, element"):
        parse_reference_energy("atom")


class Unread(Dataset):
    """Of a length, but whose records must not be read."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index):
        raise AssertionError("a record was read")


def settings_of(*sources, **more) -> dict:
    src = [str(source) for source in sources]
    return {"format": "lmdb", "src": src[0] if len(src) == 1 else src, "key_mapping": KEY_MAPPING, **more}


def assert_same_fits(told, read, reference):
    """Mean, references and C of labels told by manifests, and of labels read from the records."""
    assert told.mean_energy == pytest.approx(read.mean_energy, rel=1e-12)
    assert told.max_abs_force == pytest.approx(read.max_abs_force, rel=1e-7)  # records hold float32
    assert told.mean_abs_force == pytest.approx(read.mean_abs_force, rel=1e-6)
    assert rescaling_constant(told.max_abs_label) == rescaling_constant(read.max_abs_label)
    if reference == "element":
        ours, theirs = (fit_element_references(labels).element_references.numpy() for labels in (told, read))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())
        subtracted = [labels.compositions @ ours for labels in (told, read)]
    else:
        subtracted = [told.mean_energy, read.mean_energy]
    told, read = (labels.relative_to(energies) for labels, energies in zip((told, read), subtracted, strict=True))
    assert told.max_abs_label == pytest.approx(read.max_abs_label, rel=1e-7)


@pytest.mark.parametrize("reference", ["mean", "element"])
def test_labels_of_molecules_come_from_manifests(sample_data, reference):
    sources = [sample_data / "train", sample_data / "val"]
    parts = [create_dataset(settings_of(source), "train") for source in sources]
    assert_same_fits(
        training_labels(Unread(100), settings_of(sources[0]), reference), read_training_labels(parts[0]), reference
    )
    both = ConcatDataset(parts)
    assert_same_fits(
        training_labels(Unread(120), settings_of(*sources), reference), read_training_labels(both), reference
    )


def test_two_molecules_from_their_manifests(sample_data, tmp_path):
    other = tmp_path / "train"
    other.mkdir()
    manifest = json.loads((sample_data / "val" / "manifest.json").read_text())
    manifest["labels"] |= {"energy_min": -410.0, "energy_mean": -400.0, "energy_max": -380.0, "mean_abs_force": 0.0}
    (other / "manifest.json").write_text(json.dumps({**manifest, "atomic_numbers": [1, 1, 8], "count": 30}))
    told = training_labels(Unread(130), settings_of(sample_data / "train", other), "element")

    ethanol = create_dataset(settings_of(sample_data / "train"), "train")
    waters = [molecule([1, 1, 8], energy, 0.0) for energy in [-410.0, -380.0, *28 * [-11_210 / 28]]]
    assert_same_fits(told, read_training_labels(ConcatDataset([ethanol, waters])), "element")


def test_labels_of_structures_come_from_the_manifest_but_for_compositions(oxide_data):
    settings = settings_of(oxide_data / "train")
    read = read_training_labels(create_dataset(settings, "train"))
    assert_same_fits(training_labels(Unread(20), settings, "mean"), read, "mean")
    with pytest.raises(AssertionError, match="a record was read"):
        training_labels(Unread(20), settings, "element")


def test_records_are_read_where_the_manifest_does_not_tell_all(sample_data, tmp_path):
    train = sample_data / "train"
    for length, settings in [
        (99, settings_of(train)),
        (100, settings_of(train, first_n=100)),
        (100, {**settings_of(train), "key_mapping": {"y": "energy"}}),
        (200, settings_of(train, _without_manifest(train, tmp_path))),
    ]:
        with pytest.raises(AssertionError, match="a record was read"):
            training_labels(Unread(length), settings, "mean")


def _without_manifest(source, folder):
    shutil.copy(source / "data.lmdb", folder)
    return folder
