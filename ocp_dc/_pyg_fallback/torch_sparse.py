"""The part of torch_sparse 0.6's `SparseTensor` by which fairchem lists triplets and quadruplets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_scatter import scatter

__version__ = "0.6.18+ocp_dc"


@dataclass
class SparseStorage:
    """The entries of a `SparseTensor`, by row and then by column; those at the same place stay in the order given."""

    _row: Tensor
    _col: Tensor
    _value: Tensor | None

    def row(self) -> Tensor:
        return self._row

    def col(self) -> Tensor:
        return self._col

    def value(self) -> Tensor | None:
        return self._value


class SparseTensor:
    """A sparse matrix that may hold several entries at the same place.

    Args:
        row, col: int64, shape (E,).
        value: shape (E, ...) or None.
        sparse_sizes: numbers of rows and columns.
        is_sorted: whether the entries come by row and then by column.
    """

    def __init__(
        self,
        *,
        row: Tensor,
        col: Tensor,
        value: Tensor | None = None,
        sparse_sizes: tuple[int, int],
        is_sorted: bool = False,
    ) -> None:
        if not is_sorted:
            order = torch.argsort(row * sparse_sizes[1] + col, stable=True)
            row, col, value = row[order], col[order], None if value is None else value[order]
        self.storage = SparseStorage(row, col, value)
        self._sparse_sizes = sparse_sizes

    def __repr__(self) -> str:
        return f"SparseTensor(sparse_sizes={self._sparse_sizes}, entries={self.storage.row().numel()})"

    def sparse_sizes(self) -> tuple[int, int]:
        return self._sparse_sizes

    def coo(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows and columns, shape (E,), and values, shape (E, ...) or None."""
        return self.storage.row(), self.storage.col(), self.storage.value()

    def __getitem__(self, rows: Tensor) -> SparseTensor:
        """The matrix whose i-th row is row `rows[i]` of this one; `rows` is int64, shape (R,), repeats allowed."""
        _, col, value = self.coo()
        entries_per_row = self._entries_per_row()
        end = entries_per_row.cumsum(0)[rows]
        entries_per_row = entries_per_row[rows]
        new_end = entries_per_row.cumsum(0)
        new_row = torch.arange(rows.numel(), device=rows.device).repeat_interleave(entries_per_row)
        entry = torch.arange(new_row.numel(), device=rows.device) + (end - new_end)[new_row]
        return SparseTensor(
            row=new_row,
            col=col[entry],
            value=None if value is None else value[entry],
            sparse_sizes=(rows.numel(), self._sparse_sizes[1]),
            is_sorted=True,
        )

    def set_value_(self, value: Tensor | None, layout: str = "coo") -> SparseTensor:
        """Replace the values in place, by values in the order of `coo()`, shape (E, ...), or None."""
        if layout != "coo":
            raise NotImplementedError(f"layout={layout!r} is not supported: give the values in the order of coo()")
        self.storage = SparseStorage(self.storage.row(), self.storage.col(), value)
        return self

    def set_value(self, value: Tensor | None, layout: str = "coo") -> SparseTensor:
        """The same matrix with other values, see `set_value_`."""
        row, col, _ = self.coo()
        copy = SparseTensor(row=row, col=col, sparse_sizes=self._sparse_sizes, is_sorted=True)
        return copy.set_value_(value, layout)

    def sum(self, dim: int) -> Tensor:
        """Row sums, shape (number of rows, ...); without values, the numbers of entries in the default float type."""
        if dim != 1:
            raise NotImplementedError(f"dim={dim} is not supported: only the rows can be summed, with dim=1")
        row, _, value = self.coo()
        if value is None:
            return self._entries_per_row().to(torch.get_default_dtype())
        return scatter(value, row, dim=0, dim_size=self._sparse_sizes[0])

    def _entries_per_row(self) -> Tensor:
        return torch.bincount(self.storage.row(), minlength=self._sparse_sizes[0])
