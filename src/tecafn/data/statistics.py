"""Mean and deviation of every column over real frames, in one pass over the memory maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.info import FeatureStatistics
from tecafn.core.modality import Modality
from tecafn.data.store import SplitView

_FRAMES_A_CHUNK = 16384


def column_statistics(
    view: SplitView, modality: Modality, *, rows: Sequence[int] | NDArray[np.int64] | None = None
) -> FeatureStatistics:
    """Mean and (population) standard deviation of each of the D columns, computed in float64.

    Frames with NaN or infinity in any column do not count. A constant column has deviation 0:
    whoever divides by it must floor it.

    Args:
        view: the split, normally the training one.
        modality: a stored one.
        rows: only these rows of the view; None = all.

    Raises:
        UserError: the modality is not stored, or no row has a finite frame of it.

    Source: the pairwise update of Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise
    algorithm for computing sample variances".
    """
    if modality not in view.widths:
        raise UserError(
            f"split {view.name!r} must hold {modality} frames for their statistics, "
            f"it holds {', '.join(view.widths) or 'none'}"
        )
    chosen = range(len(view)) if rows is None else [int(row) for row in rows]
    count = 0
    mean = np.zeros(view.widths[modality])
    squares = np.zeros_like(mean)  # sum of squared differences from the mean
    pending: list[NDArray[np.float32]] = []
    num_pending = 0
    for position, row in enumerate(chosen, start=1):
        frames = view.sequence(row, modality)
        pending.append(frames)
        num_pending += len(frames)
        if num_pending < _FRAMES_A_CHUNK and position < len(chosen):
            continue
        chunk = np.concatenate(pending).astype(np.float64)
        pending, num_pending = [], 0
        chunk = chunk[np.isfinite(chunk).all(axis=1)]
        if not len(chunk):
            continue
        chunk_mean = chunk.mean(axis=0)
        delta = chunk_mean - mean
        total = count + len(chunk)
        squares += ((chunk - chunk_mean) ** 2).sum(axis=0)
        squares += delta**2 * (count * len(chunk) / total)
        mean += delta * (len(chunk) / total)
        count = total
    if not count:
        raise UserError(
            f"split {view.name!r} must hold a finite {modality} frame, "
            f"none of {len(chosen)} rows has one"
        )
    return FeatureStatistics(mean=mean.tolist(), std=np.sqrt(squares / count).tolist())
