"""PDEBench's three layouts: what is written is read again, and what is wrong is named."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from ocp_dc.errors import InputError
from ocp_dc.pinn.equations import ADVECTION, CFD, DIFFUSION_REACTION
from ocp_dc.pinn.generation import generate
from ocp_dc.pinn.hdf5 import read_field, write_fields

h5py = pytest.importorskip("h5py", reason='needs the extra: pip install ".[pinn]"')


@pytest.fixture
def written(tmp_path):
    """A function that writes three samples of an equation; their file and the samples."""

    def write(equation):
        fields = [generate(equation, sample, cells=16, times=21) for sample in range(3)]
        write_fields(tmp_path / equation.file, equation, fields)
        return tmp_path / equation.file, fields

    return write


def test_what_is_written_is_read(written, equation):
    path, fields = written(equation)
    for sample, row in ((0, 0), (1, 1), (-1, 2), (-3, 0)):
        field = read_field(path, equation, sample)
        assert field.values == pytest.approx(fields[row].values, rel=1e-6, abs=1e-7)
        assert field.t == pytest.approx(fields[row].t)
        assert field.space[-1] == pytest.approx(fields[row].space[-1])
    # the folder that has it is as good
    assert np.array_equal(read_field(path.parent, equation, -1).values, field.values) is False
    assert np.array_equal(read_field(path.parent, equation, 0).values, field.values)


@pytest.mark.parametrize(("equation", "names"), [(ADVECTION, ["tensor"]), (CFD, ["density", "Vx", "pressure"])])
def test_layout_in_one_dimension(written, equation, names):
    path, fields = written(equation)
    with h5py.File(path) as file:
        assert sorted(file) == sorted([*names, "t-coordinate", "x-coordinate"])
        for component, name in enumerate(names):
            assert file[name].shape == (3, 21, 16)
            assert file[name].dtype == np.float32
            assert file[name][1] == pytest.approx(fields[1].values[..., component], abs=1e-4)
        # one more than there are values
        assert file["t-coordinate"].shape == (22,)
        assert file["x-coordinate"][0] == pytest.approx(equation.low + (equation.high - equation.low) / 32)


def test_layout_in_two_dimensions(written):
    path, fields = written(DIFFUSION_REACTION)
    with h5py.File(path) as file:
        assert sorted(file) == ["0000", "0001", "0002"]
        group = file["0002"]
        assert group["data"].shape == (21, 16, 16, 2)
        assert group["data"][()] == pytest.approx(fields[2].values, abs=1e-6)
        assert sorted(group["grid"]) == ["t", "x", "y"]
        assert yaml.safe_load(group.attrs["config"])["sim"]["Dv"] == 5e-3


def test_points_of_a_field_are_x_y_t(written):
    field = read_field(written(DIFFUSION_REACTION)[0], DIFFUSION_REACTION, 0)
    inputs, values = field.points()
    assert inputs[4, 2, 7] == pytest.approx([field.space[0][7], field.space[1][2], field.t[4]])
    assert np.array_equal(values[4, 2, 7], field.values[4, 2, 7])
    inputs, values = field.initial()
    # x runs fastest
    assert inputs[:3] == pytest.approx(np.array([[field.space[0][i], field.space[1][0], 0] for i in range(3)]))
    assert np.array_equal(values[16 + 3], field.values[0, 1, 3])
    inputs, values = field.with_x_and_y_exchanged().points()
    assert np.array_equal(values[4, 2, 7], field.values[4, 7, 2])


def change(path, key, value):
    with h5py.File(path, "r+") as file:
        del file[key]
        if value is not None:
            file[key] = value


@pytest.mark.parametrize(
    ("equation", "key", "value", "message"),
    [
        (ADVECTION, "tensor", None, r"/ has no tensor, only t-coordinate, x-coordinate"),
        (CFD, "Vx", None, r"/ has no Vx, only density, pressure, t-coordinate, x-coordinate"),
        (CFD, "Vx", np.zeros((3, 21, 15)), r"density \(3, 21, 16\), Vx \(3, 21, 15\), .* do not fit together"),
        (ADVECTION, "tensor", np.zeros((21, 16)), r"tensor \(21, 16\), .* do not fit together; expected are tensor of"),
        (ADVECTION, "x-coordinate", np.zeros(15), r"x-coordinate \(15,\), t-coordinate \(22,\) do not fit"),
        (ADVECTION, "t-coordinate", np.zeros(20), r"t-coordinate \(20,\) do not fit"),
        (
            ADVECTION,
            "x-coordinate",
            np.linspace(0, 2, 16),
            r"x runs from 0 to 2, expected are 16 equal steps from 0.03",
        ),
        (ADVECTION, "t-coordinate", np.linspace(0, 1, 22), r"t runs from 0 to 0.95.*, expected are 21 .* to 2"),
        (DIFFUSION_REACTION, "0000/data", None, r"/0000 has no data, only grid"),
        (DIFFUSION_REACTION, "0000/grid/y", None, r"/0000 has no grid/y"),
        (DIFFUSION_REACTION, "0000/data", np.zeros((21, 16, 8, 2)), r"data is of shape .*; by its grid it would be"),
    ],
)
def test_files_of_another_kind(written, equation, key, value, message):
    path, _ = written(equation)
    change(path, key, value)
    with pytest.raises(InputError, match=message):
        read_field(path, equation, 0)


@pytest.mark.parametrize("sample", [3, -4, 10_000])
def test_samples_out_of_range(written, equation, sample):
    with pytest.raises(InputError, match=f"--sample {sample}: .* has 3 samples, from 0 on"):
        read_field(written(equation)[0], equation, sample)


def test_values_that_are_not_finite(written):
    path, fields = written(CFD)
    values = np.stack([field.values[..., 2] for field in fields])
    values[1, 5, 3] = np.nan
    change(path, "pressure", values)
    read_field(path, CFD, 0)
    with pytest.raises(InputError, match="pressure is not finite at time number 5; choose another --sample"):
        read_field(path, CFD, 1)


def test_files_that_are_none(tmp_path, equation):
    with pytest.raises(InputError, match=f"there is no such file; give the folder of PDEBench's {equation.file}"):
        read_field(tmp_path, equation, 0)
    (tmp_path / equation.file).write_text("not HDF5")
    with pytest.raises(InputError, match=r"cannot be read \(.*\); is it one of PDEBench's HDF5 files\?"):
        read_field(tmp_path, equation, 0)
