"""More than two classes: the measures against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from tecafn.evaluation import metrics
from tecafn.evaluation.assessment import assess
from tecafn.evaluation.metrics import classification_metrics, weighted_classification_metrics


@pytest.mark.parametrize("seed", range(5))
def test_the_measures_are_scikit_learn_s(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(8), random.integers(0, 8, 90) ** 2 // 8])
    guess = np.where(random.random(98) < 0.6, truth, random.integers(0, 8, 98))
    found = classification_metrics(guess, truth, "multiclass")
    classes = np.unique(truth)
    assert dict(found) == pytest.approx(
        {
            "accuracy": accuracy_score(truth, guess),
            "uar": balanced_accuracy_score(truth, guess),
            "f1_macro": f1_score(truth, guess, labels=classes, average="macro"),
            "f1": f1_score(truth, guess, labels=classes, average="weighted"),
        }
    )
    counts = metrics.confusion_matrix(guess, truth, num_classes=8)
    assert counts.tolist() == confusion_matrix(truth, guess, labels=range(8)).tolist()


def test_uar_counts_a_rare_class_as_much_as_a_common_one() -> None:
    truth, guess = [0] * 98 + [1, 2], [0] * 100
    found = classification_metrics(guess, truth, "multiclass")
    assert found["accuracy"] == 0.98
    assert found["uar"] == pytest.approx(1 / 3)


def test_a_resampling_without_a_class_leaves_it_out_of_the_mean() -> None:
    truth, guess = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    weights = np.array([[1.0, 1.0, 1.0, 0.0]])
    found = weighted_classification_metrics(guess, truth, weights, convention="multiclass")
    assert found["uar"] == pytest.approx([0.75])


def test_an_assessment_of_classes_has_every_measure_with_its_interval() -> None:
    truth = np.arange(40) % 4
    videos = [f"v{k % 10}" for k in range(40)]
    found = assess(truth, truth, videos, convention="multiclass", label_range=(0, 3))
    assert found["metrics"] == {"accuracy": 1.0, "uar": 1.0, "f1_macro": 1.0, "f1": 1.0}
    assert found["intervals"]["uar"] == [1.0, 1.0]


def test_a_class_outside_the_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="0 to 2, got 0 to 3"):
        metrics.confusion_matrix(np.array([0, 3]), np.array([0, 1]), num_classes=3)
