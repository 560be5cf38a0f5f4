"""Intervals of means over seeds, Welch's test, and the effect that a table could have found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tecafn.evaluation.assessment import assess
from tecafn.evaluation.significance import bootstrap_intervals
from tecafn.evaluation.uncertainty import (
    Compared,
    mean_intervals,
    paired_variance,
    smallest_detectable_effect,
    welch_difference,
)


def test_the_interval_of_one_seed_is_that_of_its_record() -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(-3, 3, 40)
    videos = [f"v{k // 4}" for k in range(40)]
    predictions = labels + random.normal(size=40)
    alone = assess(predictions, labels, videos, convention="mosi", label_range=(-3, 3))
    found = mean_intervals(predictions[None], labels, videos, convention="mosi")
    assert {name: list(ends or ()) for name, ends in found.items()} == {
        name: ends or []
        for name, ends in alone["intervals"].items()  # type: ignore[attr-defined]
    }


def test_seeds_are_averaged_within_a_resampling_of_videos() -> None:
    random = np.random.default_rng(1)
    labels = random.uniform(-3, 3, 30)
    videos = [f"v{k // 3}" for k in range(30)]
    runs = labels + random.normal(size=(3, 30))
    errors = np.abs(runs - labels).mean(axis=0)
    expected = bootstrap_intervals(
        lambda weights: {"mae": weights @ errors / weights.sum(axis=1)}, 30, clusters=videos
    )["mae"]
    found = mean_intervals(runs, labels, videos, convention="mosi")["mae"]
    assert found == pytest.approx(expected)


def test_classes_have_intervals_too() -> None:
    probabilities = np.array([[0.9, 0.2, 0.7, 0.4], [0.8, 0.6, 0.9, 0.1]])
    found = mean_intervals(probabilities, [1, 0, 1, 0], list("abcd"), convention="classification")
    low, high = found["accuracy"] or (0.0, 0.0)
    assert 0.5 <= low < 0.875 < high <= 1.0


def test_welch_is_the_textbook_formula() -> None:
    a, b = [0.70, 0.74, 0.71], [0.69, 0.65, 0.68, 0.66, 0.67]
    test = welch_difference(a, b)
    assert test is not None
    s, t = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 5
    assert test.value == pytest.approx(np.mean(a) - np.mean(b))
    degrees = (s + t) ** 2 / (s**2 / 2 + t**2 / 4)
    half = (test.interval or (0, 0))[1] - test.value
    from scipy import stats

    assert half == pytest.approx(stats.t.ppf(0.975, degrees) * math.sqrt(s + t))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.7], [0.6, 0.8]),
        ([0.7, 0.7], [0.6, 0.6]),
        ([0.7, np.nextafter(0.7, 1)], [0.6, np.nextafter(0.6, 0)]),  # alike, but for rounding
    ],
)
def test_welch_says_nothing_of_one_seed_or_constant_ones(a: list[float], b: list[float]) -> None:
    assert welch_difference(a, b) is None


@pytest.mark.parametrize("last", [0.4, float(np.nextafter(0.4, 0))])
def test_seeds_of_one_method_that_agree_are_tested_in_silence(last: float) -> None:
    test = welch_difference([0.4, last], [0.4, 0.6])
    assert test is not None
    assert test.p_value == pytest.approx(0.5)


def test_the_variance_over_videos_is_that_of_many_draws_of_videos() -> None:
    random = np.random.default_rng(2)
    means = []
    estimates = []
    for _ in range(400):
        sizes = random.integers(2, 6, 25)
        videos = np.repeat(np.arange(25), sizes)
        own = random.normal(0, 0.3, 25)[videos] + random.normal(0, 0.5, len(videos))
        means.append(own.mean())
        estimates.append(paired_variance(own, np.zeros(len(own)), [str(v) for v in videos])[0])
    assert np.mean(estimates) == pytest.approx(np.var(means), rel=0.2)
    with pytest.raises(ValueError, match="two of them"):
        paired_variance([1.0, 2.0], [0.0, 0.0], ["a", "a"])


def test_eighty_of_a_hundred_tables_find_the_smallest_detectable_effect() -> None:
    """Simulated: seeds vary by .02, the paired difference over 30 videos by .01 as a mean."""
    from scipy import stats

    random = np.random.default_rng(3)
    deviation, error, num_seeds, num_videos = 0.02, 0.01, 4, 30
    # The effect for the true variances, from a row whose sample variance is just that.
    shape = np.array([-1.5, -0.5, 0.5, 1.5])
    values = shape * deviation / shape.std(ddof=1)
    effect = smallest_detectable_effect(
        [Compared(values.tolist(), values.tolist(), error**2, num_videos)]
    )
    assert effect is not None
    assert effect.seed_deviation == pytest.approx(deviation)
    found = 0
    for _ in range(2000):
        ours, theirs = random.normal(0, deviation, (2, num_seeds))
        over_videos = random.normal(0, error * math.sqrt(num_videos), num_videos)
        difference = effect.planned + ours.mean() - theirs.mean() + over_videos.mean()
        pooled = (ours.var(ddof=1) + theirs.var(ddof=1)) / 2
        a, b = pooled * 2 / num_seeds, over_videos.var(ddof=1) / num_videos
        degrees = (a + b) ** 2 / (a**2 / (2 * num_seeds - 2) + b**2 / (num_videos - 1))
        found += abs(difference) > stats.t.ppf(0.975, degrees) * math.sqrt(a + b)
    assert found / 2000 == pytest.approx(0.8, abs=0.04)


def test_more_comparisons_need_a_larger_effect_and_more_seeds_a_smaller_one() -> None:
    few = Compared([0.70, 0.72], [0.69, 0.71], 0.0001, 30)
    many = Compared([0.70, 0.72] * 3, [0.69, 0.71] * 3, 0.0001, 30)
    one, three, better = (smallest_detectable_effect(rows) for rows in ([few], [few] * 3, [many]))
    assert one is not None
    assert three is not None
    assert better is not None
    assert one.corrected == one.planned
    assert three.corrected > three.planned
    assert better.planned < one.planned


def test_one_seed_per_row_has_no_detectable_effect() -> None:
    assert smallest_detectable_effect([]) is None
    assert smallest_detectable_effect([Compared([0.7], [0.6], 0.0001, 30)]) is None


def test_one_video_has_no_detectable_effect() -> None:
    assert smallest_detectable_effect([Compared([0.7, 0.8], [0.6, 0.5], 0.0, 1)]) is None
