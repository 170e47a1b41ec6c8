import math

import pytest

from ocp_dc.errors import InputError
from ocp_dc.rescaling import parse_label_rescaling, rescaling_constant


@pytest.mark.parametrize(
    ("label", "constant"),
    [(406_737.28, 1e6), (97_073.4, 1e5), (1e5, 1e5), (math.nextafter(1e5, 2e5), 1e6), (0.02, 0.1), (1.0, 1.0)],
)
def test_smallest_power_of_ten_not_below_the_label(label, constant):
    assert rescaling_constant(label) == constant


def test_every_exponent_is_exact():
    for exponent in range(-30, 31):
        assert rescaling_constant(float(f"1e{exponent}")) == float(f"1e{exponent}")


@pytest.mark.parametrize("label", [0.0, -1.0, math.nan, math.inf])
def test_no_constant_for_such_labels(label):
    with pytest.raises(InputError, match="largest absolute label"):
        rescaling_constant(label)


def test_config_values():
    assert parse_label_rescaling("auto") == "auto"
    assert parse_label_rescaling("mean_force") == "mean_force"
    assert parse_label_rescaling("none") is None
    assert parse_label_rescaling(None) is None
    assert parse_label_rescaling(1_000_000) == 1e6
    assert parse_label_rescaling("1e6") == 1e6
    assert parse_label_rescaling(0.5) == 0.5


@pytest.mark.parametrize("value", ["automatic", -1, 0, True, math.inf, [1.0]])
def test_other_config_values_are_refused(value):
    with pytest.raises(InputError, match=r"task\.label_rescaling"):
        parse_label_rescaling(value)
