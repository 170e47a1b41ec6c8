"""What SLURM sends, or a terminal that is closed, ends a process as an interrupt does: in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class EndedBySignal(KeyboardInterrupt):
    """As if interrupted at the terminal: files that are not complete are removed, and locks let go."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")
        self.status = 128 + number


# What Python does on each. SIGINT is here for its status: after a KeyboardInterrupt, no subclass of it, in code that
# exec was given as text, `python -m` ends by the signal, even where it was caught.
ORDINARY = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Signals of ``ORDINARY`` raise :class:`EndedBySignal`; where they are ignored, as nohup has it, they still are."""

    def end(number: int, _frame: object) -> None:
        raise EndedBySignal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number, ordinary in ORDINARY.items():
            if signal.getsignal(number) is ordinary:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
