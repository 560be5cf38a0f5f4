"""Which tokens of a pair were said before. Without torch: exported models ask, too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def context_mask(special: NDArray[np.bool_], num_own: int | None) -> NDArray[np.bool_]:
    """Which tokens of ``[CLS] context [SEP] text [SEP]`` are its context and the separator after.

    What is left is what the text alone would have: its own tokens and the special ones around.

    Args:
        special: (L,) bool, the tokens that are no word.
        num_own: how many words the text itself has; None where there is no context.

    Example:
        >>> context_mask(np.array([True, False, True, False, False, True]), 2)
        array([False,  True,  True, False, False, False])
    """
    mask = np.zeros(len(special), np.bool_)
    if num_own is not None:
        words = np.flatnonzero(~special)
        num_own = min(num_own, len(words))
        first = words[-num_own] if num_own else len(special)
        mask[words[0] : first] = True
    return mask
