import pickle
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

import ocp_dc.datasets
from ocp_dc.datasets.manifest import read_manifest
from ocp_dc.errors import InputError


def test_convert_sample_and_inspect_it(run_command, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_command("convert", "sample", out, "--train", 20, "--val", 5, "--test", 6, "--seed", 2) == 0
    converted = capsys.readouterr()
    assert f"written: {out / 'train'}, {out / 'val'}, {out / 'test'}" in converted.out
    assert "assumed" not in converted.out
    assert "100%" in converted.err
    assert read_manifest(out / "train").seed == 2

    assert run_command("inspect", out) == 0
    table = capsys.readouterr().out
    assert table.rstrip() in converted.out
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    assert lines["conformations"].split()[1:] == ["20", "of", "1,000", "5", "of", "1,000", "6", "of", "1,000"]
    assert lines["C (Eq. 4)"].endswith(" 100000")
    assert "random, seed 2" in lines["drawn"]

    assert run_command("inspect", out / "val") == 0
    assert "5 of 1,000" in capsys.readouterr().out
    assert run_command("inspect", out / "val" / "data.lmdb") == 0
    assert "5 of 1,000" in capsys.readouterr().out


def test_inspect_source(run_command, capsys):
    assert run_command("inspect", "sample") == 0
    table = capsys.readouterr().out
    for words in ("C2H6O", "1,000", "-97,073.3799", "23.7054", "194.9191", "100000", "kcal/mol/Ang", "PBE/def2-SVP"):
        assert words in table


@pytest.mark.parametrize("time", [0.0, -5.0, np.nan, np.inf, np.ones(2), "5", None], ids=str)
def test_a_file_that_does_not_state_how_far_apart_conformations_are(run_command, write_npz, capsys, time):
    file = write_npz(interval_fs=5.0, energy_autocorrelation_fs=time)
    assert run_command("inspect", file) == 0
    assert "autocorrelation" not in capsys.readouterr().out
    file = write_npz(interval_fs=5.0, energy_autocorrelation_fs=20)
    assert run_command("inspect", file) == 0
    assert "worth                        about 10 independent conformations" in capsys.readouterr().out


def test_columns_are_aligned(run_command, tmp_path, capsys):
    run_command("convert", "sample", tmp_path / "out", "--train", 9, "--test", 100)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("split", "conf", "energy m"))]
    assert len({len(line) for line in lines}) == 1


def test_inspect_without_manifest_says_which_units_it_assumes(run_command, write_npz, arrays, tmp_path, capsys):
    run_command("convert", write_npz(arrays), tmp_path / "out", "--train", 40)
    (tmp_path / "out" / "train" / "manifest.json").unlink()
    capsys.readouterr()
    for path in (tmp_path / "out" / "train" / "data.lmdb", tmp_path / "out" / "train", tmp_path / "out"):
        assert run_command("inspect", path) == 0
        table = capsys.readouterr().out
        assert f"{arrays['E'].mean():,.4f}" in table
        assert f"{np.abs(arrays['F']).max():,.4f}" in table
        assert "kcal/mol and Angstrom are assumed" in table
    assert run_command("inspect", tmp_path / "out", "--units", "eV") == 0
    assert "energy mean (eV)" in capsys.readouterr().out


def test_unstated_units_are_noted(run_command, write_npz, tmp_path, capsys):
    source = write_npz()
    run_command("convert", source, tmp_path / "out", "--train", 4)
    assert "kcal/mol and Angstrom are assumed" in capsys.readouterr().out
    run_command("convert", source, tmp_path / "out", "--train", 4, "--units", "eV", "--overwrite")
    assert "assumed" not in capsys.readouterr().out
    assert read_manifest(tmp_path / "out" / "train").energy_unit == "eV"


def test_split_dir(run_command, write_npz, tmp_path):
    source, splits = write_npz(), tmp_path / "splits"
    splits.mkdir()
    for name, rows in {"train": [1, 2], "valid": [3], "test": [4, 5, 6]}.items():
        (splits / f"{name}.pkl").write_bytes(pickle.dumps(rows))
    assert run_command("convert", source, tmp_path / "out", "--split-dir", splits) == 0
    assert read_manifest(tmp_path / "out" / "test").count == 3
    with pytest.raises(InputError, match="--split-dir gives the splits"):
        run_command("convert", source, tmp_path / "out2", "--split-dir", splits, "--train", 3)
    with pytest.raises(InputError, match="give --train"):
        run_command("convert", source, tmp_path / "out2")


def test_inspect_of_nothing_useful(run_command, tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        run_command("inspect", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no \.lmdb file"):
        run_command("inspect", tmp_path)
    (tmp_path / "a.lmdb").write_text("not one")
    with pytest.raises(InputError, match="not an LMDB"):
        run_command("inspect", tmp_path / "a.lmdb")


@pytest.mark.parametrize(("count", "message"), [(3, "announces 3 records, and has 0"), (0, "holds no records")])
def test_inspect_of_an_lmdb_without_records(run_command, tmp_path, count, message):
    with (
        lmdb.open(str(tmp_path / "b.lmdb"), subdir=False, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"length", pickle.dumps(count))
    with pytest.raises(InputError, match=message):
        run_command("inspect", tmp_path / "b.lmdb")


IMPORTED = """
import sys
from types import ModuleType

# without what the package itself imports
package = sys.modules["ocp_dc"] = ModuleType("ocp_dc")
package.__path__, package.__version__ = [sys.argv[1]], "0"
{statements}
print(*sorted({{"ase", "fairchem", "lmdb", "numpy", "scipy", "torch"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("statements", "imported"),
    [
        ("import ocp_dc.datasets.md17_commands, ocp_dc.datasets.oc22_commands", ""),
        ("from ocp_dc.datasets import sample_path; sample_path()", ""),
        ("from ocp_dc.datasets import open_trajectory, sample_path; open_trajectory(sample_path())", "ase numpy"),
        ("from ocp_dc.datasets import read_manifest; read_manifest('.')", "numpy"),
    ],
)
def test_nothing_is_imported_before_it_is_needed(statements, imported):
    script = IMPORTED.format(statements=statements)
    command = [sys.executable, "-c", script, str(Path(ocp_dc.datasets.__file__).parents[1])]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == imported


def test_names_of_the_package_are_all_there():
    for name in ocp_dc.datasets.__all__:
        assert getattr(ocp_dc.datasets, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'convrt'"):
        _ = ocp_dc.datasets.convrt
