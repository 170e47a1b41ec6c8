import pytest

from ocp_dc.errors import InputError
from ocp_dc.units import ENERGY_UNITS_IN_EV, energy_factor


def test_factors_between_units():
    assert energy_factor("kcal/mol", "eV") == 0.0433634
    assert energy_factor("eV", "meV") == 1000
    # the paper rounds kcal/mol
    assert energy_factor("Hartree", "kcal/mol") == pytest.approx(627.5095, rel=1e-4)
    assert energy_factor("kcal/mol", "kJ/mol") == pytest.approx(4.184, rel=1e-4)
    for unit in ENERGY_UNITS_IN_EV:
        assert energy_factor(unit, unit) == 1


@pytest.mark.parametrize("units", [("furlong", "eV"), ("eV", "furlong")])
def test_unknown_units_are_named_with_the_known_ones(units):
    with pytest.raises(InputError, match=r"'furlong' is unknown; known: kcal/mol, kJ/mol, eV, meV, Hartree"):
        energy_factor(*units)
