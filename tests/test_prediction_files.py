"""`ocp-dc predict`: energies and forces of structures in any file."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest

from ocp_dc import calculator, cli
from ocp_dc.cli import main
from ocp_dc.datasets.samples import oxide_sample_path
from ocp_dc.datasets.structure_files import read_structures

WATER = "3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


def predict(*arguments) -> int:
    return main(["predict", *map(str, arguments), "--cpu"])


@pytest.fixture(params=["molecules", "oxides"])
def case(request, tmp_path):
    """A checkpoint, structures of a file for it, and what the calculator says of them."""
    if request.param == "molecules":
        checkpoint = request.getfixturevalue("ethanol_checkpoint")
        structures = request.getfixturevalue("sample_data") / "test"
    else:
        checkpoint = request.getfixturevalue("oxide_checkpoint")
        # of two sizes, with tags and fixed atoms
        frames = ase.io.read(oxide_sample_path(), ":4")
        frames[1] = frames[1][:-1]
        frames[2].info["config_type"] = "third one"
        structures = tmp_path / "slabs.traj"
        ase.io.write(structures, frames)
    model = calculator.load(checkpoint, "cpu")
    return checkpoint, structures, model.evaluate(list(read_structures(structures)))


def forces_of(atoms):
    return atoms.get_forces(apply_constraint=False)


@pytest.mark.parametrize("suffix", ["extxyz", "xyz"])
def test_extended_xyz_has_the_calculators_numbers_and_the_structures_as_they_were(case, tmp_path, suffix):
    checkpoint, structures, expected = case
    assert predict(checkpoint, structures, "--to", tmp_path / f"out.{suffix}") == 0
    written = ase.io.read(tmp_path / f"out.{suffix}", ":", format="extxyz")
    for atoms, result, source in zip(written, expected, read_structures(structures), strict=True):
        assert atoms.get_potential_energy() == pytest.approx(result["energy"], rel=1e-12)
        np.testing.assert_allclose(forces_of(atoms), result["forces"], rtol=1e-5, atol=1e-7)
        assert np.array_equal(atoms.positions, source.positions)
        assert np.array_equal(atoms.cell.array, source.cell.array)
        assert np.array_equal(atoms.numbers, source.numbers)
        assert np.array_equal(atoms.pbc, source.pbc)
        assert np.array_equal(atoms.get_tags(), source.get_tags())
        assert [each.get_indices().tolist() for each in atoms.constraints] == [
            each.get_indices().tolist() for each in source.constraints
        ]
        assert {name: atoms.info[name] for name in source.info} == source.info
    assert not list(tmp_path.glob(".*"))


def test_what_is_written_is_what_the_calculator_gave(ethanol_checkpoint, sample_data, tmp_path):
    structures = list(read_structures(sample_data / "test"))
    assert predict(ethanol_checkpoint, sample_data / "test", "--to", tmp_path / "out.xyz", "--batch-size", 7) == 0
    assert predict(ethanol_checkpoint, sample_data / "test", "--to", tmp_path / "out.npz", "--batch-size", 7) == 0
    model = calculator.load(ethanol_checkpoint, "cpu")
    expected = [result for start in (0, 7, 14) for result in model.evaluate(structures[start : start + 7])]
    written = ase.io.read(tmp_path / "out.xyz", ":")
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["energy"].tolist() == [result["energy"] for result in expected]
        assert np.array_equal(arrays["forces"], np.concatenate([result["forces"] for result in expected]))
    for atoms, result in zip(written, expected, strict=True):
        assert atoms.get_potential_energy() == result["energy"]
        assert np.array_equal(forces_of(atoms), result["forces"])


def test_npz_names_its_arrays_and_units(case, tmp_path):
    checkpoint, structures, expected = case
    assert predict(checkpoint, structures, "--to", tmp_path / "out.npz") == 0
    source = list(read_structures(structures))
    with np.load(tmp_path / "out.npz") as arrays:
        units = {name: arrays[name].item() for name in arrays.files if name.endswith("_unit")}
        assert units == {"energy_unit": "eV", "forces_unit": "eV/Ang", "positions_unit": "Ang"}
        assert arrays["energy"].dtype == arrays["forces"].dtype == arrays["positions"].dtype == np.float64
        assert arrays["natoms"].tolist() == [len(atoms) for atoms in source]
        np.testing.assert_allclose(arrays["energy"], [result["energy"] for result in expected], rtol=1e-12)
        for name, of_each in {
            "forces": [result["forces"] for result in expected],
            "positions": [atoms.positions for atoms in source],
            "atomic_numbers": [atoms.numbers for atoms in source],
        }.items():
            for own, theirs in zip(np.split(arrays[name], np.cumsum(arrays["natoms"])[:-1]), of_each, strict=True):
                np.testing.assert_allclose(own, theirs, rtol=1e-5, atol=1e-7)


def test_structures_without_labels(ethanol_checkpoint, tmp_path):
    (tmp_path / "water.xyz").write_text(WATER + WATER)
    assert predict(ethanol_checkpoint, tmp_path / "water.xyz", "--to", tmp_path / "out.extxyz") == 0
    assert len(ase.io.read(tmp_path / "out.extxyz", ":")) == 2


def test_input_that_cannot_be_used(ethanol_checkpoint, sample_data, tmp_path, capsys):
    def refused(structures, to, *options, checkpoint=ethanol_checkpoint):
        before = sorted(tmp_path.iterdir())
        assert predict(checkpoint, structures, "--to", tmp_path / to, *options) == 2
        assert sorted(tmp_path.iterdir()) == before
        return capsys.readouterr().err.splitlines()[-1]

    test = sample_data / "test"
    assert "out.csv: predictions are written to .extxyz, .xyz, .npz files" in refused(test, "out.csv")
    assert "nowhere/out.xyz: there is no such folder" in refused(test, "nowhere/out.xyz")
    assert "--batch-size is 0" in refused(test, "out.xyz", "--batch-size", 0)
    assert "no.xyz: there is no such file" in refused(tmp_path / "no.xyz", "out.xyz")
    assert "no.pt: no such file" in refused(test, "out.xyz", checkpoint=tmp_path / "no.pt")
    assert "energy_unit is 'eV', and" in refused(test, "out.xyz", "--energy-unit", "eV")

    (tmp_path / "ammonia.xyz").write_text("4\n\nN 0 0 0\nH 0.9 0 0\nH 0 0.9 0\nH 0 0 0.9\n")
    assert "the model was trained on H, C, O" in refused(tmp_path / "ammonia.xyz", "out.xyz")
    assert predict(ethanol_checkpoint, tmp_path / "ammonia.xyz", "--to", tmp_path / "n.xyz", "--any-element") == 0
    # found only when some are written
    (tmp_path / "cut.xyz").write_text(WATER + "3\n\nO 0 0 0\nH 0 0 0\nH 1 0 0\n")
    for to in ("out.xyz", "out.npz"):
        assert "structure 1: atoms 0 and 1 are 0 Angstrom apart" in refused(tmp_path / "cut.xyz", to, "--batch-size", 1)

    (tmp_path / "mine.npz").write_text("mine")
    assert "mine.npz exists; name another file with --to, or give --overwrite" in refused(test, "mine.npz")
    assert (tmp_path / "mine.npz").read_text() == "mine"
    assert predict(ethanol_checkpoint, test, "--to", tmp_path / "mine.npz", "--overwrite") == 0
    assert len(np.load(tmp_path / "mine.npz")["energy"]) == 20


def test_predict_with_a_config_is_fairchems(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(cli, "_run_fairchem", lambda *call: calls.append(call) or 0)
    assert main(["predict", "--config-yml", "md17/schnet", "--checkpoint", "a.pt"]) == 0
    assert main(["predict", "--config-yml=md17/schnet"]) == 0
    assert calls == [
        ("predict", ["--config-yml", "md17/schnet", "--checkpoint", "a.pt"]),
        ("predict", ["--config-yml=md17/schnet"]),
    ]
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    printed = capsys.readouterr().out
    assert "CHECKPOINT STRUCTURES --to FILE" in printed
    assert "--config-yml FILE --checkpoint CHECKPOINT" in printed
