"""Metrics against scikit-learn, scipy and slow loops; every convention's edges are pinned."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

from tecafn.core.conventions import CONVENTIONS, METRIC_INFO
from tecafn.evaluation.metrics import (
    classification_metrics,
    format_metric,
    sentiment_metrics,
    seven_classes,
    weighted_classification_metrics,
    weighted_sentiment_metrics,
)

MMSA_KEYS = {
    "mae",
    "corr",
    "acc7",
    "acc5",
    "acc3",
    "acc2_nonneg",
    "f1_nonneg",
    "acc2_pos",
    "f1_pos",
}

Floats = Sequence[float] | np.ndarray


def random_scores(seed: int, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Scores beyond +-3 and labels on annotators' grid, zeros and halves among both."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(-15, 16, size) / 5
    predictions = labels + generator.normal(0, 1.2, size)
    predictions[:6] = [0.0, 0.5, -0.5, 1.5, -2.5, 7.0]
    labels[6:9] = 0.0
    return predictions, labels


def round_half_to_even(value: float) -> int:
    """Written out, so that it is not numpy's rounding that is compared with itself."""
    floor = math.floor(value)
    if value - floor != 0.5:
        return math.floor(value + 0.5)
    return floor if floor % 2 == 0 else floor + 1


def clipped_class(value: float, limit: int) -> int:
    return round_half_to_even(min(max(value, -limit), limit))


def slow_accuracy(predictions: Floats, labels: Floats, limit: int) -> float:
    hits = [
        clipped_class(p, limit) == clipped_class(y, limit)
        for p, y in zip(predictions, labels, strict=True)
    ]
    return sum(hits) / len(hits)


def slow_reference(
    predictions: np.ndarray, labels: np.ndarray, convention: str
) -> dict[str, float]:
    """The conventions of the module's text in loops, scikit-learn and scipy."""
    if convention == "mag":
        predictions, labels = predictions[labels != 0], labels[labels != 0]
    above = (lambda x: x > 0) if convention == "mult" else (lambda x: x >= 0)
    swaps = convention in ("mult", "misa")

    def f1(truth: np.ndarray, predicted: np.ndarray) -> float:
        first, second = (predicted, truth) if swaps else (truth, predicted)
        return float(f1_score(first, second, average="weighted"))

    kept = labels != 0
    p, y = predictions[kept], labels[kept]
    return {
        "mae": mean_absolute_error(labels, predictions),
        "corr": pearsonr(predictions, labels).statistic,
        "acc7": slow_accuracy(predictions, labels, 3),
        "acc5": slow_accuracy(predictions, labels, 2),
        "acc3": slow_accuracy(predictions, labels, 1),
        "acc2_nonneg": accuracy_score(above(labels), above(predictions)),
        "f1_nonneg": f1(above(labels), above(predictions)),
        "acc2_pos": accuracy_score(y > 0, p > 0),
        "f1_pos": f1(y > 0, p > 0),
    }


@pytest.mark.parametrize("convention", ["mosi", "mult", "misa", "mag"])
@pytest.mark.parametrize("seed", range(5))
def test_every_metric_equals_scikit_learn_and_slow_loops(convention: str, seed: int) -> None:
    predictions, labels = random_scores(seed)
    metrics = sentiment_metrics(predictions, labels, convention)
    assert dict(metrics) == pytest.approx(
        slow_reference(predictions, labels, convention), rel=1e-12, abs=1e-12
    )
    assert set(metrics) == MMSA_KEYS
    assert metrics.undefined == {}


def test_version_0_1_called_the_convention_of_mosi_mmsa() -> None:
    predictions, labels = random_scores(3)
    assert dict(sentiment_metrics(predictions, labels, "mosi")) == dict(
        sentiment_metrics(predictions, labels, "mmsa")
    )


