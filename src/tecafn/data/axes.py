"""Arrays whose frames lie along the wrong axis: (samples, columns, frames), as librosa gives them.

Such an array has any shape that a right one has. Its padding gives it away: zeros that fill up
short samples then stand in the last columns, in as many as each sample lacks frames.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.shares import FEW, more_than_a_few

_LOOKED_AT: Final = 64
_DIFFERENT: Final = 4  # numbers of empty columns: a sparse feature does not vary so
_MOST: Final = 0.5


def is_transposed(arrays: Sequence[NDArray[Any]] | NDArray[Any]) -> bool:
    """Have (A, B) arrays of one shape, a sample each, their padding in columns in place of rows?

    Example:
        >>> padded = [np.where(np.arange(9) < length, 1.0, 0.0)[:, None] * np.ones(5)
        ...           for length in range(2, 9)]
        >>> is_transposed(padded), is_transposed([array.T for array in padded])
        (False, True)
    """
    empty: dict[bool, list[int]] = {True: [], False: []}  # in front?
    num_at_edge = num_zero = num_numbers = 0
    for array in arrays[:: 1 + len(arrays) // _LOOKED_AT]:
        with np.errstate(invalid="ignore"):  # damaged files may hold NaN that signals
            filled = array != 0
        rows, columns = filled.any(axis=1), filled.any(axis=0)
        used = np.flatnonzero(columns)
        if not len(used):
            continue
        num_at_edge += not (rows[0] and rows[-1])
        empty[True].append(int(used[0]))
        empty[False].append(len(columns) - 1 - int(used[-1]))
        inner = filled[:, used[0] : used[-1] + 1]
        num_numbers += inner.size
        num_zero += inner.size - int(inner.sum())
    num_looked = len(empty[True])
    if num_looked <= FEW or more_than_a_few(num_at_edge, num_looked):
        return False
    counts = max(empty.values(), key=sum)
    num_padded = sum(count > 0 for count in counts)
    return (
        num_padded > _MOST * num_looked
        and len(set(counts)) >= _DIFFERENT
        and num_zero < _MOST * num_numbers
    )


def refuse_transposed(
    arrays: Sequence[NDArray[Any]] | NDArray[Any],
    modality: Modality,
    *,
    what: str,
    padding: Collection[Modality],
) -> None:
    """Refuse padded arrays with columns where frames should be, unless the padding was told.

    Args:
        arrays: (A, B) of each sample, or all of them as (N, A, B).
        modality: whose frames they are.
        what: names the file or split.
        padding: modalities whose padding the user has named: theirs are taken as they are.

    Raises:
        UserError: they are transposed.
    """
    if modality in padding or not len(arrays):
        return
    shapes = {arrays.shape[1:]} if isinstance(arrays, np.ndarray) else {a.shape for a in arrays}
    rows, columns = {shape[0] for shape in shapes}, {shape[1] for shape in shapes}
    if len(rows) > 1 or not min(rows):
        return
    if len(columns) > FEW:
        raise UserError(
            f"{what}: {modality} must have a row for each frame and one number of columns, got "
            f"{min(rows)} rows in all samples and {min(columns)} to {max(columns)} columns: "
            "transpose each sample"
        )
    if len(columns) == 1 and is_transposed(arrays):
        raise UserError(
            f"{what}: {modality} must have a row for each frame, got {min(rows)} rows of "
            f"{min(columns)} columns, and zeros that fill up short samples in the columns: "
            "transpose each sample, or, if it is right as it is, name its padding, --padding "
            f"{modality}=none"
        )
