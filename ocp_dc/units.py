"""Units of energies and lengths."""

# kcal/mol as in the paper's evaluation (EFwT); the others from CODATA 2018
ENERGY_UNITS_IN_EV = {
    "kcal/mol": 0.0433634,
    "kJ/mol": 0.0103642697,
    "eV": 1.0,
    "meV": 0.001,
    "Hartree": 27.211386246,
}
LENGTH_UNIT = "Ang"
