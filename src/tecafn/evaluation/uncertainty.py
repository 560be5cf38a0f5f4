"""What several seeds of two methods tell: intervals of a mean, Welch's test, detectable effects.

Two sources of noise are kept apart. **Samples** are the same for every method, so methods are
paired sample for sample, and whole videos are resampled. **Seeds** are not: seed 0 of one method
has nothing in common with seed 0 of another, so their deviations add up as those of independent
runs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from tecafn.core.conventions import convention_named
from tecafn.evaluation.metrics import (
    Floats,
    answered_classes,
    paired_classes,
    weighted_classification_metrics,
    weighted_sentiment_metrics,
)
from tecafn.evaluation.significance import (
    DEFAULT_RESAMPLING,
    Difference,
    Interval,
    Resampling,
    bootstrap_intervals,
    cluster_codes,
)

LEVEL = 0.05
POWER = 0.8


def mean_intervals(
    predictions: ArrayLike,
    labels: ArrayLike,
    videos: Sequence[str],
    *,
    convention: str,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, Interval | None]:
    """Intervals of the metrics' means over seeds, from resampling videos.

    Args:
        predictions: (S, N) of S seeds, as ``predictions/<split>.csv`` has them.
        labels: (N,).
        videos: N names; one resampling of videos is of all seeds alike.
        convention: of the data.
        resampling: level, number and seed.

    Returns:
        (low, high) for each metric; None as in ``bootstrap_intervals``.

    Example:
        >>> two_seeds = [[1.0, -1.0, 2.0, 0.5], [1.5, -1.0, 1.0, 0.5]]
        >>> low, high = mean_intervals(
        ...     two_seeds, [1.5, -1.0, 1.0, -0.5], ["a", "b", "c", "d"], convention="mosi")["mae"]
        >>> 0 <= low < 0.4375 < high <= 1
        True
    """
    runs = np.atleast_2d(np.asarray(predictions, np.float64))
    truth = np.asarray(labels, np.float64)
    is_classes = convention_named(convention).is_of_classes

    def statistic(weights: Floats) -> dict[str, Floats]:
        measured = [
            weighted_classification_metrics(
                *paired_classes(answered_classes(run), truth), weights, convention=convention
            )
            if is_classes
            else weighted_sentiment_metrics(run, truth, weights, convention=convention)
            for run in runs
        ]
        return {name: np.mean([one[name] for one in measured], axis=0) for name in measured[0]}

    return bootstrap_intervals(statistic, len(truth), clusters=videos, resampling=resampling)


def welch_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = 1 - LEVEL
) -> Difference | None:
    """Difference of two means over seeds with the interval and p-value of Welch's t-test.

    Args:
        first: one value per seed.
        second: one value per seed; the seeds of the two are not paired.
        level: coverage of the interval.

    Returns:
        None where one of them has fewer than two seeds, or neither varies by more than rounding.

    Example:
        >>> test = welch_difference([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
        >>> test.value, round(test.p_value, 3)
        (-2.0, 0.221)

    Source: Welch 1947, "The generalization of Student's problem when several different population
    variances are involved".
    """
    from scipy import stats

    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    # A share is a mean of many numbers: seeds that agree may differ in its last digit.
    rounding = 1e-12 * max(1.0, np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    if min(len(a), len(b)) < 2 or max(np.ptp(a), np.ptp(b)) <= rounding:
        return None
    with warnings.catch_warnings():
        # SciPy warns of values that are all alike; those of one method may well be.
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(level)
    return Difference(float(a.mean() - b.mean()), (float(low), float(high)), float(test.pvalue))


def paired_variance(
    first: ArrayLike, second: ArrayLike, videos: Sequence[str]
) -> tuple[float, int]:
    """Variance of the mean paired difference from one draw of videos to the next.

    Args:
        first: (N,) errors.
        second: (N,) on the same samples.
        videos: N names; samples of one video are not independent.

    Returns:
        The variance, and its degrees of freedom, one less than the number C of videos.

    Raises:
        ValueError: fewer than two videos.

    Example:
        >>> paired_variance([1.0, 3.0], [0.0, 0.0], ["a", "b"])
        (1.0, 1)

    Source: the linearised ratio estimator of cluster sampling, Cochran 1977, eq. 6.13: with the
    sums ``s_c`` and sizes ``n_c`` of clusters, ``C/(C-1) sum_c (s_c - n_c mean)^2 / N^2``.
    """
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    codes = cluster_codes(videos, len(differences))
    sizes = np.bincount(codes)
    num_videos = len(sizes)
    if num_videos < 2:
        raise ValueError("a variance over videos needs two of them")
    residuals = np.bincount(codes, weights=differences) - sizes * differences.mean()
    variance = num_videos / (num_videos - 1) * np.sum(residuals**2) / len(differences) ** 2
    return float(variance), num_videos - 1


@dataclass(frozen=True, kw_only=True)
class DetectableEffect:
    """The smallest true difference of two rows that a table finds with a given power.

    Args:
        planned: of one comparison that was planned in advance.
        corrected: of any of the table's comparisons, after correction for their number.
        num_comparisons: how many.
        seed_deviation: of one row over its seeds, pooled over the rows.
        video_error: standard error of a paired difference over videos, root mean square.
        level: of the two-sided test.
        power: the share of tables that find it.
    """

    planned: float
    corrected: float
    num_comparisons: int
    seed_deviation: float
    video_error: float
    level: float = LEVEL
    power: float = POWER

    def as_dict(self) -> dict[str, float]:
        """As a summary holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Compared:
    """One row's difference from another, as far as its noise goes.

    Args:
        values: the metric of each of the row's seeds.
        reference: of each seed of the row that it is compared with.
        video_variance: of the paired difference, from ``paired_variance``.
        num_videos: how many videos there are.
    """

    values: Sequence[float]
    reference: Sequence[float]
    video_variance: float
    num_videos: int


def smallest_detectable_effect(compared: Sequence[Compared]) -> DetectableEffect | None:
    """The smallest true difference that comparisons like these find in 80 of 100 tables.

    The variance of a difference is that over videos, paired, plus that over seeds, which are not
    paired: ``s^2 (1/S_row + 1/S_reference)`` with the deviation ``s`` over seeds pooled over rows.
    Degrees of freedom are Welch's and Satterthwaite's; the effect is ``(t_(1-level/2) + t_power)``
    standard errors, the corrected one with the level divided by the number of comparisons.

    Returns:
        None without a comparison, or where no row has two seeds or the samples are of one video:
        the deviation over seeds or over videos is then unknown, and so is the effect.

    Source: Bloom 1995, "Minimum detectable effects: a simple way to report the statistical power
    of experimental designs".

    Example:
        >>> one = Compared([0.70, 0.72, 0.74], [0.69, 0.71, 0.73], 0.0001, 30)
        >>> round(smallest_detectable_effect([one]).planned, 3)
        0.062
    """
    from scipy import stats

    if not compared:
        return None
    samples = [tuple(compared[0].reference), *(tuple(one.values) for one in compared)]
    seed_degrees = sum(len(values) - 1 for values in samples)
    video_degrees = min(one.num_videos for one in compared) - 1
    if not seed_degrees or not video_degrees:
        return None
    squares = sum((len(values) - 1) * np.var(values, ddof=1) for values in samples if values[1:])
    pooled = float(squares) / seed_degrees
    over_seeds = pooled * float(
        np.mean([1 / len(one.values) + 1 / len(one.reference) for one in compared])
    )
    over_videos = float(np.mean([one.video_variance for one in compared]))
    variance = over_seeds + over_videos
    if variance == 0:
        degrees = float(seed_degrees)
    else:
        degrees = variance**2 / (over_seeds**2 / seed_degrees + over_videos**2 / video_degrees)

    def effect(level: float) -> float:
        factor = stats.t.ppf(1 - level / 2, degrees) + stats.t.ppf(POWER, degrees)
        return float(factor * math.sqrt(variance))

    return DetectableEffect(
        planned=effect(LEVEL),
        corrected=effect(LEVEL / len(compared)),
        num_comparisons=len(compared),
        seed_deviation=math.sqrt(pooled),
        video_error=math.sqrt(over_videos),
    )
