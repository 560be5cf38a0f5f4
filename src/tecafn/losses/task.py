"""The data set's own objective."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tecafn.core.parallel import mean_over_rows


def task_loss(
    prediction: Tensor, labels: Tensor | None, *, scores: Literal["l1", "mse"] = "l1"
) -> Tensor:
    """Mean absolute error of scores (TeCaFN, eq. 18), or cross-entropy of classes.

    Args:
        prediction: (B,) scores or (B, C) logits.
        labels: (B,) float scores or int64 classes.
        scores: ``mse`` for the methods whose papers square the errors of scores.

    Returns:
        The mean over the global batch.

    Raises:
        ValueError: ``labels`` is None: some row has no label.

    Example:
        >>> task_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item()
        1.5
    """
    if labels is None:
        raise ValueError("a training batch needs a label in every row, got rows without one")
    rows = task_rows(prediction, labels, scores=scores)
    return mean_over_rows(rows, torch.ones_like(labels, dtype=torch.bool))


def task_rows(prediction: Tensor, labels: Tensor, *, scores: Literal["l1", "mse"] = "l1") -> Tensor:
    """(B,) error of each row, for a term that not every row takes part in.

    Args:
        prediction, labels, scores: as ``task_loss`` takes them.

    Example:
        >>> task_rows(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).tolist()
        [1.0, 2.0]
    """
    if labels.is_floating_point():
        error = prediction - labels
        return error.abs() if scores == "l1" else error.square()
    return functional.cross_entropy(prediction, labels, reduction="none")
