"""The errors that this package raises on purpose."""

from __future__ import annotations


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


class TrainingDivergedError(DivergedError):
    """A prediction, loss or gradient was not finite; the weights were not updated with it.

    Attributes:
        step: the optimizer step that was not taken.
    """

    def __init__(self, what: str, step: int, batch_ids: list[str], last_checkpoint: str | None) -> None:
        super().__init__(
            f"{what} not finite at step {step} (batch: {', '.join(batch_ids)}); "
            f"last good checkpoint: {last_checkpoint or 'none was written yet'}. "
            "A lower learning rate, optim.clip_grad_norm or task.label_rescaling may help.",
            step,
        )


class TraceMismatchError(RuntimeError):
    """A step that is replayed from a trace differs from the usual one; the message says in what."""
