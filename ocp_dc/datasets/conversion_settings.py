"""What a conversion can be asked for: splits, the size of shards, stored edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ocp_dc.errors import InputError

SPLIT_NAMES = ("train", "val", "test")
SPLITS_OF_SUBSET = ("train", "val")
DEFAULT_SHARD_SIZE = 50_000
DEFAULT_MAX_NEIGHBORS = 50


@dataclass(frozen=True)
class EdgeSettings:
    """How stored edges were chosen: those within ``cutoff`` (Å), at most ``max_neighbors`` to an atom, the nearest."""

    cutoff: float
    max_neighbors: int


def check_settings(cutoff: float | None, max_neighbors: int, shard_size: int) -> EdgeSettings | None:
    """The edges to store, None for none.

    Raises:
        InputError: a value is out of its range.
    """
    if shard_size < 1:
        raise InputError(f"--shard-size {shard_size}: a shard holds at least one structure")
    if cutoff is None:
        return None
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"--cutoff {cutoff}: it must be a positive number, in Angstrom")
    if max_neighbors < 1:
        raise InputError(f"--max-neighbors {max_neighbors}: it must be at least 1")
    return EdgeSettings(float(cutoff), max_neighbors)
