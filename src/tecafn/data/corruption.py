"""Frames that are lost, replaced by noise or of another sample, in place of a sample's own.

Each class is a ``FrameSource`` around another. What is drawn for a sample depends on the seed and
on its row in the split alone; a frame that is lost at one rate is lost at every higher one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tecafn.core.info import FeatureStatistics
from tecafn.data.text import FrameSource


def random_of(row: int, *, seed: int, stream: int) -> Generator:
    """The numbers that belong to a sample."""
    return np.random.default_rng([seed, stream, row])


def order_of_others(lengths: NDArray[np.int64], *, seed: int, stream: int) -> NDArray[np.int64]:
    """For each row another row, each taken once; a row without a frame keeps its place.

    Args:
        lengths: (N,) frames of each row.
        seed: of the draw.
        stream: which draw of this seed.

    Returns:
        (N,) int64. A single row that has frames keeps its own.

    Example:
        >>> order = order_of_others(np.array([3, 0, 4, 5]), seed=0, stream=0)
        >>> bool(order[1] == 1), sorted(order.tolist()), bool((order == np.arange(4)).sum() == 1)
        (True, [0, 1, 2, 3], True)
    """
    order = np.arange(len(lengths), dtype=np.int64)
    rows = np.random.default_rng([seed, stream]).permutation(np.flatnonzero(lengths))
    order[rows] = np.roll(rows, 1)  # one cycle through all of them
    return order


class OfOthers:
    """What other samples have, in the place of a sample's own.

    Args:
        source: of all samples.
        order: (N,) whose frames each row gets.
    """

    def __init__(self, source: FrameSource, order: NDArray[np.int64]) -> None:
        self._source = source
        self._order = order
        self.lengths = source.lengths[order]
        self.width = source.width

    def frames(self, row: int) -> NDArray[Any]:
        """Those of the row's other sample."""
        return self._source.frames(int(self._order[row]))


class Noise:
    """Gaussian noise with the training split's mean and deviation of each column.

    Args:
        source: says how many frames a sample has.
        statistics: of the columns.
        seed: of the draws.
        stream: which draw of this seed.
    """

    def __init__(
        self, source: FrameSource, statistics: FeatureStatistics, *, seed: int, stream: int
    ) -> None:
        self.lengths = source.lengths
        self.width = source.width
        self._mean, self._std = np.array(statistics.mean), np.array(statistics.std)
        self._seed, self._stream = seed, stream

    def frames(self, row: int) -> NDArray[Any]:
        """(L, D) float32."""
        shape = (int(self.lengths[row]), len(self._mean))
        drawn = random_of(row, seed=self._seed, stream=self._stream).standard_normal(shape)
        return (self._mean + self._std * drawn).astype(np.float32)


class LostFrames:
    """Frames lost at random, each where it stands; a sample that loses all lacks the modality.

    Args:
        source: of the frames.
        rate: the share that is lost, in [0, 1].
        seed: of the draws.
        stream: which draw of this seed.
    """

    def __init__(self, source: FrameSource, *, rate: float, seed: int, stream: int) -> None:
        self._source = source
        self._rate = rate
        self._seed, self._stream = seed, stream
        self.lengths = source.lengths
        self.width = source.width

    def frames(self, row: int) -> NDArray[Any]:
        """(L, D) float32; a lost frame is NaN, as one that an extractor could not measure."""
        frames = self._source.frames(row)
        lost = random_of(row, seed=self._seed, stream=self._stream).random(len(frames)) < self._rate
        if not lost.any():
            return frames
        kept = frames.copy()
        kept[lost] = np.nan
        return kept


class ReplacedVectors:
    """Text vectors with some replaced by those that words of other samples have.

    Args:
        source: of the vectors.
        pool: (P, D) vectors to draw from.
        rate: the share that is replaced, in [0, 1].
        seed: of the draws.
        stream: which draw of this seed.
    """

    def __init__(
        self,
        source: FrameSource,
        pool: NDArray[np.float32],
        *,
        rate: float,
        seed: int,
        stream: int,
    ) -> None:
        self._source = source
        self._pool = pool
        self._rate = rate
        self._seed, self._stream = seed, stream
        self.lengths = source.lengths
        self.width = source.width

    def frames(self, row: int) -> NDArray[Any]:
        """(L, D) float32."""
        frames = self._source.frames(row)
        random = random_of(row, seed=self._seed, stream=self._stream)
        is_due = random.random(len(frames)) < self._rate
        drawn = random.integers(len(self._pool), size=len(frames))
        if not is_due.any():
            return frames
        return np.where(is_due[:, None], self._pool[drawn], frames)


def pool_of(frames: Sequence[NDArray[np.float32]], *, size: int, seed: int) -> NDArray[np.float32]:
    """(P, D): at most ``size`` finite frames of these, drawn without replacement."""
    every = np.concatenate(frames)
    every = every[np.isfinite(every).all(axis=1)]
    rows = np.random.default_rng(seed).permutation(len(every))[:size]
    chosen: NDArray[np.float32] = every[np.sort(rows)]
    return chosen
