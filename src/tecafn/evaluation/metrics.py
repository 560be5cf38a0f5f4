"""The field's metrics, exactly, under each convention that datasets and papers have.

Every metric here is a function of per-sample **weights**: with weights of one it is the metric
itself, with the counts of a resampling it is the metric of the resampled data. So there is one
definition of each number, and a bootstrap over thousands of resamplings is a few matrix products.

``core/conventions.py`` says which metrics a convention has, what each is, and which convention goes
with which data; ``docs/metrics.md`` has the sources. Nothing here has a convention by default.

Source: the public code of MMSA, MMIM, MulT, MISA and MAG-BERT, read for their definitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tecafn.core.conventions import METRIC_INFO, convention_named

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Second moments of columns scaled to +-1 carry rounding errors of about 1e-16 each; a variance
# below this is that of a constant column.
_CONSTANT_VARIANCE = 1e-13


@dataclass(frozen=True)
class _Rules:
    """What distinguishes the conventions that share the keys of ``mosi``."""

    drops_zero_labels: bool = False
    zero_is_nonneg: bool = True
    f1_weighted_by_prediction: bool = False


_RULES = {
    "mosi": _Rules(),
    "mult": _Rules(zero_is_nonneg=False, f1_weighted_by_prediction=True),
    "misa": _Rules(f1_weighted_by_prediction=True),
    "mag": _Rules(drops_zero_labels=True),
}


def format_metric(name: str, value: float | None) -> str:
    """A metric as papers print it: percent with two decimals, or three decimals.

    Args:
        name: a key of ``METRIC_INFO``; an unknown one is printed with three decimals.
        value: the fraction or score; None prints as ``undefined``.

    Example:
        >>> format_metric("acc7", 0.4781), format_metric("mae", 0.684), format_metric("corr", None)
        ('47.81', '0.684', 'undefined')
    """
    if value is None:
        return "undefined"
    info = METRIC_INFO.get(name)
    return f"{100 * value:.2f}" if info is not None and info.percent else f"{value:.3f}"


class Metrics(Mapping[str, float | None]):
    """Metrics by name; None where the data leave one undefined, with the reason beside it.

    Args:
        values: fractions and scores, None = undefined.
        undefined: a reason for each None.

    Example:
        >>> metrics = sentiment_metrics([0.5, 0.5], [1.0, -1.0], "mosi")
        >>> metrics["mae"], metrics["corr"], metrics.undefined
        (1.0, None, {'corr': 'all predictions are equal'})
        >>> sorted(metrics.defined())[:3]
        ['acc2_nonneg', 'acc2_pos', 'acc3']
    """

    def __init__(self, values: Mapping[str, float | None], undefined: Mapping[str, str]) -> None:
        missing = {name for name, value in values.items() if value is None}
        assert missing == set(undefined), f"reasons for {sorted(undefined)}, None in {missing}"
        self._values = dict(values)
        self.undefined = dict(undefined)

    def __getitem__(self, name: str) -> float | None:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Metrics({self._values!r}, undefined={self.undefined!r})"

    def defined(self) -> dict[str, float]:
        """The metrics that have a value."""
        return {name: value for name, value in self._values.items() if value is not None}


def finite_vector(values: ArrayLike, name: str) -> Floats:
    """``values`` as (N,) float64.

    Raises:
        ValueError: not one-dimensional, empty, or a value is NaN or infinite.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), got {vector.shape}")
    if not len(vector):
        raise ValueError(f"{name} must hold at least one sample, got none")
    bad = np.flatnonzero(~np.isfinite(vector))
    if len(bad):
        raise ValueError(
            f"{name} must be finite, got {vector[bad[0]]} at position {bad[0]} "
            f"({len(bad)} of {len(vector)} are not)"
        )
    return vector


