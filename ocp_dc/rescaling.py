"""Label rescaling (paper, Sec. 4.2, Eq. 4): one constant C divides energies and forces alike."""

from __future__ import annotations

import math

from ocp_dc.errors import InputError

# C from the training labels: by Eq. 4, or the mean absolute force component, which is not the paper's
FITTED = ("auto", "mean_force")


def rescaling_constant(max_abs_label: float) -> float:
    """C of Eq. 4: the smallest power of ten that is at least ``max_abs_label``.

    Args:
        max_abs_label: the largest absolute label, over energies and force components together (source units).

    Raises:
        InputError: the value is zero, negative or not finite, so that no such power exists.
    """
    if not (math.isfinite(max_abs_label) and max_abs_label > 0):
        raise InputError(
            f"label rescaling: the largest absolute label is {max_abs_label}, so Eq. 4 gives no constant; "
            "check the labels, or set task.label_rescaling to a number or to none"
        )
    # log10 is rounded: begin below, and step to the power that really is the smallest one not below the label
    exponent = math.ceil(math.log10(max_abs_label)) - 1
    while float(f"1e{exponent}") < max_abs_label:
        exponent += 1
    return float(f"1e{exponent}")


def parse_label_rescaling(value: str | float | None) -> str | float | None:
    """The config's ``task.label_rescaling`` as one of :data:`FITTED`, a positive number, or None for none.

    Raises:
        InputError: any other value.
    """
    if value is None or value == "none":
        return None
    if value in FITTED:
        return value
    try:
        constant = float(value)
    except (TypeError, ValueError):
        constant = math.nan
    if isinstance(value, bool) or not (math.isfinite(constant) and constant > 0):
        raise InputError(
            f"task.label_rescaling is {value!r}; it must be {', '.join(FITTED)}, none or a positive number (1.0e+6)"
        )
    return constant
