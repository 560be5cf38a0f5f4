"""InfoNCE over the global batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tecafn.core.health import Reading, contrast_reading
from tecafn.core.parallel import gather_rows, mean_over_rows, row_offset


@dataclass(frozen=True)
class ContrastiveOutput:
    """A contrast and the similarities it was made of.

    Args:
        loss: scalar.
        similarity: (B, N) cosine of each query to every gathered key.
        positive: (B,) int64, the column of each row's own key.
        candidates: (N,) bool, keys that exist.
    """

    loss: Tensor
    similarity: Tensor
    positive: Tensor
    candidates: Tensor

    @property
    def reading(self) -> Reading:
        """Has the contrast learned anything?"""
        return contrast_reading(self.loss, self.candidates)


def info_nce(
    query: Tensor, key: Tensor, *, present: Tensor, temperature: float
) -> ContrastiveOutput:
    """Each query finds its own sample's key among all keys of the global batch.

    Args:
        query: (B, D), any length; normalised here.
        key: (B, D), row i belongs to the same sample as query i.
        present: (B,) bool, rows that have both sides; the others are neither rows nor columns.
        temperature: tau > 0.

    Returns:
        The mean loss over rows that are present (zero if none, and zero without a negative), and
        the similarity matrix.

    Raises:
        ValueError: ``temperature`` <= 0.

    Example:
        >>> same = torch.eye(2)
        >>> out = info_nce(same, same, present=torch.ones(2, dtype=torch.bool), temperature=1.0)
        >>> round(out.loss.item(), 4)
        0.3133

    Source: TeCaFN, Huang et al. 2024, eq. 6 and 15. The print has ``q_j k_j`` in the denominator's
    sum; InfoNCE (van den Oord et al. 2018), and the authors' code, have ``q_i k_j``, and so do we.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    query = functional.normalize(query, dim=-1)
    keys = gather_rows(functional.normalize(key, dim=-1))
    candidates = gather_rows(present)
    first = row_offset(query.shape[0], query.device)
    positive = torch.arange(query.shape[0], device=query.device) + first
    similarity = query @ keys.T  # (B, D) x (N, D) -> (B, N)
    # A row without its own key would be all -inf; its own column stays in so that the row is
    # finite, and the row is left out of the mean.
    columns = torch.arange(keys.shape[0], device=query.device)
    own = positive.unsqueeze(1) == columns  # (B, N); unlike one_hot, also for a share without rows
    logits = (similarity / temperature).masked_fill(~(candidates | own), float("-inf"))
    rows = functional.cross_entropy(logits, positive, reduction="none")
    return ContrastiveOutput(mean_over_rows(rows, present), similarity, positive, candidates)
