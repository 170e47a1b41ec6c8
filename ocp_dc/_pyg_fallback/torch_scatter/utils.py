from torch import Tensor


def broadcast(src: Tensor, other: Tensor, dim: int) -> Tensor:
    """Expand `src` to the shape of `other`, a one-dimensional `src` running along `dim` of `other`.

    A `src` of more dimensions is aligned with the leading dimensions of `other`.
    """
    if src.dim() == 1:
        src = src.view(-1, *(1,) * (other.dim() - 1 - dim % other.dim()))
    else:
        src = src.view(*src.shape, *(1,) * (other.dim() - src.dim()))
    return src.expand_as(other)