def finite_pair(predictions: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Predictions and labels as two finite (N,) float64 vectors.

    Raises:
        ValueError: shapes differ, or a value is NaN or infinite.
    """
    scores = finite_vector(predictions, "predictions")
    truth = finite_vector(labels, "labels")
    if scores.shape != truth.shape:
        raise ValueError(
            f"predictions and labels must have one shape, got {scores.shape} and {truth.shape}"
        )
    return scores, truth


def seven_classes(values: ArrayLike) -> Integers:
    """ACC-7's classes -3 to 3: clip to +-3, round half to even.

    Example:
        >>> seven_classes([-0.5, 0.5, 1.5, 2.5, 9.0]).tolist()
        [0, 0, 2, 2, 3]
    """
    return _rounded(np.asarray(values, dtype=np.float64), 3).astype(np.int64)


def _rounded(values: Floats, limit: int) -> Floats:
    # numpy rounds half to even, as the field's code does.
    return np.asarray(np.round(np.clip(values, -limit, limit)), dtype=np.float64)


def _mean(values: NDArray[Any], weights: Floats) -> Floats:
    """(R,) weighted means of (N,) values; NaN where nothing has weight."""
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights @ values.astype(np.float64) / total)


def _pearson(first: Floats, second: Floats, weights: Floats) -> Floats:
    """(R,) weighted correlations; NaN where one side is constant."""
    columns = []
    for values in (first, second):
        if np.ptp(values) == 0:
            return np.full(len(weights), np.nan)
        centred = values - values.mean()
        columns.append(centred / np.abs(centred).max())
    x, y = columns
    mean_x, mean_y = _mean(x, weights), _mean(y, weights)
    variance_x = _mean(x * x, weights) - mean_x**2
    variance_y = _mean(y * y, weights) - mean_y**2
    covariance = _mean(x * y, weights) - mean_x * mean_y
    constant = ~((variance_x > _CONSTANT_VARIANCE) & (variance_y > _CONSTANT_VARIANCE))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.sqrt(variance_x * variance_y)
    return np.where(constant, np.nan, np.clip(correlation, -1.0, 1.0))


def _weighted_f1(truth: NDArray[Any], predicted: NDArray[Any], weights: Floats) -> Floats:
    """(R,) F1 of each class averaged by its support in ``truth``; NaN where nothing has weight."""
    total = np.zeros(len(weights))
    for label in np.unique(truth):
        is_true, is_predicted = truth == label, predicted == label
        support = weights @ is_true.astype(np.float64)
        hits = weights @ (is_true & is_predicted).astype(np.float64)
        both = support + weights @ is_predicted.astype(np.float64)
        # A class that is neither true nor predicted in a resampling has no support to count.
        total += support * np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / weights.sum(axis=1))


def weighted_sentiment_metrics(
    predictions: ArrayLike, labels: ArrayLike, weights: Floats, *, convention: str
) -> dict[str, Floats]:
    """The metrics of R weightings of the same N samples; NaN where one is undefined.

    Args:
        predictions: (N,) scores.
        labels: (N,) labels.
        weights: (R, N), how often each sample counts.
        convention: of the data; see ``core/conventions.py``.

    Returns:
        (R,) values for each metric.

    Raises:
        ValueError: as ``sentiment_metrics``.

    Example:
        >>> twice_the_first = np.array([[2.0, 1.0, 0.0]])
        >>> metrics = weighted_sentiment_metrics(
        ...     [1, 2, 3], [0, 2, 2], twice_the_first, convention="mosi")
        >>> metrics["mae"].round(3)
        array([0.667])
    """
    scores, truth = finite_pair(predictions, labels)
    name = _of_scores(convention)
    if name in _RULES:
        return _weighted_mosi_metrics(scores, truth, weights, _RULES[name])
    if name == "sims":
        return _weighted_sims_metrics(scores, truth, weights)
    metrics = {
        "mae": _mean(np.abs(scores - truth), weights),
        "corr": _pearson(scores, truth, weights),
    }
    if name == "signed-scale":
        polar = weights * (truth != 0)
        metrics["sign_accuracy"] = _mean((truth > 0) == (scores > 0), polar)
    return metrics


def _of_scores(convention: str) -> str:
    """The convention's name, if it is one of scores.

    Raises:
        ValueError: it is unknown, or of classes.
    """
    name = convention_named(convention).name
    if convention_named(name).is_of_classes:
        raise ValueError(f"convention {name!r} is of classes: use classification_metrics")
    return name


def _weighted_mosi_metrics(
    scores: Floats, truth: Floats, weights: Floats, rules: _Rules
) -> dict[str, Floats]:
    nonzero = weights * (truth != 0)
    used = nonzero if rules.drops_zero_labels else weights

    def f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], weights: Floats) -> Floats:
        if rules.f1_weighted_by_prediction:
            truth, predicted = predicted, truth
        return _weighted_f1(truth, predicted, weights)

    if rules.zero_is_nonneg:
        truth_nonneg, scores_nonneg = truth >= 0, scores >= 0
    else:
        truth_nonneg, scores_nonneg = truth > 0, scores > 0
    return {
        "mae": _mean(np.abs(scores - truth), used),
        "corr": _pearson(scores, truth, used),
        "acc7": _mean(_rounded(scores, 3) == _rounded(truth, 3), used),
        "acc5": _mean(_rounded(scores, 2) == _rounded(truth, 2), used),
        "acc3": _mean(_rounded(scores, 1) == _rounded(truth, 1), used),
        "acc2_nonneg": _mean(truth_nonneg == scores_nonneg, used),
        "f1_nonneg": f1(truth_nonneg, scores_nonneg, used),
        "acc2_pos": _mean((truth > 0) == (scores > 0), nonzero),
        "f1_pos": f1(truth > 0, scores > 0, nonzero),
    }


SIMS_CUTS = {"acc2": (0.0,), "acc3": (-0.1, 0.1), "acc5": (-0.7, -0.1, 0.1, 0.7)}
"""Where CH-SIMS's classes end; a value on a cut belongs to the class below it."""


def sims_classes(values: ArrayLike, metric: str) -> Integers:
    """The classes 0 to C - 1 that ``acc2``, ``acc3`` or ``acc5`` of CH-SIMS compare.

    Example:
        >>> sims_classes([-3.0, -0.7, -0.1, 0.0, 0.1, 0.7, 0.8], "acc5").tolist()
        [0, 0, 1, 2, 2, 3, 4]
    """
    # Compared in float32: a stored label of 0.7 must fall on the cut 0.7 whether it was read as
    # float32 or float64.
    edges = np.asarray(SIMS_CUTS[metric], dtype=np.float32)
    clipped = np.clip(np.asarray(values, dtype=np.float64), -1, 1).astype(np.float32)
    return np.searchsorted(edges, clipped, side="left").astype(np.int64)


def _weighted_sims_metrics(scores: Floats, truth: Floats, weights: Floats) -> dict[str, Floats]:
    clipped, labels = np.clip(scores, -1, 1), np.clip(truth, -1, 1)
    hits = {
        name: _mean(sims_classes(scores, name) == sims_classes(truth, name), weights)
        for name in SIMS_CUTS
    }
    return {
        "mae": _mean(np.abs(clipped - labels), weights),
        "corr": _pearson(clipped, labels, weights),
        "acc5": hits["acc5"],
        "acc3": hits["acc3"],
        "acc2": hits["acc2"],
        "f1": _weighted_f1(sims_classes(truth, "acc2"), sims_classes(scores, "acc2"), weights),
    }


def sentiment_metrics(predictions: ArrayLike, labels: ArrayLike, convention: str) -> Metrics:
    """The field's metrics of one set of predictions.

    Args:
        predictions: (N,) scores on the label's scale, N >= 1.
        labels: (N,) labels.
        convention: of the data, such as ``store.description.convention``; see
            ``core/conventions.py``.

    Returns:
        The convention's measures as fractions, not percent: for ``mosi`` ``mae, corr, acc7, acc5,
        acc3, acc2_nonneg, f1_nonneg, acc2_pos, f1_pos``, for ``sims`` ``mae, corr, acc5, acc3,
        acc2, f1``. A metric that the data leave undefined is None and named, with the reason, in
        ``.undefined``.

    Raises:
        ValueError: shapes differ or are not (N,), no sample, a NaN or infinite value, a convention
            that is unknown or of classes.

    Example:
        >>> metrics = sentiment_metrics([2.6, -0.2, 0.4], [3.0, 0.0, -1.0], "mosi")
        >>> round(metrics["mae"], 3), round(metrics["acc7"], 3), metrics["acc2_pos"]
        (0.667, 0.667, 0.5)
        >>> sentiment_metrics([0.8, -0.1], [1.0, 0.1], "sims")["acc5"]
        0.5

    Source: TeCaFN, Huang et al. 2024, Sect. 4.2; definitions as in MMSA's public code.
    """
    scores, truth = finite_pair(predictions, labels)
    rows = weighted_sentiment_metrics(
        scores, truth, np.ones((1, len(scores))), convention=convention
    )
    name = _of_scores(convention)
    if name == "sims":
        clipped = np.clip(scores, -1, 1), np.clip(truth, -1, 1)
        return _with_reasons(rows, *clipped, equal="equal once clipped to +-1")
    drops = name in _RULES and _RULES[name].drops_zero_labels
    kept = truth != 0 if drops else np.ones(len(truth), dtype=np.bool_)
    return _with_reasons(rows, scores[kept], truth[kept])


def _with_reasons(
    rows: Mapping[str, Floats], scores: Floats, truth: Floats, *, equal: str = "equal"
) -> Metrics:
    values = {name: None if np.isnan(row[0]) else float(row[0]) for name, row in rows.items()}
    if not len(truth) or not np.any(truth):
        nothing_left = "every label is 0, nothing is left"
    else:
        nothing_left = ""
    undefined = {}
    for name in (name for name, value in values.items() if value is None):
        if name == "corr" and len(truth) == 1:
            undefined[name] = "one sample has no correlation"
        elif name == "corr" and len(truth) > 1:
            side = "predictions" if np.ptp(scores) == 0 else "labels"
            undefined[name] = f"all {side} are {equal}"
        else:
            undefined[name] = nothing_left
    return Metrics(values, undefined)


def classes_of(logits_or_labels: ArrayLike, name: str = "predictions") -> Integers:
    """(N,) int64 classes of (N, C) logits (the first of the highest) or of (N,) whole numbers.

    Raises:
        ValueError: another shape, no sample, a NaN or infinite value, a number that is not whole.

    Example:
        >>> classes_of([[0.1, 0.9], [2.0, 2.0]]).tolist()
        [1, 0]
    """
    array = np.asarray(logits_or_labels, dtype=np.float64)
    if array.ndim == 2 and array.shape[0] and array.shape[1] > 1:
        finite_vector(array.ravel(), name)
        return np.asarray(array.argmax(axis=1), dtype=np.int64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be (N, C) logits or (N,) classes, got {array.shape}")
    vector = finite_vector(array, name)
    whole = np.flatnonzero(vector != np.round(vector))
    if len(whole):
        raise ValueError(
            f"{name} must be whole class numbers, got {vector[whole[0]]} at position {whole[0]}"
        )
    return vector.astype(np.int64)


def answered_classes(answers: ArrayLike) -> Floats:
    """The classes that saved predictions stand for.

    Args:
        answers: of two classes the probability of class 1, of more the class itself.

    Returns:
        An array of the same shape; a probability of exactly one half is class 0, the first of
        equals.

    Example:
        >>> answered_classes([0.2, 0.5, 0.51, 1.0, 2.0, 3.0]).tolist()
        [0.0, 0.0, 1.0, 1.0, 2.0, 3.0]
    """
    return np.asarray(np.ceil(np.asarray(answers, np.float64) - 0.5) + 0.0)


def paired_classes(logits_or_labels: ArrayLike, labels: ArrayLike) -> tuple[Integers, Integers]:
    """Predicted and true classes, (N,) int64 each.

    Args:
        logits_or_labels: (N, C) logits or (N,) predicted classes.
        labels: (N,) true classes.

    Raises:
        ValueError: lengths differ, no sample, NaN, or a class that is not a whole number.
    """
    predicted = classes_of(logits_or_labels)
    truth = classes_of(finite_vector(labels, "labels"), "labels")
    if predicted.shape != truth.shape:
        raise ValueError(
            f"predictions and labels must have one length, got {len(predicted)} and {len(truth)}"
        )
    return predicted, truth


def weighted_classification_metrics(
    predicted: Integers, labels: Integers, weights: Floats, *, convention: str = "classification"
) -> dict[str, Floats]:
    """The measures of classes for R weightings (R, N) of the same (N,) classes.

    Args:
        predicted: (N,) classes.
        labels: (N,) true classes.
        weights: (R, N), how often each sample counts.
        convention: ``classification`` (accuracy and f1) or ``multiclass`` (uar and f1_macro, too).
    """
    found = {
        "accuracy": _mean(predicted == labels, weights),
        "f1": _weighted_f1(labels, predicted, weights),
    }
    if convention_named(convention).name == "multiclass":
        recalls, f1, there = _by_class(predicted, labels, weights)
        found["uar"], found["f1_macro"] = _mean_of(recalls, there), _mean_of(f1, there)
    return {name: found[name] for name in convention_named(convention).names}


def _by_class(
    predicted: Integers, labels: Integers, weights: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """(R, C) recall and F1 of each class that any sample has, and whether it has weight."""
    recalls, scores, there = [], [], []
    for label in np.unique(labels):
        is_true, is_predicted = labels == label, predicted == label
        support = weights @ is_true.astype(np.float64)
        hits = weights @ (is_true & is_predicted).astype(np.float64)
        both = support + weights @ is_predicted.astype(np.float64)
        there.append(support > 0)
        recalls.append(hits / np.where(support > 0, support, 1))
        scores.append(2 * hits / np.where(both > 0, both, 1))
    return np.stack(recalls, 1), np.stack(scores, 1), np.stack(there, 1)


def _mean_of(values: Floats, there: NDArray[np.bool_]) -> Floats:
    """(R,) means over the classes that are there; NaN where none is."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((values * there).sum(axis=1) / there.sum(axis=1))


def confusion_matrix(predicted: Integers, labels: Integers, *, num_classes: int) -> Integers:
    """(C, C) counts, row = true class, column = predicted class.

    Raises:
        ValueError: a class is none of 0 to C - 1.

    Example:
        >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), num_classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    for name, classes in (("predictions", predicted), ("labels", labels)):
        if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError(
                f"{name} must be classes 0 to {num_classes - 1}, "
                f"got {classes.min()} to {classes.max()}"
            )
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def classification_metrics(
    logits_or_labels: ArrayLike, labels: ArrayLike, convention: str = "classification"
) -> Metrics:
    """Accuracy of the argmax and F1 weighted by support, as for UR-FUNNY; of more classes further.

    Args:
        logits_or_labels: (N, C) logits or (N,) predicted classes.
        labels: (N,) true classes.
        convention: ``classification``, or ``multiclass`` for more than two classes.

    Raises:
        ValueError: shapes differ, no sample, NaN, or a label that is not a whole number.

    Example:
        >>> classification_metrics([[0.2, 0.8], [0.9, 0.1]], [1, 1])["accuracy"]
        0.5
        >>> classification_metrics([0, 1, 1, 2], [0, 1, 2, 2], "multiclass")["uar"]
        0.8333333333333334
    """
    predicted, truth = paired_classes(logits_or_labels, labels)
    weights = np.ones((1, len(truth)))
    rows = weighted_classification_metrics(predicted, truth, weights, convention=convention)
    return Metrics({name: float(row[0]) for name, row in rows.items()}, {})


def names_in_order(names: Sequence[str]) -> list[str]:
    """Metric names in the order papers print them, unknown ones last.

    Example:
        >>> names_in_order(["f1_pos", "mae", "other", "corr"])
        ['mae', 'corr', 'f1_pos', 'other']
    """
    known = list(METRIC_INFO)
    return sorted(
        names, key=lambda name: (known.index(name) if name in known else len(known), name)
    )
