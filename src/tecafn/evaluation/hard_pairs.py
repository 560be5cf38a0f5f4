"""Hard-pair discrimination: the paper's claim, that subtle differences are told apart, as a number.

A hard pair is two samples of one video whose labels differ a little; a designed pair is two samples
that were made to differ in audio or vision alone and carry a common ``pair_id``. The share of pairs
that the predictions put in the right order says whether nuance is seen; half is chance.

How near is near goes with the labels' scale: 0.4 on CMU-MOSI's, from -3 to 3, and the same share of
the range, a fifteenth, on any other (``max_gap_of``). CH-SIMS has no hard pairs: a fifteenth of its
range is 0.133, and its labels come in steps of 0.2.

Source: TeCaFN, Huang et al. 2024, Sect. 4.9 and Table 8 (pairs of different clips of one video
whose labels differ by less than 0.4). The paper shows four pairs; taking all of them is ours, and
so is the share of another range.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tecafn.evaluation.metrics import Floats, Integers, finite_pair, finite_vector
from tecafn.evaluation.significance import (
    DEFAULT_RESAMPLING,
    Interval,
    Resampling,
    bootstrap_intervals,
    cluster_codes,
)

# Labels are means of a few annotators, one or two decimals: four decimals remove what binary
# fractions add (2.4 - 2.0 < 0.4 in float64) and nothing else.
LABEL_DECIMALS = 4


@dataclass(frozen=True)
class PairReport:
    """How well predictions order pairs.

    Args:
        num_pairs: pairs counted.
        num_videos: videos they come from.
        ordered: share ranked as the labels are, a tie counting one half; None without pairs.
        interval: of ``ordered``, from resampling videos; None with fewer than two videos.
        mae: mean absolute error of the pairs: each pair counts once, with the mean of its two
            samples' errors; None without pairs.
        max_gap: how far apart the labels of a hard pair may be, exclusive; None for pairs that
            were designed.
    """

    num_pairs: int
    num_videos: int
    ordered: float | None
    interval: Interval | None
    mae: float | None
    max_gap: float | None = None

    def as_dict(self) -> dict[str, object]:
        """As a record holds it."""
        gap = {} if self.max_gap is None else {"max_gap": self.max_gap}
        return {
            "num_pairs": self.num_pairs,
            "num_videos": self.num_videos,
            "ordered": self.ordered,
            "interval": None if self.interval is None else list(self.interval),
            "mae": self.mae,
            **gap,
        }


def max_gap_of(label_range: tuple[float, float]) -> float:
    """How far apart, exclusive, the labels of a hard pair may be: 0.4 for labels from -3 to 3.

    Example:
        >>> max_gap_of((-3.0, 3.0)), max_gap_of((-1.0, 1.0)), max_gap_of((1.0, 5.0))
        (0.4, 0.1333, 0.2667)
    """
    low, high = label_range
    return round((high - low) / 15, LABEL_DECIMALS)


def label_gap(labels: Floats, pairs: Integers) -> Floats:
    """(P,) |y_i - y_j| in float64, rounded to four decimals."""
    gap = np.abs(labels[pairs[:, 0]] - labels[pairs[:, 1]])
    return np.asarray(np.round(gap, LABEL_DECIMALS), dtype=np.float64)


def find_hard_pairs(labels: ArrayLike, videos: Sequence[str], *, max_gap: float) -> Integers:
    """All pairs within a video with 0 < d < ``max_gap``, d as ``label_gap`` has it.

    Args:
        labels: (N,) labels.
        videos: N video names.
        max_gap: exclusive upper bound of d; ``max_gap_of`` the data's label range.

    Returns:
        (P, 2) positions i < j, sorted.

    Raises:
        ValueError: a label is not finite, or the lengths differ.

    Example:
        >>> find_hard_pairs([1.0, 1.2, 1.4, 1.2], ["a", "a", "a", "b"], max_gap=0.4).tolist()
        [[0, 1], [1, 2]]
    """
    truth = finite_vector(labels, "labels")
    codes = cluster_codes(videos, len(truth))
    order = np.lexsort((truth, codes))
    found = [np.empty((0, 2), dtype=np.int64)]
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        # Sorted by label, a sample's partners are the run right of it. The bound is a little wide;
        # the rounded gap decides.
        values = truth[members]
        ends = np.searchsorted(values, values + max_gap + 10.0**-LABEL_DECIMALS)
        counts = ends - np.arange(1, len(members) + 1)
        left = np.repeat(np.arange(len(members)), counts)
        steps = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
        found.append(np.stack([members[left], members[left + 1 + steps]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    gap = label_gap(truth, pairs)
    pairs = pairs[(gap > 0) & (gap < max_gap)]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def find_designed_pairs(labels: ArrayLike, pair_ids: Sequence[str | None]) -> Integers:
    """The pairs of samples that share a ``pair_id`` and differ in label.

    Args:
        labels: (N,) labels.
        pair_ids: N names; None or "" marks a sample outside any pair. A sample whose partner is
            not among the N is left out.

    Returns:
        (P, 2) positions i < j, sorted.

    Raises:
        ValueError: a label is not finite, the lengths differ, or three samples share a name.

    Example:
        >>> find_designed_pairs([1.0, 0.0, 1.2], ["p", None, "p"]).tolist()
        [[0, 2]]
    """
    truth = finite_vector(labels, "labels")
    if len(pair_ids) != len(truth):
        raise ValueError(f"pair_ids must have length {len(truth)}, got {len(pair_ids)}")
    members: dict[str, list[int]] = {}
    for position, name in enumerate(pair_ids):
        if name:
            members.setdefault(name, []).append(position)
    for name, positions in members.items():
        if len(positions) > 2:
            raise ValueError(f"pair_id {name!r} must name two samples, got {len(positions)}")
    found = [positions for positions in members.values() if len(positions) == 2]
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    return pairs[label_gap(truth, pairs) > 0]


def order_scores(pairs: Integers, predictions: Floats, labels: Floats) -> Floats:
    """(P,) 1 where a pair is ranked as its labels are, 0.5 for equal predictions, else 0.

    Example:
        >>> pairs = np.array([[0, 1], [1, 2]])
        >>> order_scores(pairs, np.array([0.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])).tolist()
        [1.0, 0.5]
    """
    predicted = np.sign(predictions[pairs[:, 0]] - predictions[pairs[:, 1]])
    true = np.sign(labels[pairs[:, 0]] - labels[pairs[:, 1]])
    return (1 + predicted * true) / 2


def score_pairs(
    pairs: Integers,
    predictions: ArrayLike,
    labels: ArrayLike,
    videos: Sequence[str],
    *,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> PairReport:
    """Share ranked correctly and MAE of given pairs (P, 2), each of two samples of one video.

    Args:
        pairs: (P, 2) positions.
        predictions: (N,) scores, or (S, N) of S seeds: a pair then counts with its mean over them.
        labels: (N,) labels.
        videos: N video names.
        resampling: of the videos that have pairs.

    Raises:
        ValueError: a value is not finite, or the lengths differ.

    Example:
        >>> pair, seeds = np.array([[0, 1]]), [[0.1, 0.3], [0.3, 0.1]]
        >>> score_pairs(pair, seeds, [1.0, 1.2], ["a", "a"]).ordered
        0.5
    """
    runs = np.atleast_2d(np.asarray(predictions, dtype=np.float64))
    truth = finite_pair(runs[0], labels)[1]
    codes = cluster_codes(videos, len(truth))
    if not len(pairs):
        return PairReport(0, 0, None, None, None)
    scores = [finite_pair(run, truth)[0] for run in runs]
    ordered = np.mean([order_scores(pairs, run, truth) for run in scores], axis=0)
    errors = np.mean([np.abs(run - truth) for run in scores], axis=0)[pairs].mean(axis=1)
    pair_videos = codes[pairs[:, 0]]
    interval = bootstrap_intervals(
        lambda weights: {"ordered": weights @ ordered / weights.sum(axis=1)},
        len(pairs),
        clusters=pair_videos,
        resampling=resampling,
    )["ordered"]
    return PairReport(
        num_pairs=len(pairs),
        num_videos=len(np.unique(pair_videos)),
        ordered=float(ordered.mean()),
        interval=interval,
        mae=float(errors.mean()),
    )


def hard_pairs(
    predictions: ArrayLike,
    labels: ArrayLike,
    videos: Sequence[str],
    *,
    max_gap: float,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> PairReport:
    """Hard-pair discrimination of a run on one split.

    Args:
        predictions: (N,) scores.
        labels: (N,) labels.
        videos: N video names.
        max_gap: pairs with 0 < d < ``max_gap`` count; ``max_gap_of`` the data's label range.
        resampling: of the videos that have pairs.

    Raises:
        ValueError: a value is not finite, or the lengths differ.

    Example:
        >>> report = hard_pairs([0.1, 0.3, 0.3], [1.0, 1.2, 1.4], ["a", "a", "a"], max_gap=0.4)
        >>> report.num_pairs, report.ordered, report.interval
        (2, 0.75, None)
    """
    pairs = find_hard_pairs(labels, videos, max_gap=max_gap)
    report = score_pairs(pairs, predictions, labels, videos, resampling=resampling)
    return dataclasses.replace(report, max_gap=max_gap)


def designed_pairs(
    predictions: ArrayLike,
    labels: ArrayLike,
    pair_ids: Sequence[str | None],
    videos: Sequence[str],
    *,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> PairReport:
    """The same for the pairs that share a ``pair_id``; the other arguments as ``hard_pairs``.

    Example:
        >>> designed_pairs([0.1, 0.3], [1.0, 1.2], ["p", "p"], ["a", "a"]).ordered
        1.0
    """
    pairs = find_designed_pairs(labels, pair_ids)
    return score_pairs(pairs, predictions, labels, videos, resampling=resampling)
