"""Intervals and tests against brute force, scipy and known coverage."""

from __future__ import annotations

import inspect
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from tecafn.evaluation import significance
from tecafn.evaluation.metrics import sentiment_metrics
from tecafn.evaluation.significance import (
    Resampling,
    bootstrap_intervals,
    classification_intervals,
    cluster_codes,
    holm_adjusted,
    paired_difference,
    paired_interval,
    paired_permutation_test,
    resampling_weights,
    row_statistic,
    sentiment_intervals,
)


def mean_of(values: np.ndarray) -> significance.Statistic:
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def brute_force_p(differences: np.ndarray) -> float:
    observed = abs(differences.sum())
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(total >= observed - 1e-9 for total in sums) / len(sums)


@pytest.mark.parametrize("size", range(1, 9))
def test_permutation_test_equals_brute_force_on_tiny_samples(size: int) -> None:
    generator = np.random.default_rng(size)
    a, b = generator.normal(size=(2, size))
    result = paired_permutation_test(a, b)
    assert result.exact
    assert result.p_value == pytest.approx(brute_force_p(a - b), abs=1e-15)
    assert result.difference == pytest.approx(float(np.mean(a - b)))


def test_permutation_test_counts_ties_in_spite_of_rounding() -> None:
    # In tenths 234 of the 256 sums are as far from zero; in float64 26 of them fall short.
    tenths = np.array([6, -8, -6, -5, -6, 6, 7, 2])
    assert brute_force_p(tenths) == 234 / 256
    assert paired_permutation_test(tenths / 10, np.zeros(8)).p_value == 234 / 256


def test_permutation_test_flips_whole_clusters() -> None:
    differences = np.array([0.5, -0.1, 0.4, 0.3, -0.2, 0.6])
    videos = ["a", "a", "b", "b", "c", "c"]
    result = paired_permutation_test(differences, np.zeros(6), clusters=videos)
    assert result.exact
    assert result.p_value == pytest.approx(brute_force_p(np.array([0.4, 0.7, 0.4])))


def test_random_permutations_agree_with_scipy() -> None:
    generator = np.random.default_rng(5)
    a = generator.normal(0.25, 1, 60)
    b = generator.normal(0, 1, 60)
    result = paired_permutation_test(a, b, num_permutations=20_000)
    theirs = permutation_test(
        (a, b),
        lambda x, y: np.mean(x - y),
        permutation_type="samples",
        vectorized=False,
        n_resamples=4000,
    )
    assert not result.exact
    assert result.p_value == pytest.approx(float(theirs.pvalue), abs=0.03)


def test_permutation_p_value_is_never_zero_and_one_for_equal_runs() -> None:
    far = paired_permutation_test(np.ones(40), np.zeros(40), num_permutations=999)
    assert far.p_value == 1 / 1000
    same = paired_permutation_test(np.ones(40), np.ones(40), num_permutations=999)
    assert same.p_value == 1.0


def test_permutation_blocks_do_not_change_the_exact_result(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(1).normal(size=7)
    whole = paired_permutation_test(differences, np.zeros(7))
    monkeypatch.setattr(significance, "_BLOCK", 30)
    assert paired_permutation_test(differences, np.zeros(7)) == whole


def test_results_depend_on_the_seed_alone() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    again = [paired_difference(a, b, resampling=Resampling(seed=3)) for _ in range(2)]
    assert again[0] == again[1]
    assert paired_difference(a, b, resampling=Resampling(seed=4)) != again[0]


def test_bootstrap_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(2).gamma(2.0, size=150)
    ours = bootstrap_intervals(mean_of(values), 150, resampling=Resampling(num_resamples=6000))[
        "mean"
    ]
    seed = "rng" if "rng" in inspect.signature(bootstrap).parameters else "random_state"
    options: Any = {seed: np.random.default_rng(0)}  # SciPy 1.15 has renamed it
    theirs = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=6000, **options
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        values = generator.normal(1.0, 2.0, 60)
        interval = bootstrap_intervals(
            mean_of(values), 60, resampling=Resampling(level=0.9, num_resamples=400, seed=trial)
        )["mean"]
        assert interval is not None
        covered += interval[0] <= 1.0 <= interval[1]
    assert 0.83 <= covered / 200 <= 0.95


@pytest.mark.parametrize(("num_videos", "share"), [(2, 0.51), (3, 0.74), (5, 0.82), (10, 0.91)])
def test_intervals_of_few_videos_cover_the_truth_as_rarely_as_the_page_on_measures_says(
    num_videos: int, share: float
) -> None:
    generator = np.random.default_rng(0)
    trials, covered = 1000, 0
    for trial in range(trials):
        values = generator.normal(size=num_videos)
        resampling = Resampling(num_resamples=1000, seed=trial)
        interval = bootstrap_intervals(mean_of(values), num_videos, resampling=resampling)["mean"]
        assert interval is not None
        covered += interval[0] <= 0.0 <= interval[1]
    assert covered / trials == pytest.approx(share, abs=0.04)


def test_resampling_clusters_widens_the_interval_of_dependent_samples() -> None:
    generator = np.random.default_rng(3)
    videos = np.repeat(np.arange(30), 10)
    values = generator.normal(size=30)[videos] + 0.1 * generator.normal(size=300)
    by_sample = bootstrap_intervals(mean_of(values), 300)["mean"]
    by_video = bootstrap_intervals(mean_of(values), 300, clusters=videos)["mean"]
    assert by_sample is not None
    assert by_video is not None
    assert by_video[1] - by_video[0] > 2 * (by_sample[1] - by_sample[0])


def test_every_resampling_draws_as_many_clusters_as_there_are() -> None:
    codes = cluster_codes(["b", "a", "b", "c"], 4)
    weights = np.concatenate(list(resampling_weights(codes, num_resamples=500, seed=0)))
    assert weights.shape == (500, 4)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert weights.mean() == pytest.approx(1.0, abs=0.05)


def test_resampling_in_blocks_gives_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_BLOCK", 50)
    weights = list(resampling_weights(np.arange(20), num_resamples=7, seed=0))
    assert [len(block) for block in weights] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(weights).sum(axis=1), 20)


