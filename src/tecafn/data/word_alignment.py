"""Whether padded arrays of one length are word-aligned: as many rows alone do not show it.

Sequences of words are equally long in every modality. Those of lengths of their own, padded to one
size, are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from tecafn.core.modality import Modality
from tecafn.data.padding import Extent
from tecafn.data.shares import FEW

_EDGE: Final = 2  # rows at an edge that one modality may lack in all samples


@dataclass(frozen=True)
class WordAlignment:
    """Do rows correspond, and the sentence that says why, for the description."""

    aligned: bool
    decisions: tuple[str, ...] = ()


def word_alignment(splits: Sequence[Mapping[Modality, Extent]]) -> WordAlignment:
    """Are the modalities, all padded to one size, equally long in most samples?

    A word without a face or a sound is zero, and so may a mark of the sentence's beginning be in
    all samples: lengths that differ by the same row or two in most samples are equal. A sample
    that lacks a modality shows nothing of it. On which side the padding is, is not looked at.

    Args:
        splits: for each split the extents of its modalities. Vectors without zero rows, as a text
            encoder gives them for padding, too, should not be among them.

    Example:
        >>> import numpy as np
        >>> def extent(stops):
        ...     return Extent(np.zeros(8, int), np.array(stops), np.full(8, 9))
        >>> one, other = extent([3, 5, 8, 2, 4, 4, 6, 7]), extent([7, 2, 5, 2, 3, 8, 1, 7])
        >>> word_alignment([{Modality.AUDIO: one, Modality.VISION: one}])
        WordAlignment(aligned=True, decisions=('word-aligned: audio and vision are equally long in \
8 of 8 samples',))
        >>> word_alignment([{Modality.AUDIO: one, Modality.VISION: other}]).aligned
        False
    """
    seen = [
        found
        for one, other in combinations(Modality, 2)
        if (found := _compared(splits, one, other)) is not None
    ]
    if not seen:
        return WordAlignment(True)
    aligned, _, said = min(seen)
    if aligned:
        return WordAlignment(True, (f"word-aligned: {said}",))
    return WordAlignment(False, (f"not word-aligned, though all have as many rows: {said}",))


def show_words(lengths: Sequence[Sequence[int]]) -> bool:
    """Do the lengths of each modality's sequences, the same in all of them, show words?

    Samples that all have one number of frames do not: they were made so.

    Example:
        >>> show_words([[3, 5, 2, 4], [3, 5, 2, 4]]), show_words([[50] * 4, [50] * 4])
        (True, False)
    """
    if len(lengths) < 2 or any(list(one) != list(lengths[0]) for one in lengths[1:]):
        return False
    return len(lengths[0]) <= FEW or len(set(lengths[0]) - {0}) != 1


def _compared(
    splits: Sequence[Mapping[Modality, Extent]], one: Modality, other: Modality
) -> tuple[bool, float, str] | None:
    """Do two modalities correspond, in what share of samples are they equally long, and why.

    None where no sample has both.
    """
    differences: Counter[int] = Counter()
    is_padded = False
    for extents in splits:
        if one not in extents or other not in extents:
            continue
        first, second = extents[one], extents[other]
        both = first.used & second.used
        lengths, others = (extent.stop - extent.first for extent in (first, second))
        differences.update((lengths - others)[both].tolist())
        is_padded |= bool((both & ((lengths < first.size) | (others < second.size))).any())
    total = sum(differences.values())
    if not total:
        return None
    if total > FEW and not is_padded:
        return False, 0.0, f"{one} and {other} fill all of them in all {total} samples"
    difference, count = max(
        ((d, n) for d, n in differences.items() if abs(d) <= _EDGE),
        key=lambda item: item[1],
        default=(0, 0),
    )
    but_for = f" but for {abs(difference)}" if difference else ""
    aligned = 2 * count > total or total - count <= FEW
    said = f"{one} and {other} are equally long{but_for} in {count} of {total} samples"
    return aligned, count / total, said
