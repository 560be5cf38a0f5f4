"""Buffers of a fixed size whose oldest rows are overwritten first."""

from __future__ import annotations

import torch
from torch import Tensor


def next_places(num_pushed: Tensor, num_rows: int, *, size: int) -> tuple[slice, Tensor]:
    """Where the next rows go.

    Args:
        num_pushed: int64 scalar, rows pushed so far.
        num_rows: that are pushed now.
        size: of the buffer.

    Returns:
        Which of the rows to store, the last ones where there are more than ``size``, and for each
        of these its place in the buffer.

    Example:
        >>> rows, places = next_places(torch.tensor(3), 5, size=4)
        >>> rows, places.tolist()
        (slice(1, None, None), [0, 1, 2, 3])
    """
    rows = slice(max(0, num_rows - size), None)
    return rows, (num_pushed + torch.arange(num_rows, device=num_pushed.device))[rows] % size
