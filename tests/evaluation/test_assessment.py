"""What a record says of a split is what the parts say."""

from __future__ import annotations

import json

import numpy as np

from tecafn.evaluation.assessment import assess
from tecafn.evaluation.hard_pairs import designed_pairs, hard_pairs
from tecafn.evaluation.metrics import classification_metrics, sentiment_metrics
from tecafn.evaluation.significance import sentiment_intervals


def test_assessment_of_a_regression_is_that_of_its_parts_and_json() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(-15, 16, 90) / 5
    predictions = labels + generator.normal(size=90)
    videos = [f"v{k % 9}" for k in range(90)]
    pair_ids = [f"p{k // 2}" if k < 20 else None for k in range(90)]
    result = assess(
        predictions, labels, videos, pair_ids=pair_ids, convention="misa", label_range=(-3.0, 3.0)
    )
    assert result["convention"] == "misa"
    assert result["num_samples"] == 90
    assert result["metrics"] == dict(sentiment_metrics(predictions, labels, "misa"))
    intervals = sentiment_intervals(predictions, labels, convention="misa", clusters=videos)
    assert result["intervals"] == {
        name: None if interval is None else list(interval) for name, interval in intervals.items()
    }
    assert result["hard_pairs"] == hard_pairs(predictions, labels, videos, max_gap=0.4).as_dict()
    designed = designed_pairs(predictions, labels, pair_ids, videos)
    assert result["designed_pairs"] == designed.as_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_assessment_without_pairs_says_none() -> None:
    result = assess(
        [0.0, 1.0],
        [-3.0, 3.0],
        ["a", "b"],
        pair_ids=[None, ""],
        convention="mosi",
        label_range=(-3.0, 3.0),
    )
    assert result["hard_pairs"] is None
    assert result["designed_pairs"] is None


def test_assessment_of_a_classification_has_no_pairs() -> None:
    logits = [[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]
    result = assess(
        logits, [1, 1, 1], ["a", "a", "b"], convention="classification", label_range=(0.0, 1.0)
    )
    assert result["metrics"] == dict(classification_metrics(logits, [1, 1, 1]))
    assert result["convention"] == "classification"
    assert result["hard_pairs"] is None
    assert set(result["intervals"]) == {"accuracy", "f1"}  # type: ignore[call-overload]
