"""The errors that this package raises on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NAMED_STRUCTURES = 10
GROWTH = "a lower optim.lr_initial, optim.clip_grad_norm, or task.label_rescaling or reference_energy may help"


class InputError(ValueError):
    """What the user gave cannot be used; the message names the thing, its value and the remedy.

    The command line prints it as one line, without a traceback, and exits with status 2.
    """


class DivergedError(RuntimeError):
    """Numbers that ought to be finite were not; the message says which.

    Attributes:
        step: the step at which that was seen.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class Cause:
    """What was not finite first in a training step.

    Attributes:
        what: in words.
        advice: what may help.
        structures: which of the batch it concerns; None for all.
    """

    what: str
    advice: str
    structures: Sequence[bool] | None = None


class TrainingDivergedError(DivergedError):
    """A prediction, loss or gradient was not finite; the weights were not updated with it.

    Attributes:
        step: the optimizer step that was not taken.
    """

    def __init__(
        self, what: str, step: int, structures: Sequence[str], last_checkpoint: str | None, cause: Cause | None = None
    ) -> None:
        which = (
            structures
            if cause is None or cause.structures is None
            else [name for name, concerned in zip(structures, cause.structures, strict=True) if concerned]
        )
        named = ", ".join(which[:NAMED_STRUCTURES])
        more = f" and {len(which) - NAMED_STRUCTURES} more" if len(which) > NAMED_STRUCTURES else ""
        super().__init__(
            f"{what} not finite at step {step}; first was {cause.what if cause else f'the {what}'} "
            f"(batch: {named}{more}); last good checkpoint: {last_checkpoint or 'none was written yet'}; "
            f"{cause.advice if cause else GROWTH}",
            step,
        )


class TraceMismatchError(RuntimeError):
    """A step that is replayed from a trace differs from the usual one; the message says in what."""
