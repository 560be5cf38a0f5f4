"""How sure a number is: bootstrap intervals, paired differences, a permutation test.

Utterances of one video are not independent, so everything here resamples either samples or
clusters (videos). A resampling is a row of weights, how often each sample was drawn, and a
statistic maps weights (R, N) to R values; ``metrics.weighted_sentiment_metrics`` is one.
All results depend on the data and the seed alone.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13 and 15.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tecafn.evaluation.metrics import (
    Floats,
    Integers,
    finite_pair,
    finite_vector,
    paired_classes,
    weighted_classification_metrics,
    weighted_sentiment_metrics,
)

Interval = tuple[float, float]
Statistic = Callable[[Floats], Mapping[str, Floats]]
"""Weights (R, N) to named values (R,); NaN where a resampling leaves one undefined."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How bootstrap intervals are made.

    Args:
        level: coverage, in (0, 1).
        num_resamples: how many resamplings.
        seed: fixes the draws.

    Raises:
        ValueError: ``level`` or ``num_resamples`` out of range.
    """

    level: float = 0.95
    num_resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level must be in (0, 1), got {self.level}")
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1, got {self.num_resamples}")


DEFAULT_RESAMPLING = Resampling()

# Weights are made in blocks of at most this many numbers (32 MB), however large the data.
_BLOCK = 4_000_000


def cluster_codes(clusters: ArrayLike | None, num_samples: int) -> Integers:
    """(N,) int64 number of each sample's cluster; every sample its own when ``clusters`` is None.

    Raises:
        ValueError: ``clusters`` is not one name per sample.

    Example:
        >>> cluster_codes(["v1", "v0", "v1"], 3).tolist()
        [1, 0, 1]
    """
    if clusters is None:
        return np.arange(num_samples, dtype=np.int64)
    names = np.asarray(clusters)
    if names.shape != (num_samples,):
        raise ValueError(f"clusters must have shape ({num_samples},), got {names.shape}")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def resampling_weights(codes: Integers, *, num_resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks (r, N) of weights: as many clusters as there are, drawn with replacement.

    Args:
        codes: (N,) cluster number of each sample, as ``cluster_codes`` gives.
        num_resamples: rows over all blocks.
        seed: fixes the draws.
    """
    generator = np.random.default_rng(seed)
    num_clusters = int(codes.max()) + 1
    rows_per_block = max(1, _BLOCK // len(codes))
    for start in range(0, num_resamples, rows_per_block):
        rows = min(rows_per_block, num_resamples - start)
        drawn = generator.integers(num_clusters, size=(rows, num_clusters))
        drawn += np.arange(rows)[:, None] * num_clusters
        counts = np.bincount(drawn.ravel(), minlength=rows * num_clusters)
        yield counts.reshape(rows, num_clusters)[:, codes].astype(np.float64)


def _percentiles(values: Floats, level: float) -> Interval | None:
    """Percentile interval of the defined values; None when half of them or fewer are defined."""
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_intervals(
    statistic: Statistic,
    num_samples: int,
    *,
    clusters: ArrayLike | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, Interval | None]:
    """Percentile bootstrap intervals of every value of a statistic.

    Args:
        statistic: weights (R, N) to named values (R,).
        num_samples: N.
        clusters: (N,) names; whole clusters are resampled. None resamples samples.
        resampling: level, number and seed.

    Returns:
        (low, high) for each name. None where an interval would say nothing: a single cluster, or
        a statistic undefined in half of the resamplings or more.

    Raises:
        ValueError: ``clusters`` of another length.

    Example:
        >>> errors = np.arange(100.0)
        >>> mean = lambda weights: {"mean": weights @ errors / weights.sum(axis=1)}
        >>> low, high = bootstrap_intervals(mean, 100)["mean"]
        >>> 42 < low < 45 and 54 < high < 57
        True
    """
    codes = cluster_codes(clusters, num_samples)
    blocks = [
        statistic(weights)
        for weights in resampling_weights(
            codes, num_resamples=resampling.num_resamples, seed=resampling.seed
        )
    ]
    several = int(codes.max()) > 0
    return {
        name: _percentiles(np.concatenate([block[name] for block in blocks]), resampling.level)
        if several
        else None
        for name in blocks[0]
    }


def row_statistic(function: Callable[[Integers], Mapping[str, float]]) -> Statistic:
    """A statistic of any function of resampled rows (K,) int64; one call a resampling, so slow.

    Example:
        >>> values = np.array([1.0, 5.0, 9.0])
        >>> statistic = row_statistic(lambda rows: {"median": float(np.median(values[rows]))})
        >>> statistic(np.array([[2.0, 0.0, 1.0]]))["median"]
        array([1.])
    """

    def statistic(weights: Floats) -> dict[str, Floats]:
        samples = np.arange(weights.shape[1])
        results = [function(np.repeat(samples, row.astype(np.int64))) for row in weights]
        return {
            name: np.array([result[name] for result in results], dtype=np.float64)
            for name in results[0]
        }

    return statistic


def sentiment_intervals(
    predictions: ArrayLike,
    labels: ArrayLike,
    *,
    convention: str,
    clusters: ArrayLike | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, Interval | None]:
    """Bootstrap intervals of all metrics of ``sentiment_metrics``; arguments as there and above.

    Example:
        >>> intervals = sentiment_intervals(
        ...     [1.0, -1.0, 2.0, 0.5], [1.5, -1.0, 1.0, -0.5], convention="mosi")
        >>> low, high = intervals["mae"]
        >>> 0.0 <= low < 0.625 < high <= 1.0
        True
    """
    scores, truth = finite_pair(predictions, labels)
    return bootstrap_intervals(
        lambda weights: weighted_sentiment_metrics(scores, truth, weights, convention=convention),
        len(scores),
        clusters=clusters,
        resampling=resampling,
    )


def classification_intervals(
    logits_or_labels: ArrayLike,
    labels: ArrayLike,
    *,
    convention: str = "classification",
    clusters: ArrayLike | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, Interval | None]:
    """Bootstrap intervals of the convention's measures, ``accuracy`` and ``f1`` of two classes.

    Example:
        >>> classification_intervals([1, 1, 0, 0], [1, 1, 0, 0])["accuracy"]
        (1.0, 1.0)
    """
    predicted, truth = paired_classes(logits_or_labels, labels)
    return bootstrap_intervals(
        lambda weights: weighted_classification_metrics(
            predicted, truth, weights, convention=convention
        ),
        len(truth),
        clusters=clusters,
        resampling=resampling,
    )


@dataclass(frozen=True)
class Permutation:
    """Outcome of a paired permutation test.

    Args:
        difference: mean of ``a - b``.
        p_value: two-sided.
        exact: every sign flip was tried, rather than a random choice of them.
    """

    difference: float
    p_value: float
    exact: bool


def paired_permutation_test(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> Permutation:
    """Are two runs' errors on the same samples exchangeable? Two-sided, by sign flips.

    Under the null hypothesis a sample's two errors could as well have come the other way round,
    which flips the sign of their difference. With ``clusters`` the flips of a video go together.

    Args:
        a: (N,) per-sample errors of one run.
        b: (N,) of the other, in the same order.
        clusters: (N,) names, or None.
        num_permutations: random flips; when there are no more than this many different ones, all of
            them are tried instead and the p-value is exact.
        seed: fixes the random flips.

    Returns:
        The mean difference and the share of flips at least as far from zero. Random flips count
        the observed one too, so the p-value is never 0.

    Raises:
        ValueError: shapes differ, a value is not finite, ``num_permutations`` < 1.

    Example:
        >>> paired_permutation_test([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
        Permutation(difference=2.0, p_value=0.25, exact=True)

    Source: Fisher 1935; Phipson and Smyth 2010 for counting the observed one.
    """
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be at least 1, got {num_permutations}")
    differences = _paired_differences(a, b)
    sums = np.bincount(cluster_codes(clusters, len(differences)), weights=differences)
    observed = sums.sum()
    # Sums in another order differ by rounding; a tie with the observed one must count.
    tolerance = 1e-12 * np.abs(sums).sum()
    threshold = abs(observed) - tolerance
    exact = len(sums) < 63 and 2 ** len(sums) <= num_permutations
    extreme = 0
    total = 2 ** len(sums) if exact else num_permutations
    for signs in _sign_blocks(len(sums), total, exact=exact, seed=seed):
        extreme += int(np.count_nonzero(np.abs(signs @ sums) >= threshold))
    p_value = extreme / total if exact else (extreme + 1) / (total + 1)
    return Permutation(float(observed / len(differences)), p_value, exact)


def _sign_blocks(width: int, total: int, *, exact: bool, seed: int) -> Iterator[Floats]:
    """Blocks (r, width) of +-1: all of them when ``exact``, else random ones."""
    generator = np.random.default_rng(seed)
    rows_per_block = max(1, _BLOCK // width)
    for start in range(0, total, rows_per_block):
        rows = min(rows_per_block, total - start)
        if exact:
            numbers = np.arange(start, start + rows)[:, None]
            bits = (numbers >> np.arange(width)) & 1
        else:
            bits = generator.integers(2, size=(rows, width))
        yield 1.0 - 2.0 * bits.astype(np.float64)


def paired_interval(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Interval | None:
    """Percentile bootstrap interval of the mean of ``a - b`` over the same samples.

    Args:
        a: (N,) per-sample errors of one run.
        b: (N,) of the other, in the same order.
        clusters: (N,) names; whole clusters are resampled.
        resampling: level, number and seed.

    Returns:
        (low, high), or None with a single cluster.

    Raises:
        ValueError: shapes differ or a value is not finite.

    Example:
        >>> paired_interval([1.0, 1.0, 1.0], [0.5, 0.5, 0.5])
        (0.5, 0.5)
    """
    differences = _paired_differences(a, b)
    return bootstrap_intervals(
        lambda weights: {"difference": weights @ differences / weights.sum(axis=1)},
        len(differences),
        clusters=clusters,
        resampling=resampling,
    )["difference"]


@dataclass(frozen=True)
class Difference:
    """A paired difference of two runs, with its interval and its two-sided p-value."""

    value: float
    interval: Interval | None
    p_value: float

    def as_dict(self) -> dict[str, object]:
        """As a record holds it."""
        interval = None if self.interval is None else list(self.interval)
        return {"value": self.value, "interval": interval, "p_value": self.p_value}


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
    num_permutations: int = 10_000,
) -> Difference:
    """Mean of ``a - b`` with its ``paired_interval`` and ``paired_permutation_test``.

    With absolute errors this is the difference of two MAEs, with 0/1 hits of two accuracies.

    Example:
        >>> paired_difference([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).p_value
        0.25
    """
    test = paired_permutation_test(
        a, b, clusters=clusters, num_permutations=num_permutations, seed=resampling.seed
    )
    interval = paired_interval(a, b, clusters=clusters, resampling=resampling)
    return Difference(test.difference, interval, test.p_value)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected so that one wrong rejection is as rare as of one test.

    The smallest is multiplied by their number, the next by one less, and so on, at most 1 and never
    below a smaller one's.

    Args:
        p_values: of tests that would be reported together.

    Example:
        >>> holm_adjusted([0.01, 0.5, 0.04])
        [0.03, 0.5, 0.08]

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        largest = max(largest, min(1.0, p_values[number] * (len(p_values) - place)))
        adjusted[number] = largest
    return adjusted


def _paired_differences(a: ArrayLike, b: ArrayLike) -> Floats:
    first, second = finite_vector(a, "a"), finite_vector(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"a and b must have one shape, got {first.shape} and {second.shape}")
    return first - second
