"""Differences of samples that resemble one another, asked for as such."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tecafn.core.parallel import gather_rows, mean_over_rows, row_offset


def difference_loss(
    prediction: Tensor, labels: Tensor, vectors: Tensor, *, present: Tensor, num_similar: int
) -> Tensor:
    """Error of the difference to each of the most similar samples of the global batch.

    ``mean_i mean_j |(prediction_i - prediction_j) - (label_i - label_j)|``, where j runs over the
    ``num_similar`` samples whose vectors, without their mean over the batch, have the largest
    cosine with i's. An error that similar samples share costs nothing here; what tells them apart
    is all that counts.

    Args:
        prediction: (B,) scores.
        labels: (B,) scores.
        vectors: (B, D) by which samples are similar; no gradient flows through the choice.
        present: (B,) bool, rows that have such a vector; the others take no part.
        num_similar: K >= 1, or fewer where the batch has fewer.

    Returns:
        A scalar, zero where no row has another.

    Raises:
        ValueError: ``num_similar`` < 1.

    Example:
        >>> text = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]])
        >>> loss = difference_loss(
        ...     torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.0, 0.0]), text,
        ...     present=torch.ones(4, dtype=torch.bool), num_similar=1)
        >>> loss.item()
        0.5
    """
    if num_similar < 1:
        raise ValueError(f"num_similar must be >= 1, got {num_similar}")
    gathered, is_present = gather_rows(vectors.detach()), gather_rows(present)
    count = is_present.sum().clamp(min=1).to(gathered.dtype)
    mean = torch.where(is_present.unsqueeze(1), gathered, 0.0).sum(0) / count
    # In single precision at least: rounded cosines would tie.
    gathered = functional.normalize((gathered - mean).float(), dim=1)
    first = row_offset(len(vectors), vectors.device)
    rows = torch.arange(len(vectors), device=vectors.device) + first
    columns = torch.arange(len(gathered), device=vectors.device)
    allowed = is_present & (rows.unsqueeze(1) != columns) & present.unsqueeze(1)  # (B, N)
    cosine = (gathered[rows] @ gathered.T).masked_fill(~allowed, float("-inf"))
    similar = cosine.topk(min(num_similar, len(gathered)), dim=1).indices  # (B, K)
    counts = allowed.gather(1, similar)  # fewer than K where the batch is small
    predicted = prediction.unsqueeze(1) - gather_rows(prediction)[similar]
    true = labels.unsqueeze(1) - gather_rows(labels)[similar]
    error = torch.where(counts, (predicted - true).abs(), 0.0).sum(1)
    num = counts.sum(1)
    return mean_over_rows(error / num.clamp(min=1), num > 0)
