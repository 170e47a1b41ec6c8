"""The units of energies and lengths that data may have. Forces are in the energy's unit per Å."""

from __future__ import annotations

from ocp_dc.errors import InputError

# kcal/mol as in the paper's evaluation (EFwT); the others from CODATA 2018
ENERGY_UNITS_IN_EV = {
    "kcal/mol": 0.0433634,
    "kJ/mol": 0.0103642697,
    "eV": 1.0,
    "meV": 0.001,
    "Hartree": 27.211386246,
}
MD17_ENERGY_UNIT = "kcal/mol"
LENGTH_UNIT = "Ang"


def energy_factor(from_unit: str, to_unit: str) -> float:
    """The number that turns energies in one unit into another by multiplication, and forces per Å likewise.

    Args:
        from_unit, to_unit: of ``ENERGY_UNITS_IN_EV``.

    Raises:
        InputError: a unit is none of them.
    """
    for unit in (from_unit, to_unit):
        if unit not in ENERGY_UNITS_IN_EV:
            raise InputError(f"energy unit {unit!r} is unknown; known: {', '.join(ENERGY_UNITS_IN_EV)}")
    return ENERGY_UNITS_IN_EV[from_unit] / ENERGY_UNITS_IN_EV[to_unit]
