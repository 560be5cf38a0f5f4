"""The dataset's own objective."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tecafn.core.batch import Batch
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import mean_over_rows
from tecafn.core.scheme import Network, Scheme

ScoreLoss = Literal["l1", "mse"]


def task_loss(prediction: Tensor, labels: Tensor | None, *, scores: ScoreLoss = "l1") -> Tensor:
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


def task_rows(prediction: Tensor, labels: Tensor, *, scores: ScoreLoss = "l1") -> Tensor:
    """(B,) error of each row, for a term that not every row takes part in.

    Args:
        prediction: as ``task_loss`` takes it.
        labels: as ``task_loss`` takes them.
        scores: as ``task_loss`` takes them.

    Example:
        >>> task_rows(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).tolist()
        [1.0, 2.0]
    """
    if labels.is_floating_point():
        error = prediction - labels
        return error.abs() if scores == "l1" else error.square()
    return functional.cross_entropy(prediction, labels, reduction="none")


class TaskScheme(Scheme):
    """The training of a method that has the task's loss and nothing else.

    Args:
        network: the method.
        scores: as ``task_loss`` takes it.
    """

    def __init__(self, network: Network, *, scores: ScoreLoss = "l1") -> None:
        super().__init__()
        self.network = network
        self.scores = scores

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """One term, ``task``."""
        del progress
        output: Output = self.network(batch)
        task = task_loss(output.prediction, batch.labels, scores=self.scores)
        return Losses({"task": task}, {"task": 1.0}, output)
