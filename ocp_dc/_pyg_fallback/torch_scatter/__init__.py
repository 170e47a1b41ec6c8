"""`scatter`, `segment_coo`, `segment_csr` and `broadcast` with the interface of torch_scatter 2.1."""

import torch
from torch import Tensor

from .utils import broadcast

__version__ = "2.1.2+ocp_dc"


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the elements of `src` that share an index along `dim` to one element of the result.

    Args:
        src: values, shape (..., N, ...) with N at `dim`.
        index: int64; shape (N,), or one that `broadcast` expands to that of `src`.
        out: shape (..., dim_size, ...); takes part in the reduction (a mean still divides by the number of elements
            of `src` alone), is overwritten by the result and returned.
        dim_size: size of the result along `dim`; by default, the largest index plus one.
        reduce: `sum`, `add`, `mean`, `min`, `max` or `mul`. With `min` and `max`, the gradient of tied elements
            goes to the first of them.

    Returns:
        Tensor of shape (..., dim_size, ...). Without `out`, a slot that no index names is 0, or 1 for `mul`.

    Raises:
        ValueError: `reduce` is none of the above.
    """
    if reduce not in ("sum", "add", "mean", "min", "max", "mul"):
        raise ValueError(f"reduce={reduce!r} is not supported: use sum, add, mean, min, max or mul")
    dim = dim % src.dim()
    full_index = broadcast(index, src, dim)
    if out is not None:
        dim_size = out.size(dim)
    elif dim_size is None:
        dim_size = index.max() + 1 if index.numel() else 0
    shape = [*src.shape[:dim], int(dim_size), *src.shape[dim + 1 :]]

    if reduce in ("min", "max"):
        result = _extreme(src, full_index, dim, shape, out, reduce)
    elif reduce == "mul":
        start = src.new_ones(shape) if out is None else out
        result = start.scatter_reduce(dim, full_index, src, "prod")
    else:
        start = src.new_zeros(shape) if out is None else out
        result = start.scatter_add(dim, full_index, src)
        if reduce == "mean":
            ones = torch.ones_like(index, dtype=src.dtype)
            count = scatter(ones, index, min(dim, index.dim() - 1), dim_size=dim_size).clamp(min=1)
            rounding = None if src.is_floating_point() else "floor"
            result = result.div(broadcast(count, result, dim), rounding_mode=rounding)
    return result if out is None else out.copy_(result)


def _extreme(src: Tensor, index: Tensor, dim: int, shape: list[int], out: Tensor | None, reduce: str) -> Tensor:
    """Gather the first element that attains the extreme: torch's own amin and amax share the gradient among ties."""

    def positions(tensor: Tensor) -> Tensor:
        return broadcast(torch.arange(tensor.size(dim), device=src.device), tensor, dim)

    if out is not None:
        src, index = torch.cat((out, src), dim), torch.cat((positions(out), index), dim)
    values = src.detach()
    extreme = values.new_zeros(shape).scatter_reduce(dim, index, values, f"a{reduce}", include_self=False)
    attained = (values == extreme.gather(dim, index)) | values.isnan()

    nowhere = src.size(dim)
    candidates = positions(src).where(attained, nowhere)
    first = torch.full(shape, nowhere, device=src.device).scatter_reduce(dim, index, candidates, "amin")
    zero_for_empty = src.new_zeros([*shape[:dim], 1, *shape[dim + 1 :]])
    return torch.cat((src, zero_for_empty), dim).gather(dim, first)


def segment_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None, reduce: str = "sum"
) -> Tensor:
    """`scatter` along the last dimension of `index`, whose other dimensions are those that lead in `src`.

    torch_scatter requires a sorted `index`; here the order does not matter.
    """
    return scatter(src, index, index.dim() - 1, out, dim_size, reduce)


def segment_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """Reduce the slices `src[..., indptr[..., i] : indptr[..., i + 1], ...]`.

    Args:
        src: values, shape (*B, N, ...).
        indptr: ascending bounds of S segments, shape (*B, S + 1), or with ones in place of B. Elements of `src`
            outside of the first and last bound are left out.
        out: shape (*B, S, ...); overwritten by the result and returned.
        reduce: as in `scatter`.

    Returns:
        Tensor of shape (*B, S, ...); an empty segment is 0, or 1 for `mul`.
    """
    dim = indptr.dim() - 1
    segments = indptr.size(-1) - 1
    positions = torch.arange(src.size(dim), dtype=indptr.dtype, device=indptr.device)
    positions = positions.expand(*indptr.shape[:-1], -1).contiguous()
    # Slot 0 takes what lies before the first segment, slot segments + 1 what lies after the last.
    slot = torch.searchsorted(indptr.contiguous(), positions, right=True)
    result = scatter(src, slot, dim, dim_size=segments + 2, reduce=reduce).narrow(dim, 1, segments)
    return result if out is None else out.copy_(result)