def test_conventions_differ_where_they_should() -> None:
    predictions, labels = random_scores(0)
    mmsa, mult, misa, mag = (
        sentiment_metrics(predictions, labels, name) for name in ("mosi", "mult", "misa", "mag")
    )
    assert mult["acc2_nonneg"] != mmsa["acc2_nonneg"]
    assert misa["f1_pos"] != mmsa["f1_pos"]
    assert misa["acc2_pos"] == mmsa["acc2_pos"]
    assert mag["mae"] != mmsa["mae"]
    assert mag["acc2_pos"] == mmsa["acc2_pos"]


def test_label_zero_is_nonnegative_and_dropped_from_positive() -> None:
    metrics = sentiment_metrics([0.3, -0.3, 2.0], [0.0, 0.0, 2.0], "mosi")
    assert metrics["acc2_nonneg"] == pytest.approx(2 / 3)
    assert metrics["acc2_pos"] == 1.0


def test_prediction_zero_is_nonnegative_but_not_positive() -> None:
    metrics = sentiment_metrics([0.0, 0.0], [1.0, -1.0], "mosi")
    assert metrics["acc2_nonneg"] == 0.5
    assert metrics["acc2_pos"] == 0.5
    positive_only = sentiment_metrics([0.0, 1.0], [1.0, 1.0], "mosi")
    assert positive_only["acc2_nonneg"] == 1.0
    assert positive_only["acc2_pos"] == 0.5


def test_negative_zero_counts_as_zero() -> None:
    metrics = sentiment_metrics([-0.0, 1.0], [1.0, -0.0], "mosi")
    assert metrics["acc2_nonneg"] == 1.0
    assert metrics["acc2_pos"] == 0.0


def test_mult_puts_label_zero_with_the_negatives() -> None:
    metrics = sentiment_metrics([-0.5, 0.5], [0.0, 0.0], "mult")
    assert metrics["acc2_nonneg"] == 0.5


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 0),
        (-0.5, 0),
        (1.5, 2),
        (-1.5, -2),
        (2.5, 2),
        (-2.5, -2),
        (2.51, 3),
        (3.0, 3),
        (8.0, 3),
        (-3.6, -3),
    ],
)
def test_halves_round_to_even_and_scores_beyond_the_range_are_clipped(
    value: float, expected: int
) -> None:
    assert seven_classes([value]).tolist() == [expected]
    assert sentiment_metrics([value], [float(expected)], "mosi")["acc7"] == 1.0


def test_acc5_clips_the_label_too() -> None:
    assert sentiment_metrics([2.0, 2.4], [3.0, 2.6], "mosi")["acc5"] == 1.0
    assert sentiment_metrics([2.0, 2.4], [3.0, 2.6], "mosi")["acc7"] == 0.0


def test_mae_is_of_raw_predictions() -> None:
    assert sentiment_metrics([5.0], [3.0], "mosi")["mae"] == 2.0


@pytest.mark.parametrize("value", [0.1, 0.0, -7.3, 1e-30])
def test_constant_predictions_leave_correlation_undefined_with_a_reason(value: float) -> None:
    metrics = sentiment_metrics([value] * 7, [1.0, 2.0, 0.5, 0.1, -1.0, 2.0, 1.4], "mosi")
    assert metrics["corr"] is None
    assert metrics.undefined == {"corr": "all predictions are equal"}
    assert "corr" not in metrics.defined()


def test_constant_labels_leave_correlation_undefined_with_a_reason() -> None:
    metrics = sentiment_metrics([0.1, 0.2], [1.0, 1.0], "mosi")
    assert metrics.undefined == {"corr": "all labels are equal"}


def test_one_sample_has_every_metric_but_correlation() -> None:
    metrics = sentiment_metrics([1.2], [1.0], "mosi")
    assert metrics.undefined == {"corr": "one sample has no correlation"}
    assert metrics["mae"] == pytest.approx(0.2)
    assert metrics["acc7"] == metrics["acc2_pos"] == metrics["f1_nonneg"] == 1.0


