"""`ocp-dc evaluate` on files of any kind, with details and plots."""

from __future__ import annotations

import csv
import json

import ase.io
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from ocp_dc import calculator
from ocp_dc.cli import main
from ocp_dc.datasets.samples import oxide_sample_path
from ocp_dc.datasets.structure_files import read_structures
from ocp_dc.errors import InputError
from ocp_dc.evaluation import evaluate
from ocp_dc.units import ENERGY_UNITS_IN_EV

KCAL = ENERGY_UNITS_IN_EV["kcal/mol"]


def run_evaluate(*arguments) -> int:
    return main(["evaluate", "--cpu", *map(str, arguments)])


def numbers(errors):
    return [errors.energy_difference, errors.force, errors.largest_force]


@pytest.mark.parametrize("free_only", [False, True])
def test_a_file_of_slabs_gives_what_an_lmdb_of_them_gives(oxide_checkpoint, oxide_data, tmp_path, free_only):
    checkpoint = torch.load(oxide_checkpoint, weights_only=False)
    checkpoint["config"]["outputs"]["forces"]["eval_on_free_atoms"] = free_only
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    ase.io.write(tmp_path / "slabs.traj", list(read_structures(oxide_data / "test")))
    expected, expected_of_each = evaluate(tmp_path / "checkpoint.pt", oxide_data / "test", cpu=True)
    summary, of_each = evaluate(tmp_path / "checkpoint.pt", tmp_path / "slabs.traj", cpu=True)
    assert summary.energy_mae == pytest.approx(expected.energy_mae, rel=1e-12)
    assert summary.energy_unit == expected.energy_unit == "eV"
    for own, theirs in zip(numbers(of_each), numbers(expected_of_each), strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-10)
    assert np.array_equal(of_each.formula, expected_of_each.formula)
    # what the data were converted from: positions and forces that are not float32, and not wrapped
    frames = ase.io.read(oxide_sample_path(), ":")
    fids = [int(name.rsplit("_", 1)[1]) for name in expected_of_each.name]
    ase.io.write(tmp_path / "frames.extxyz", [frames[fid] for fid in fids])
    _, of_each = evaluate(tmp_path / "checkpoint.pt", tmp_path / "frames.extxyz", cpu=True)
    for own, theirs in zip(numbers(of_each), numbers(expected_of_each), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-3, atol=1e-3)


@pytest.fixture
def in_kcal(sample_data, tmp_path):
    """The test conformations as extended XYZ, in kcal/mol, which nothing says there."""
    frames = list(read_structures(sample_data / "test"))
    for atoms in frames:
        atoms.calc.results = {name: value / KCAL for name, value in atoms.calc.results.items()}
    ase.io.write(tmp_path / "ethanol.traj", frames)
    return tmp_path / "ethanol.traj"


def test_a_file_of_molecules_in_a_unit_that_is_given(ethanol_checkpoint, sample_data, in_kcal):
    expected, expected_of_each = evaluate(ethanol_checkpoint, sample_data / "test", cpu=True)
    summary, of_each = evaluate(ethanol_checkpoint, in_kcal, cpu=True, energy_unit="kcal/mol")
    assert summary.energy_unit == expected.energy_unit == "kcal/mol"
    for own, theirs in zip(numbers(of_each), numbers(expected_of_each), strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-10)
    with pytest.raises(InputError, match="states its energies in kcal/mol, the given energy unit is eV"):
        evaluate(ethanol_checkpoint, sample_data / "test", cpu=True, energy_unit="eV")


def test_a_model_of_stored_edges_finds_those_of_a_file(oxide_checkpoint, oxide_data, tmp_path):
    checkpoint = torch.load(oxide_checkpoint, weights_only=False)
    # this package's class refuses to go on without edges
    checkpoint["config"]["model"] |= {"name": "schnet_irelu", "activation": "original", "otf_graph": False}
    torch.save(checkpoint, tmp_path / "stored.pt")
    ase.io.write(tmp_path / "slabs.traj", list(read_structures(oxide_data / "test")))
    found, stored = (
        evaluate(path, tmp_path / "slabs.traj", cpu=True)[0] for path in (oxide_checkpoint, tmp_path / "stored.pt")
    )
    assert stored.energy_mae == pytest.approx(found.energy_mae, rel=1e-6)


