"""Each sample's share in a metric, so that two runs can be compared sample for sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tecafn.core.conventions import convention_named
from tecafn.evaluation.metrics import Floats, answered_classes, sims_classes

Counted = NDArray[np.bool_]


def row_errors(
    metric: str, predictions: ArrayLike, labels: ArrayLike, *, convention: str
) -> tuple[Floats, Counted]:
    """What each sample contributes to a metric that is a mean over samples.

    Args:
        metric: one of the convention's ``paired`` ones.
        predictions: (N,) or (S, N) as ``predictions/<split>.csv`` has them: scores; probabilities
            of class 1 where there are two classes, the class where there are more.
        labels: (N,).
        convention: of the data.

    Returns:
        (K,) or (S, K) values of the K samples that count, whose mean is the metric: an absolute
        error, or 1 for a hit and 0 for a miss; and (N,) which samples count.

    Raises:
        ValueError: the convention is unknown, or compares no runs by this metric.

    Example:
        >>> errors, counted = row_errors("mae", [2.0, -0.5], [1.0, -1.0], convention="mosi")
        >>> errors.tolist(), counted.tolist()
        ([1.0, 0.5], [True, True])
        >>> row_errors("mae", [2.0, -0.5], [1.0, -1.0], convention="sims")[0].tolist()
        [0.0, 0.5]
    """
    rules = convention_named(convention)
    if metric not in rules.paired:
        raise ValueError(
            f"convention {rules.name!r} compares runs by {', '.join(rules.paired)}, got {metric!r}"
        )
    scores, truth = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    counted = np.ones(len(truth), np.bool_)
    if metric == "mae":
        if rules.name == "sims":
            scores, truth = np.clip(scores, -1, 1), np.clip(truth, -1, 1)
        elif rules.name == "mag":
            counted = truth != 0
        values = np.abs(scores - truth)
    elif metric == "accuracy":
        values = (answered_classes(scores) == truth).astype(np.float64)
    elif rules.name == "sims":
        values = (sims_classes(scores, metric) == sims_classes(truth, metric)).astype(np.float64)
    else:
        assert metric in ("acc2_pos", "sign_accuracy"), metric
        counted = truth != 0
        values = ((scores > 0) == (truth > 0)).astype(np.float64)
    return values[..., counted], counted