def test_nothing_left_after_the_drop_is_undefined_with_a_reason() -> None:
    metrics = sentiment_metrics([0.1, -0.2], [0.0, 0.0], "mosi")
    assert metrics["acc2_pos"] is None
    assert metrics["f1_pos"] is None
    assert metrics.undefined["acc2_pos"] == "every label is 0, nothing is left"
    assert metrics["acc2_nonneg"] == 0.5


def test_mag_with_only_zero_labels_defines_nothing() -> None:
    metrics = sentiment_metrics([0.1, -0.2], [0.0, 0.0], "mag")
    assert set(metrics.undefined) == MMSA_KEYS
    assert metrics.defined() == {}


def test_mag_with_one_label_left_names_why_correlation_is_undefined() -> None:
    metrics = sentiment_metrics([0.1, -0.2], [0.0, 1.0], "mag")
    assert metrics.undefined == {"corr": "one sample has no correlation"}


def test_metrics_are_json_without_nan() -> None:
    metrics = sentiment_metrics([1.0, 1.0], [1.0, 2.0], "mosi")
    text = json.dumps(dict(metrics), allow_nan=False)
    assert json.loads(text)["corr"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_prediction_that_is_not_finite_is_an_error_naming_its_position(bad: float) -> None:
    with pytest.raises(ValueError, match=r"predictions must be finite, got .* at position 1"):
        sentiment_metrics([0.0, bad], [1.0, 2.0], "mosi")


def test_nan_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="labels must be finite"):
        sentiment_metrics([0.0, 1.0], [1.0, math.nan], "mosi")


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0.0], [1.0, 2.0], r"one shape, got \(1,\) and \(2,\)"),
        ([[0.0], [1.0]], [1.0, 2.0], r"predictions must have shape \(N,\), got \(2, 1\)"),
        ([], [], "at least one sample"),
    ],
)
def test_shapes_that_do_not_fit_are_errors(
    predictions: list[float], labels: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sentiment_metrics(predictions, labels, "mosi")


def test_unknown_convention_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown convention 'mmas'; known: mosi, sims"):
        sentiment_metrics([0.0], [0.0], "mmas")


def test_correlation_survives_tiny_and_huge_scales() -> None:
    predictions, labels = random_scores(1)
    expected = pearsonr(predictions, labels).statistic
    for scale in (1e-200, 1e-8, 1e150):
        assert sentiment_metrics(predictions * scale, labels, "mosi")["corr"] == pytest.approx(
            expected
        )


def test_correlation_of_a_line_is_one() -> None:
    labels = np.linspace(-3, 3, 17)
    assert sentiment_metrics(2 * labels + 1, labels, "mosi")["corr"] == pytest.approx(
        1.0, abs=1e-15
    )


def test_float32_input_gives_the_float64_result() -> None:
    labels = np.array([2.4, -1.2, 0.0, 1.8], dtype=np.float32)
    predictions = np.array([2.0, -1.0, 0.5, 0.2], dtype=np.float32)
    assert dict(sentiment_metrics(predictions, labels, "mosi")) == dict(
        sentiment_metrics(predictions.astype(np.float64), labels.astype(np.float64), "mosi")
    )


def slow_sims(predictions: Floats, labels: Floats) -> dict[str, float]:
    def clip(values: Floats) -> list[float]:
        return [min(max(v, -1.0), 1.0) for v in values]

    def classes(values: list[float], cuts: Sequence[float]) -> list[int]:
        return [sum(v > cut for cut in cuts) for v in values]

    p, y = clip(predictions), clip(labels)
    cuts3, cuts5 = (-0.1, 0.1), (-0.7, -0.1, 0.1, 0.7)
    return {
        "mae": mean_absolute_error(y, p),
        "corr": pearsonr(p, y).statistic,
        "acc2": accuracy_score(classes(y, (0.0,)), classes(p, (0.0,))),
        "f1": f1_score(classes(y, (0.0,)), classes(p, (0.0,)), average="weighted"),
        "acc3": accuracy_score(classes(y, cuts3), classes(p, cuts3)),
        "acc5": accuracy_score(classes(y, cuts5), classes(p, cuts5)),
    }


@pytest.mark.parametrize("seed", range(4))
def test_sims_equals_a_slow_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(-5, 6, 80) / 5
    predictions = labels + generator.normal(0, 0.4, 80)
    metrics = sentiment_metrics(predictions, labels, "sims")
    assert dict(metrics) == pytest.approx(slow_sims(predictions, labels), rel=1e-12)


def test_sims_values_on_a_cut_belong_to_the_class_below() -> None:
    on_cuts = [0.0, 0.1, -0.1, 0.7, -0.7]
    below = [-0.05, 0.05, -0.3, 0.4, -0.9]
    assert sentiment_metrics(on_cuts, below, "sims")["acc5"] == 1.0
    assert sentiment_metrics([0.0], [-0.5], "sims")["acc2"] == 1.0


def test_sims_labels_on_a_cut_fall_alike_from_float32_and_float64() -> None:
    labels = np.array([0.1, -0.1, 0.7, -0.7, 0.0])
    metrics = sentiment_metrics(labels.astype(np.float32), labels, "sims")
    assert metrics["acc5"] == metrics["acc3"] == metrics["acc2"] == 1.0


def test_sims_clips_before_the_error() -> None:
    assert sentiment_metrics([3.0, -1.0], [1.0, -1.0], "sims")["mae"] == 0.0


@pytest.mark.parametrize("convention", [n for n, c in CONVENTIONS.items() if not c.is_of_classes])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_weights_are_the_same_as_repeating_samples(convention: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 8))
    grid = st.integers(-8, 8).map(lambda k: k / 2)
    predictions = np.array(data.draw(st.lists(grid, min_size=size, max_size=size)))
    labels = np.array(data.draw(st.lists(grid, min_size=size, max_size=size)))
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    if not counts.any():
        return
    weighted = weighted_sentiment_metrics(
        predictions, labels, counts[None].astype(np.float64), convention=convention
    )
    repeated = sentiment_metrics(
        np.repeat(predictions, counts), np.repeat(labels, counts), convention
    )
    assert set(weighted) == set(repeated)
    for name, value in repeated.items():
        if value is None:
            assert np.isnan(weighted[name][0]), name
        else:
            assert weighted[name][0] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("num_classes", [2, 4])
