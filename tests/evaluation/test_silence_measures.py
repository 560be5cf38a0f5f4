"""A0: measures belong to the dataset. Every convention by hand, and none by default."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tecafn.core.conventions import CONVENTIONS, METRIC_INFO, convention_named, convention_of
from tecafn.data import DatasetDescription
from tecafn.evaluation import errors, evaluator, hard_pairs, metrics, published, significance
from tecafn.evaluation.assessment import assess
from tecafn.evaluation.errors import row_errors
from tecafn.evaluation.metrics import classification_metrics, sentiment_metrics
from tecafn.training.config import MONITORS

# Labels on every cut of CH-SIMS; predictions on both sides of the cuts and beyond +-1.
SIMS_LABELS = [-0.7, -0.1, 0.0, 0.1, 0.7, 1.0]
SIMS_PREDICTIONS = [-0.6, -0.05, 0.3, 1.5, 0.71, -2.0]


def test_a0_sims_has_the_numbers_of_its_own_definition() -> None:
    found = sentiment_metrics(SIMS_PREDICTIONS, SIMS_LABELS, "sims")
    # Five classes: labels 0 1 2 2 3 4, predictions 1 2 3 4 4 0. Three: 0 0 1 1 2 2 and
    # 0 1 2 2 2 0. Two: 0 0 0 1 1 1 and 0 0 1 1 1 0. Errors within +-1: .1 .05 .3 .9 .01 2.
    assert found["acc5"] == 0.0
    assert found["acc3"] == pytest.approx(2 / 6)
    assert found["acc2"] == pytest.approx(4 / 6)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["mae"] == pytest.approx(3.36 / 6)
    clipped = np.clip(SIMS_PREDICTIONS, -1, 1)
    assert found["corr"] == pytest.approx(np.corrcoef(clipped, SIMS_LABELS)[0, 1])
    assert "acc7" not in found


def test_a0_the_rules_of_mosi_give_another_acc5_for_the_same_values() -> None:
    # Rounded within +-2: labels -1 0 0 0 1 1, predictions -1 0 0 2 1 -2.
    found = sentiment_metrics(SIMS_PREDICTIONS, SIMS_LABELS, "mosi")
    assert found["acc5"] == pytest.approx(4 / 6)
    assert found["mae"] == pytest.approx((0.1 + 0.05 + 0.3 + 1.4 + 0.01 + 3.0) / 6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a0_a_sims_label_on_a_cut_is_in_the_class_below_it(kind: Any) -> None:
    on_cuts = np.array([-0.7, -0.1, 0.1, 0.7], kind)
    below = np.array([-0.9, -0.3, 0.05, 0.4])
    above = np.array([-0.69, -0.09, 0.11, 0.71])
    assert sentiment_metrics(on_cuts, below, "sims")["acc5"] == 1.0
    assert sentiment_metrics(on_cuts, above, "sims")["acc5"] == 0.0
    assert sentiment_metrics(np.array([0.0], kind), [-0.9], "sims")["acc2"] == 1.0
    assert sentiment_metrics(np.array([0.0], kind), [0.9], "sims")["acc2"] == 0.0


def test_a0_constant_sims_predictions_leave_the_correlation_undefined_and_say_why() -> None:
    constant = sentiment_metrics([0.2, 0.2, 0.2], [0.0, 0.4, -0.6], "sims")
    assert constant["corr"] is None
    assert constant.undefined == {"corr": "all predictions are equal once clipped to +-1"}
    beyond = sentiment_metrics([1.5, 2.0, 7.0], [0.0, 0.4, -0.6], "sims")
    assert beyond.undefined == {"corr": "all predictions are equal once clipped to +-1"}
    assert beyond["acc2"] == pytest.approx(1 / 3)


def test_a0_one_sims_sample_has_every_measure_but_the_correlation() -> None:
    one = sentiment_metrics([0.05], [0.1], "sims")
    assert one.defined() == {"mae": pytest.approx(0.05), "acc5": 1, "acc3": 1, "acc2": 1, "f1": 1}
    assert one.undefined == {"corr": "one sample has no correlation"}


def test_a0_a_signed_scale_has_mae_correlation_and_the_accuracy_of_the_sign() -> None:
    # Of the labels that are not 0, signs agree for 4 and -2 of 4, -2 and 5.
    found = sentiment_metrics([1.0, -3.0, 0.0, 2.0], [4.0, -2.0, 5.0, 0.0], "signed-scale")
    assert dict(found) == {
        "mae": pytest.approx((3 + 1 + 5 + 2) / 4),
        "corr": pytest.approx(np.corrcoef([1, -3, 0, 2], [4, -2, 5, 0])[0, 1]),
        "sign_accuracy": pytest.approx(2 / 3),
    }
    nothing = sentiment_metrics([1.0, -1.0], [0.0, 0.0], "signed-scale")
    assert nothing.undefined["sign_accuracy"] == "every label is 0, nothing is left"


def test_a0_ratings_have_no_measure_that_needs_a_zero_or_a_range() -> None:
    found = sentiment_metrics([1.5, 4.0, 3.0], [1.0, 5.0, 3.0], "scale")
    assert set(found) == {"mae", "corr"}
    assert found["mae"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("dataset", "task", "label_range", "expected"),
    [
        ("cmu-mosi", "regression", (-3.0, 3.0), "mosi"),
        ("cmu-mosei", "regression", (-3.0, 3.0), "mosi"),
        ("synthetic-mosi", "regression", (-3.0, 3.0), "mosi"),
        ("ch-sims", "regression", (-1.0, 1.0), "sims"),
        ("ch-sims-v2", "regression", (-1.0, 1.0), "sims"),
        ("ur-funny", "classification", (0.0, 1.0), "classification"),
        ("mine", "regression", (-1.0, 1.0), "signed-scale"),
        ("mine", "regression", (-5.0, 5.0), "signed-scale"),
        ("mine", "regression", (1.0, 5.0), "scale"),
        ("mine", "regression", (0.0, 1.0), "scale"),
        ("cmu-mosi", "regression", (1.0, 5.0), "scale"),
        ("ch-sims", "regression", (0.0, 1.0), "scale"),
    ],
)
def test_a0_labels_decide_the_convention_and_the_name_only_between_equals(
    dataset: str, task: Any, label_range: tuple[float, float], expected: str
) -> None:
    description = DatasetDescription(dataset=dataset, widths={}, task=task, label_range=label_range)
    assert description.convention == expected
    assert convention_of(dataset, task=task, label_range=label_range) == expected


@pytest.mark.parametrize("name", [n for n, c in CONVENTIONS.items() if not c.is_of_classes])
def test_a0_a_convention_names_exactly_what_is_computed(name: str) -> None:
    found = sentiment_metrics([0.5, -1.0, 2.0], [1.0, -0.5, 0.0], name)
    rules = convention_named(name)
    assert set(rules.names) == set(found)
    assert set(rules.headlines) | set(rules.paired) <= set(found)
    assert set(found) <= set(METRIC_INFO)
    assert len({rules.label_of(key) for key in found}) == len(found)
    assert all(rules.definition_of(key) for key in found)


def test_a0_the_measures_of_classes_are_exactly_those_computed() -> None:
    rules = convention_named("classification")
    assert set(rules.names) == set(classification_metrics([0, 1], [0, 1]))


def test_a0_what_differs_is_printed_under_another_label() -> None:
    mosi, sims, mult = (convention_named(name) for name in ("mosi", "sims", "mult"))
    for key in ("acc5", "acc3"):
        assert mosi.label_of(key) != sims.label_of(key)
    assert sims.label_of("acc2") == "ACC-2 (<= 0, > 0)"
    assert mosi.label_of("acc2_nonneg") != mult.label_of("acc2_nonneg")
    assert {convention_named(n).label_of("f1") for n in ("sims", "classification")} == {
        "F1 (<= 0, > 0)",
        "F1",
    }


def test_a0_every_measure_may_choose_an_epoch_in_its_own_direction() -> None:
    assert set(MONITORS) == {"loss", *METRIC_INFO}
    assert {name for name, way in MONITORS.items() if way == "min"} == {"loss", "mae"}


@pytest.mark.parametrize(
    "function",
    [
        metrics.sentiment_metrics,
        metrics.weighted_sentiment_metrics,
        significance.sentiment_intervals,
        evaluator.validation_metrics,
        errors.row_errors,
        published.comparable_table,
        assess,
    ],
)
def test_a0_no_function_has_a_convention_by_default(function: Callable[..., Any]) -> None:
    parameter = inspect.signature(function).parameters["convention"]
    assert parameter.default is inspect.Parameter.empty


@pytest.mark.parametrize("function", [hard_pairs.hard_pairs, hard_pairs.find_hard_pairs])
def test_a0_no_function_takes_the_gap_of_mosi_by_default(function: Callable[..., Any]) -> None:
    assert inspect.signature(function).parameters["max_gap"].default is inspect.Parameter.empty


@pytest.mark.parametrize("name", [n for n, c in CONVENTIONS.items() if not c.is_of_classes])
def test_a0_row_errors_have_the_metric_as_their_mean(name: str) -> None:
    generator = np.random.default_rng(5)
    labels = generator.integers(-5, 6, 40) / 5
    predictions = labels + generator.normal(0, 0.8, (3, 40))
    for metric in convention_named(name).paired:
        values, counted = row_errors(metric, predictions, labels, convention=name)
        assert values.shape == (3, counted.sum())
        for row in range(3):
            expected = sentiment_metrics(predictions[row], labels, name)[metric]
            assert values[row].mean() == pytest.approx(expected, rel=1e-12)


def test_a0_row_errors_of_classes_count_more_than_two() -> None:
    values, counted = row_errors("accuracy", [2.0, 1.0, 0.0], [2.0, 2.0, 0.0],
                                 convention="classification")  # fmt: skip
    assert values.tolist() == [1.0, 0.0, 1.0]
    assert counted.all()
    probabilities = row_errors("accuracy", [0.9, 0.5, 0.2], [1.0, 0.0, 1.0],
                               convention="classification")  # fmt: skip
    assert probabilities[0].tolist() == [1.0, 1.0, 0.0]


def test_a0_row_errors_refuse_a_measure_of_another_convention() -> None:
    with pytest.raises(ValueError, match="'sims' compares runs by mae, acc2, got 'acc2_pos'"):
        row_errors("acc2_pos", [0.0], [1.0], convention="sims")


def test_a0_scores_are_not_measured_as_classes() -> None:
    with pytest.raises(ValueError, match="use classification_metrics"):
        sentiment_metrics([0.0], [1.0], "classification")


def test_a0_hard_pairs_are_a_fifteenth_of_the_label_range_apart() -> None:
    assert hard_pairs.max_gap_of((-3.0, 3.0)) == 0.4
    assert hard_pairs.max_gap_of((-1.0, 1.0)) == 0.1333
    kwargs: dict[str, Any] = {"convention": "signed-scale", "label_range": (-1.0, 1.0)}
    labels, videos = [0.1, 0.2, 0.5, 0.6], ["v"] * 4
    report = assess([0.0, 0.1, 0.9, 0.8], labels, videos, **kwargs)
    # Of MOSI's 0.4 six pairs would do.
    assert report["hard_pairs"]["num_pairs"] == 2
    assert report["hard_pairs"]["ordered"] == 0.5
    assert report["hard_pairs"]["max_gap"] == 0.1333


def test_a0_labels_in_the_steps_of_ch_sims_have_no_hard_pairs() -> None:
    labels = (np.arange(-5, 6) / 5).astype(np.float32)
    report = assess(labels, labels, ["v"] * 11, convention="sims", label_range=(-1.0, 1.0))
    assert report["hard_pairs"] is None
    assert report["convention"] == "sims"


def test_a0_printed_numbers_stand_beside_their_own_measures_alone() -> None:
    sizes = {"train": 1284, "valid": 229, "test": 686}
    for name, shown in (("mosi", True), ("mmsa", True), ("misa", False), ("scale", False)):
        table = published.comparable_table("cmu-mosi", "test", sizes, convention=name)
        assert (table is not None) == shown, name