def test_evaluation_and_calculator_agree(ethanol_checkpoint, sample_data):
    frames = list(read_structures(sample_data / "test"))
    _, of_each = evaluate(ethanol_checkpoint, sample_data / "test", len(frames), cpu=True)
    results = calculator.load(ethanol_checkpoint, "cpu").evaluate(frames)
    differences = [
        result["energy"] - atoms.get_potential_energy() for result, atoms in zip(results, frames, strict=True)
    ]
    np.testing.assert_allclose(of_each.energy_difference * KCAL, differences, atol=1e-10)
    apart = np.array([result["forces"] - atoms.get_forces() for result, atoms in zip(results, frames, strict=True)])
    np.testing.assert_allclose(of_each.force * KCAL, np.abs(apart).mean(axis=(1, 2)), atol=1e-10)
    np.testing.assert_allclose(of_each.largest_force * KCAL, np.abs(apart).max(axis=(1, 2)), atol=1e-10)


def test_the_sample_and_npz_files(ethanol_checkpoint, sample_data, tmp_path):
    assert run_evaluate("--checkpoint", ethanol_checkpoint, "--data", "sample", "--out", tmp_path / "out.json") == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["conformations"] == 1000
    assert result["data"] == "sample"
    assert result["energy_unit"] == "kcal/mol"


def test_details_and_plots(ethanol_checkpoint, sample_data, tmp_path, capsys):
    command = ["--checkpoint", ethanol_checkpoint, "--data", sample_data / "test", "--out", tmp_path / "test.json"]
    assert run_evaluate(*command, "--details", "--plot") == 0
    printed = capsys.readouterr().out
    _, of_each = evaluate(ethanol_checkpoint, sample_data / "test", cpu=True)

    with (tmp_path / "test_structures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "index",
        "id",
        "formula",
        "energy_error (kcal/mol)",
        "force_mae (kcal/mol/Ang)",
        "largest_force_error (kcal/mol/Ang)",
    ]
    assert [row["index"] for row in rows] == [str(index) for index in range(20)]
    assert rows[0]["id"] == of_each.name[0]
    assert rows[0]["id"].startswith("ethanol")
    assert {row["formula"] for row in rows} == {"C2H6O"}
    for name, values in zip(list(rows[0])[3:], numbers(of_each), strict=True):
        np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-12)

    lines = [line.split() for line in printed.splitlines()]
    (largest,) = (line for line in lines if line[:1] == ["max"])
    assert [float(word) for word in largest[1:]] == pytest.approx(
        [of_each.energy.max(), of_each.force.max(), of_each.largest_force.max()], rel=1e-3
    )
    (median,) = (line for line in lines if line[:2] == ["50", "%"])
    assert float(median[2]) == pytest.approx(np.median(of_each.energy), rel=1e-3)
    worst = [int(line[1]) for line in lines if line[:1] == ["forces"]]
    assert worst == np.argsort(-of_each.largest_force)[:5].tolist()
    for plot in ("parity", "errors"):
        assert imread(tmp_path / f"test_{plot}.png").shape[0] > 300

    (tmp_path / "test.json").unlink()
    assert run_evaluate(*command, "--details") == 2
    assert "test_structures.csv exists" in capsys.readouterr().err
    assert run_evaluate(*command, "--details", "--plot", "--overwrite") == 0


def test_structures_without_labels_are_refused(ethanol_checkpoint, sample_data, tmp_path, capsys):
    frames = list(read_structures(sample_data / "test"))
    del frames[3].calc.results["forces"]
    ase.io.write(tmp_path / "some.traj", frames)
    for atoms in frames:
        atoms.calc = None
    ase.io.write(tmp_path / "none.extxyz", frames)
    out = ["--checkpoint", ethanol_checkpoint, "--out", tmp_path / "out.json"]
    assert run_evaluate(*out, "--data", tmp_path / "none.extxyz") == 2
    assert "structure 0 has no energy and no forces, and errors are taken against both" in capsys.readouterr().err
    assert run_evaluate(*out, "--data", tmp_path / "some.traj") == 2
    assert "structure 3 has no forces" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
