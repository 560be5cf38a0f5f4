"""Everything a record says about one labelled split: metrics, intervals and pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tecafn.core.conventions import convention_named
from tecafn.evaluation.hard_pairs import designed_pairs, hard_pairs, max_gap_of
from tecafn.evaluation.metrics import classification_metrics, sentiment_metrics
from tecafn.evaluation.significance import (
    DEFAULT_RESAMPLING,
    Resampling,
    classification_intervals,
    sentiment_intervals,
)


def assess(
    predictions: ArrayLike,
    labels: ArrayLike,
    videos: Sequence[str],
    *,
    convention: str,
    label_range: tuple[float, float],
    pair_ids: Sequence[str | None] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> dict[str, object]:
    """Assess a run on one labelled split; JSON-able, as ``record.json`` holds it.

    Args:
        predictions: (N,) scores; for a classification (N, C) logits or (N,) classes.
        labels: (N,) labels.
        videos: N video names; every interval comes from resampling videos.
        convention: of the data, such as ``store.description.convention``.
        label_range: lowest and highest label of the data; how near hard pairs are goes with it.
        pair_ids: N names of designed pairs, None or "" outside one; None when there are none.
        resampling: level of the intervals, number and seed of the resamplings.

    Returns:
        ``convention, num_samples, num_videos, resampling, metrics, undefined, intervals,
        hard_pairs, designed_pairs``; pairs are None where there are none (a classification, no
        ``pair_ids``).

    Raises:
        ValueError: as ``sentiment_metrics`` and ``hard_pairs``.

    Example:
        >>> result = assess(
        ...     [0.1, 0.3], [1.0, 1.2], ["a", "a"], convention="mosi", label_range=(-3, 3))
        >>> result["hard_pairs"]["ordered"], result["designed_pairs"]
        (1.0, None)
    """
    hard = designed = None
    name = convention_named(convention).name
    if convention_named(name).is_of_classes:
        metrics = classification_metrics(predictions, labels, name)
        intervals = classification_intervals(
            predictions, labels, convention=name, clusters=videos, resampling=resampling
        )
    else:
        metrics = sentiment_metrics(predictions, labels, name)
        intervals = sentiment_intervals(
            predictions, labels, convention=name, clusters=videos, resampling=resampling
        )
        hard = hard_pairs(
            predictions, labels, videos, max_gap=max_gap_of(label_range), resampling=resampling
        )
        if pair_ids is not None:
            designed = designed_pairs(predictions, labels, pair_ids, videos, resampling=resampling)
    return {
        "convention": name,
        "num_samples": len(np.asarray(labels)),
        "num_videos": len(set(videos)),
        "resampling": {
            "level": resampling.level,
            "num_resamples": resampling.num_resamples,
            "seed": resampling.seed,
            "unit": "video",
        },
        "metrics": dict(metrics),
        "undefined": metrics.undefined,
        "intervals": {
            name: None if interval is None else list(interval)
            for name, interval in intervals.items()
        },
        "hard_pairs": hard.as_dict() if hard is not None and hard.num_pairs else None,
        "designed_pairs": (
            designed.as_dict() if designed is not None and designed.num_pairs else None
        ),
    }
