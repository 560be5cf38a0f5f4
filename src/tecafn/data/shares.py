"""How many samples may lack something before it is an error: one rule for all that is read."""

from __future__ import annotations

from typing import Final

FEW: Final = 3
MOST_SHARE: Final = 0.05


def more_than_a_few(count: int, total: int, *, most_share: float = MOST_SHARE) -> bool:
    """Is ``count`` of ``total`` samples more than three, and more than ``most_share`` of them?

    Real files lack a sequence here and there (a segment without length, a face that nobody found);
    a share beyond that means that something was read wrongly.

    Example:
        >>> more_than_a_few(3, 4), more_than_a_few(4, 80), more_than_a_few(5, 80)
        (False, False, True)
    """
    return count > max(FEW, most_share * total)