def test_classification_equals_scikit_learn(num_classes: int) -> None:
    generator = np.random.default_rng(num_classes)
    logits = generator.normal(size=(70, num_classes))
    labels = generator.integers(num_classes, size=70)
    metrics = classification_metrics(logits, labels)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert metrics["f1"] == pytest.approx(f1_score(labels, logits.argmax(1), average="weighted"))
    assert dict(classification_metrics(logits.argmax(1), labels)) == dict(metrics)


def test_weighted_classification_is_the_same_as_repeating_samples() -> None:
    predicted, labels = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
    counts = np.array([0, 3, 1, 2])
    weighted = weighted_classification_metrics(predicted, labels, counts[None].astype(float))
    repeated = classification_metrics(np.repeat(predicted, counts), np.repeat(labels, counts))
    assert {name: row[0] for name, row in weighted.items()} == pytest.approx(dict(repeated))


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0.4, 1.0], [0, 1], "predictions must be whole class numbers, got 0.4 at position 0"),
        ([0, 1], [0, math.nan], "labels must be finite"),
        ([[0.1, math.nan]], [0], "predictions must be finite"),
        ([0, 1], [0], "one length, got 2 and 1"),
        ([[[1.0]]], [0], "logits or"),
        ([0, 1], [[0, 1], [1, 0]], r"labels must have shape \(N,\)"),
    ],
)
def test_classification_input_that_does_not_fit_is_an_error(
    predictions: object, labels: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(predictions, labels)  # type: ignore[arg-type]


def test_metrics_print_as_papers_print_them() -> None:
    printed = [format_metric(name, 0.68449) for name in ("mae", "corr", "acc2_pos", "unknown")]
    assert printed == ["0.684", "0.684", "68.45", "0.684"]
    assert set(METRIC_INFO) >= MMSA_KEYS
