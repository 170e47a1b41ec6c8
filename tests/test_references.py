import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from ocp_dc.errors import InputError
from ocp_dc.references import fit_element_references, parse_reference_energy, read_training_labels

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
