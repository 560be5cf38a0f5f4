"""Is an export writing down what a network does?"""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """True while torch traces: every number of frames is then the example's and must not decide.

    Example:
        >>> is_traced()
        False
    """
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return traced