def test_sentiment_intervals_equal_metrics_of_resampled_rows() -> None:
    generator = np.random.default_rng(9)
    labels = generator.integers(-3, 4, 40).astype(float)
    predictions = labels + generator.normal(size=40)
    resampling = Resampling(num_resamples=60)
    fast = sentiment_intervals(predictions, labels, resampling=resampling, convention="mosi")

    def metrics_of(rows: np.ndarray) -> dict[str, float]:
        return sentiment_metrics(predictions[rows], labels[rows], "mosi").defined()

    slow = bootstrap_intervals(row_statistic(metrics_of), 40, resampling=resampling)
    assert set(fast) == set(slow)
    for name, interval in slow.items():
        assert fast[name] == pytest.approx(interval), name


def test_interval_of_a_single_cluster_is_none() -> None:
    values = np.arange(5.0)
    assert bootstrap_intervals(mean_of(values), 5, clusters=["v"] * 5)["mean"] is None
    assert paired_interval(values, values + 1, clusters=["v"] * 5) is None


def test_interval_of_a_metric_undefined_everywhere_is_none() -> None:
    intervals = sentiment_intervals([0.5, 0.5, 0.5], [0.0, 0.0, 0.0], convention="mosi")
    assert intervals["corr"] is None
    assert intervals["acc2_pos"] is None
    assert intervals["mae"] == (0.5, 0.5)


def test_classification_intervals_hold_the_metric() -> None:
    generator = np.random.default_rng(4)
    labels = generator.integers(2, size=200)
    predicted = np.where(generator.random(200) < 0.8, labels, 1 - labels)
    interval = classification_intervals(predicted, labels)["accuracy"]
    assert interval is not None
    assert interval[0] < np.mean(predicted == labels) < interval[1]
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 200), rel=0.2)


def test_paired_difference_finds_a_small_common_gain() -> None:
    generator = np.random.default_rng(6)
    hard = np.abs(generator.normal(size=300))
    a = hard + 0.05 + 0.01 * generator.normal(size=300)
    result = paired_difference(a, hard)
    assert result.value == pytest.approx(0.05, abs=0.003)
    assert result.interval is not None
    assert 0.04 < result.interval[0] < result.interval[1] < 0.06
    assert result.p_value < 0.001
    assert result.as_dict()["interval"] == list(result.interval)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 1.0}, "level must be in"),
        ({"level": 0.0}, "level must be in"),
        ({"num_resamples": 0}, "num_resamples must be at least 1"),
    ],
)
def test_settings_out_of_range_are_errors(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resampling(**settings)  # type: ignore[arg-type]


def test_input_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        paired_permutation_test([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="a must be finite"):
        paired_interval([np.nan, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match=r"clusters must have shape \(2,\)"):
        paired_interval([0.0, 1.0], [0.0, 1.0], clusters=["a"])
    with pytest.raises(ValueError, match="num_permutations must be at least 1"):
        paired_permutation_test([0.0], [1.0], num_permutations=0)


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_its_step_down_rule_rejects(seed: int) -> None:
    p_values = np.random.default_rng(seed).uniform(0, 0.1, 8).round(2).tolist()
    adjusted = holm_adjusted(p_values)
    for level in (0.01, 0.05, 0.1, 0.3):
        # The rule as Holm states it: go up from the smallest, stop at the first that is too large.
        rejected = set()
        for place, number in enumerate(sorted(range(8), key=lambda k: p_values[k])):
            if p_values[number] > level / (8 - place):
                break
            rejected.add(number)
        assert {k for k in range(8) if adjusted[k] <= level + 1e-12} == rejected
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))


def test_holm_of_one_test_or_none_changes_nothing() -> None:
    assert holm_adjusted([]) == []
    assert holm_adjusted([0.03]) == [0.03]
    assert holm_adjusted([0.9, 0.8]) == [1.0, 1.0]
