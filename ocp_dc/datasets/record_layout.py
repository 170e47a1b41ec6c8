"""Where the fields that differ stand in the bytes of a pickled record, to read records alike without unpickling."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch_geometric.data import Data

from ocp_dc.datasets.graphs import pickled


class RecordLayout:
    """How one record is pickled, and which of its bytes are those of which field.

    Another record with the same other bytes is unpickled to the same, but for these fields.

    Args:
        record, stored: a record, and the bytes that :func:`ocp_dc.datasets.graphs.pickled` makes of it.
        kinds: the fields that may differ, all of them tensors, and their types.
        number: another, a whole number from 0 to 2**31 - 1.
    """

    def __init__(self, record: Data, stored: bytes, kinds: Mapping[str, np.dtype], number: str) -> None:
        self._slots = {name: _slot(record, stored, name) for name in kinds}
        self._number, self._number_slot = number, slice(*_slot(record, stored, number))
        self._kinds = dict(kinds)
        inner = sorted([*self._slots.values(), (self._number_slot.start, self._number_slot.stop)])
        edges = [0, *(edge for slot in inner for edge in slot), len(stored)]
        spans = [slice(*span) for span in zip(edges[::2], edges[1::2], strict=True)]
        self._others = [(span, stored[span]) for span in spans]
        self._length = len(stored)

    @classmethod
    def of(cls, record: Data, stored: bytes, kinds: Mapping[str, np.dtype], number: str) -> RecordLayout | None:
        """None where the record was pickled in another way."""
        return cls(record, stored, kinds, number) if pickled(record) == stored else None

    def fits(self, stored: bytes) -> bool:
        """Whether another record differs in these fields alone."""
        return len(stored) == self._length and all(stored[span] == content for span, content in self._others)

    def values(self, stored: bytes) -> dict[str, np.ndarray | int]:
        """The fields of a record that fits, tensors as flat arrays."""
        values = {}
        for name, (start, stop) in self._slots.items():
            kind = self._kinds[name]
            values[name] = np.frombuffer(stored, kind, (stop - start) // kind.itemsize, start)
        values[self._number] = int.from_bytes(stored[self._number_slot], "little")
        return values


def _slot(record: Data, stored: bytes, name: str) -> tuple[int, int]:
    """The bytes that change with a field: from, to."""
    changed = copy.copy(record)
    changed[name] = _with_other_bytes(record[name])
    differing = np.frombuffer(stored, np.uint8) != np.frombuffer(pickled(changed), np.uint8)
    return int(differing.argmax()), len(differing) - int(differing[::-1].argmax())


def _with_other_bytes(value: torch.Tensor | int) -> torch.Tensor | int:
    """Of the same size, and different from this in each byte."""
    if isinstance(value, torch.Tensor):
        return torch.from_numpy((~value.numpy().view(np.uint8)).view(value.numpy().dtype))
    # pickled in one byte, two, or four; its first byte may not become 0
    width = next(width for width in (1, 2, 4) if value < 256**width)
    *rest, highest = value.to_bytes(width, "little")
    return int.from_bytes([*(byte ^ 255 for byte in rest), 2 if highest == 1 else 1], "little")
