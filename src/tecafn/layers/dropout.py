"""Dropout whose mask does not cost more than the layer it regularises.

On a CPU torch draws one Bernoulli number per element, which took a sixth to a quarter of a training
step here. Four 16-bit numbers from each 64-bit draw of a faster generator give a mask like it in a
tenth of the time. The generator is seeded by torch's, so that ``torch.manual_seed`` decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from tecafn.core.fast import is_on

_LEVELS = 1 << 16


def dropout(values: Tensor, probability: float) -> Tensor:
    """Zero each element with ``probability`` and scale the rest so that the mean is kept.

    On a CPU the probability is rounded to a multiple of 2^-16, and the scale follows it.

    Args:
        values: any shape, floating point.
        probability: in [0, 1).

    Example:
        >>> kept = dropout(torch.ones(10_000), 0.25)
        >>> sorted(set(kept.tolist())) == [0.0, kept.max().item()]
        True
    """
    if probability == 0.0:
        return values
    if values.device.type != "cpu" or not is_on("dropout_masks"):
        return functional.dropout(values, probability, training=True)
    dropped: Tensor = _Dropped.apply(values, probability)  # type: ignore[no-untyped-call]
    return dropped


def draw_kept(shape: torch.Size, probability: float) -> tuple[Tensor, float]:
    """Which elements stay, and what they are multiplied by; on a CPU.

    Args:
        shape: of the mask.
        probability: of an element to go, in (0, 1).

    Returns:
        1 or 0 as uint8, which converts to a float much faster than bool does, and the scale.
    """
    if not is_on("dropout_masks"):
        keep_probability = 1.0 - probability
        return torch.empty(shape, dtype=torch.uint8).bernoulli_(keep_probability), (
            1.0 / keep_probability
        )
    count = shape.numel()
    kept = max(1, round((1.0 - probability) * _LEVELS))
    # By numpy: torch's own generator takes twice as long, its comparison of 16 bits ten times.
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = np.random.SFC64(seed).random_raw((count + 3) // 4).view(np.int16)[:count]
    keep = draws < kept - _LEVELS // 2
    return torch.from_numpy(keep.view(np.uint8)).view(shape), _LEVELS / kept


class _Dropped(Function):
    """Keeps one byte per element for the backward pass, where a product would keep a float."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, probability: float) -> Tensor:
        keep, ctx.scale = draw_kept(values.shape, probability)
        ctx.save_for_backward(keep)
        return (values * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return gradient * keep * ctx.scale, None


class Dropout(nn.Module):
    """``dropout`` while training, the identity otherwise.

    Args:
        probability: in [0, 1).

    Raises:
        ValueError: ``probability`` is out of range.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {probability}")
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """Same shape."""
        return dropout(values, self.probability) if self.training else values

    def extra_repr(self) -> str:
        """Shown when a module is printed."""
        return f"probability={self.probability}"
