"""The ASE calculator of trained models."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import atomic_numbers as number_of
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.vibrations import Vibrations
from fairchem.core.common.relaxation.ase_utils import OCPCalculator

from ocp_dc import calculator
from ocp_dc.calculator import load
from ocp_dc.datasets.ase_files import open_frames
from ocp_dc.datasets.lmdb import RecordFile
from ocp_dc.datasets.molecule_files import open_trajectory
from ocp_dc.datasets.samples import oxide_sample_path, sample_path
from ocp_dc.errors import InputError
from ocp_dc.evaluation import predict
from ocp_dc.launch import run_fairchem
from ocp_dc.trainers import traced_prediction
from ocp_dc.units import ENERGY_UNITS_IN_EV

OLD_CHECKPOINT = Path(__file__).parent / "data" / "checkpoints" / "schnet_dc.pt"
# SchNet with IReLU, 64/64/3/32, 150 epochs of 900 conformations of the embedded sample, mean energy removed, learning
# rate from 1e-3 to zero by a cosine, seed 0
ETHANOL_CHECKPOINT = OLD_CHECKPOINT.with_name("schnet_ethanol.pt")
MODELS = ("schnet", "cgcnn", "dimenetplusplus", "forcenet", "gemnet_t")


@pytest.fixture
def trained(train_arguments, tmp_path):
    """Trains a config of configs/md17 for a few steps; gives the checkpoint."""

    def train(config: str, *overrides: str, run_id: str = "run") -> Path:
        run_fairchem("train", train_arguments(config, "--optim.max_epochs=1", "--timestamp-id", run_id, *overrides))
        return tmp_path / "checkpoints" / run_id / "checkpoint.pt"

    return train


@pytest.fixture(scope="module")
def molecules() -> list[Atoms]:
    """Conformations of the embedded sample."""
    trajectory = open_trajectory(sample_path())
    block = next(trajectory.blocks())
    return [Atoms(trajectory.atomic_numbers, positions) for positions in block.positions[:5]]


@pytest.fixture(scope="module")
def relaxed(molecules) -> Atoms:
    """Ethanol at a minimum of a model that knows it."""
    atoms = molecules[0].copy()
    atoms.calc = doubled(load(ETHANOL_CHECKPOINT, "cpu"))
    assert BFGS(atoms, logfile=None).run(fmax=0.001, steps=200)
    return atoms


def doubled(model: calculator.TrainedModel) -> calculator.TrainedModel:
    """In float64, so that finite differences are sharp."""
    model._model.double()
    return model


def by_finite_differences(atoms: Atoms, atom: int, axis: int, step: float = 1e-4) -> float:
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[atom, axis] += sign * step
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    return -(energies[0] - energies[1]) / (2 * step)


@pytest.mark.parametrize("name", MODELS)
def test_forces_are_the_gradient_of_the_energy(trained, molecules, name):
    atoms = molecules[0].copy()
    atoms.calc = doubled(load(trained(f"{name}_dc"), "cpu"))
    forces = atoms.get_forces()
    conservative = name != "dimenetplusplus"
    for atom, axis in ((0, 0), (3, 2), (8, 1)):
        expected = by_finite_differences(atoms, atom, axis)
        assert (abs(forces[atom, axis] - expected) < 1e-5 * abs(forces).max()) == conservative


def test_results_are_those_of_the_evaluation_in_ev(trained, sample_data):
    checkpoint = trained("schnet_irelu_recommended")
    (expected,) = predict(checkpoint, sample_data / "test", batch_size=20, cpu=True)
    frames = structures_of(sample_data / "test")
    results = load(checkpoint, "cpu").evaluate(frames)
    factor = ENERGY_UNITS_IN_EV["kcal/mol"]
    energies = [result["energy"] for result in results]
    np.testing.assert_allclose(energies, expected.energy * factor, rtol=1e-10)
    np.testing.assert_allclose(np.concatenate([r["forces"] for r in results]), expected.forces * factor, atol=1e-10)
    assert all(result["free_energy"] == result["energy"] for result in results)


def structures_of(data: Path) -> list[Atoms]:
    with RecordFile(data / "data.lmdb") as records:
        graphs = [records[row] for row in range(len(records))]
    return [Atoms(graph.atomic_numbers.numpy(), graph.pos.numpy()) for graph in graphs]


@pytest.mark.parametrize("unit", ["kcal/mol", "eV", "Hartree"])
def test_results_are_in_ev_whatever_the_unit_of_training(molecules, unit):
    atoms = molecules[0].copy()
    atoms.calc = load(OLD_CHECKPOINT, "cpu", energy_unit="eV")
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = load(OLD_CHECKPOINT, "cpu", energy_unit=unit)
    factor = ENERGY_UNITS_IN_EV[unit]
    assert atoms.get_potential_energy() == pytest.approx(factor * energy, rel=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), factor * forces, rtol=1e-12)


def test_a_unit_must_be_known_and_not_contradicted(trained):
    with pytest.raises(InputError, match=r"schnet_dc\.pt does not state the energy unit .*: give energy_unit"):
        load(OLD_CHECKPOINT, "cpu")
    with pytest.raises(InputError, match=r"energy_unit is 'eV', and .* was trained in kcal/mol"):
        load(trained("schnet"), "cpu", energy_unit="eV")


def test_a_batch_gives_what_each_structure_gives_alone(trained, molecules, monkeypatch):
    model = doubled(load(trained("schnet_dc"), "cpu"))
    alone = [model.evaluate([atoms])[0] for atoms in molecules]
    monkeypatch.setattr(calculator, "ATOMS_AT_ONCE", 18)
    for own, together in zip(alone, model.evaluate(molecules), strict=True):
        assert own["energy"] == pytest.approx(together["energy"], rel=1e-12)
        np.testing.assert_allclose(own["forces"], together["forces"], atol=1e-10)


@pytest.mark.parametrize("name", ["schnet", "dimenetplusplus", "gemnet_t"])
def test_a_molecule_asked_for_often_is_traced_and_gives_the_same(trained, molecules, monkeypatch, name):
    checkpoint = trained(f"{name}_dc", *(["--model.max_neighbors=50"] if name == "gemnet_t" else []))
    usual = doubled(load(checkpoint, "cpu"))
    model = doubled(load(checkpoint, "cpu"))
    monkeypatch.setattr(traced_prediction, "CALLS_BEFORE_TRACING", 2)
    model.evaluate([molecules[0]])
    model.evaluate([molecules[1]])
    (replay,) = model._trainer.traced_predictions._replays.values()
    assert replay is not None
    monkeypatch.setattr(usual._trainer, "traced_predictions", lambda _: None)
    stretched = molecules[2].copy()
    # beyond the cutoff from most others
    stretched.positions[8] += 4.0
    for atoms in (molecules[3], stretched):
        expected, replayed = usual.evaluate([atoms])[0], model.evaluate([atoms])[0]
        assert replayed["energy"] == pytest.approx(expected["energy"], rel=1e-10)
        np.testing.assert_allclose(replayed["forces"], expected["forces"], atol=1e-9 * abs(expected["forces"]).max())
    boxed = molecules[3].copy()
    boxed.pbc = True
    with pytest.raises(InputError, match="is periodic"):
        model.evaluate([boxed])


def test_a_relaxed_molecule_vibrates_without_imaginary_modes(relaxed, tmp_path):
    vibrations = Vibrations(relaxed, name=tmp_path / "vibrations")
    vibrations.run()
    frequencies = vibrations.get_frequencies()
    # six are of no vibration: the energy is invariant to translation and rotation
    assert abs(frequencies[:6]).max() < 20
    assert (frequencies[6:].imag == 0).all()
    # torsions, and the stretch of O-H
    assert 150 < frequencies[6].real < 350
    assert 3500 < frequencies[-1].real < 4000


def test_a_band_finds_the_barrier_of_the_methyl_group(relaxed):
    carbon, other, hydrogens = 0, 1, [6, 7, 8]
    assert (relaxed.get_distances(carbon, [other, *hydrogens]) < 1.6).all()
    images = []
    for angle in np.linspace(0, 120, 7):
        image, turned = relaxed.copy(), relaxed.copy()
        turned.rotate(angle, relaxed.positions[carbon] - relaxed.positions[other], center=relaxed.positions[carbon])
        image.positions[hydrogens] = turned.positions[hydrogens]
        image.calc = relaxed.calc
        images.append(image)
    assert BFGS(images[-1], logfile=None).run(fmax=0.005, steps=100)
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    assert FIRE(band, logfile=None).run(fmax=0.05, steps=150)
    energies = np.array([image.get_potential_energy() for image in images]) - relaxed.get_potential_energy()
    assert abs(energies[-1]) < 0.002
    # a threefold barrier, highest half way
    assert energies.max() == energies[3] == pytest.approx(0.144, abs=0.02)


def test_ase_asks_once_for_each_geometry(trained, molecules, monkeypatch):
    atoms = molecules[0].copy()
    atoms.calc = load(trained("schnet"), "cpu")
    calls = []
    calculate = atoms.calc.calculate
    monkeypatch.setattr(atoms.calc, "calculate", lambda *given: (calls.append(1), calculate(*given)))
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_potential_energy(force_consistent=True)
    assert len(calls) == 1
    atoms.rattle(0.01)
    atoms.get_forces()
    assert len(calls) == 2


def test_other_elements_and_periodic_structures_are_refused(trained, molecules):
    checkpoint = trained("schnet_dc")
    atoms = molecules[0].copy()
    atoms.numbers[0] = number_of["S"]
    atoms.calc = load(checkpoint, "cpu")
    with pytest.raises(InputError, match=r"has S; the model was trained on H, C, O.*any_element=True"):
        atoms.get_potential_energy()
    atoms.calc = load(checkpoint, "cpu", any_element=True)
    assert np.isfinite(atoms.get_potential_energy())
    boxed = molecules[0].copy()
    boxed.center(5.0)
    boxed.pbc = True
    with pytest.raises(InputError, match=r"is periodic, and the model was trained without .*set atoms\.pbc to False"):
        load(checkpoint, "cpu").evaluate([boxed])
    with pytest.raises(PropertyNotImplementedError, match="is not periodic"):
        load(checkpoint, "cpu").evaluate(molecules[:1], stress=True)


def test_forces_that_are_no_gradient_are_announced(trained, caplog):
    with caplog.at_level(logging.WARNING):
        load(trained("dimenetplusplus"), "cpu")
    assert "the forces of this dimenetplusplus are not the gradient of its energy" in caplog.text


def test_fairchems_calculator_is_refused_where_it_would_be_wrong(trained, molecules):
    atoms = molecules[0].copy()
    atoms.calc = OCPCalculator(checkpoint_path=trained("schnet_dc"), cpu=True)
    with pytest.raises(InputError, match=r"in kcal/mol .* as eV: take ocp_dc\.calculator\.load"):
        atoms.get_potential_energy()
    # what states no unit is taken at its word
    atoms.calc = OCPCalculator(checkpoint_path=OLD_CHECKPOINT, cpu=True)
    energy = atoms.get_potential_energy()
    atoms.calc = load(OLD_CHECKPOINT, "cpu", energy_unit="eV")
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)


def test_periodic_structures_that_move_out_of_changing_cells(train_arguments_on_oxides, tmp_path):
    # some atoms have more neighbours than the model's limit
    run_fairchem("train", train_arguments_on_oxides("schnet_dc", "--optim.max_epochs=1", "--timestamp-id", "run"))
    model, other = (doubled(load(tmp_path / "checkpoints" / "run" / "checkpoint.pt", "cpu")) for _ in range(2))
    random = np.random.default_rng(0)
    atoms = open_frames(oxide_sample_path()).read(0)
    atoms.constraints = []
    free = Atoms(atoms.numbers[:3], [[0, 0, 0], [1.8, 0, 0], [0.5, 2, 0]])
    for repeats in random.integers(-2, 3, size=(4, len(atoms), 3)):
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * random.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.2 * random.normal(size=(len(atoms), 3))
        elsewhere = atoms.copy()
        elsewhere.positions += (repeats * atoms.pbc) @ atoms.cell.array
        expected, (moved, alone) = other.evaluate([atoms])[0], model.evaluate([elsewhere, free])
        assert moved["energy"] == pytest.approx(expected["energy"], rel=1e-10)
        np.testing.assert_allclose(moved["forces"], expected["forces"], atol=1e-9 * abs(expected["forces"]).max())
        assert alone["energy"] == pytest.approx(other.evaluate([free])[0]["energy"], rel=1e-10)
    elsewhere.calc = model
    for atom, axis in ((0, 0), (7, 2)):
        expected = by_finite_differences(elsewhere, atom, axis)
        assert elsewhere.get_forces()[atom, axis] == pytest.approx(expected, abs=1e-5 * abs(moved["forces"]).max())


@pytest.mark.parametrize("name", ["schnet", "cgcnn"])
def test_stress_is_the_derivative_by_strain(train_arguments_on_oxides, tmp_path, name):
    run_fairchem("train", train_arguments_on_oxides(f"{name}_dc", "--optim.max_epochs=1", "--timestamp-id", "run"))
    model = doubled(load(tmp_path / "checkpoints" / "run" / "checkpoint.pt", "cpu"))
    atoms = open_frames(oxide_sample_path()).read(0)
    atoms.pbc = True
    atoms.calc = model
    stress = atoms.get_stress()
    for component, (row, column) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[row, column] += sign * 0.5e-5
            strain[column, row] += sign * 0.5e-5
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(model.evaluate([strained])[0]["energy"])
        expected = (energies[0] - energies[1]) / 2e-5 / atoms.get_volume()
        assert stress[component] == pytest.approx(expected, abs=1e-5 * abs(stress).max())
    alone = model.evaluate([atoms, atoms.repeat((2, 1, 1))], stress=True)
    np.testing.assert_allclose(alone[0]["stress"], stress, rtol=1e-9)
