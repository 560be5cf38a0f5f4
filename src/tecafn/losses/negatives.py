"""Hard negatives and the replacement gate: who is fused with whom while training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tecafn.core.health import Reading
from tecafn.core.parallel import gather_rows, sample_uniform


@dataclass(frozen=True)
class Pairing:
    """The gate's outcome.

    Args:
        column: (B,) int64, the partner's row in the gathered batch.
        matched: (B,) bool, True where a sample kept its own frames: the pseudo-target.
        hardest: (B, N) bool, the partners that each row draws from.
    """

    column: Tensor
    matched: Tensor
    hardest: Tensor


def sample_hard_negatives(
    similarity: Tensor,
    index: Tensor,
    *,
    positive: Tensor,
    candidates: Tensor,
    swap_probability: float,
    num_hard_negatives: int | None,
    seed: int,
    epoch: int,
    stream: int,
    own_among_hardest: bool = False,
) -> Pairing:
    """Pick, for each core sample, the most confusable partner from another sample.

    Args:
        similarity: (B, N) of each core sample to every gathered partner. No gradient flows
            through the choice.
        index: (B,) row in the split; draws depend on (seed, epoch, index, stream) alone.
        positive: (B,) column of each row's own partner, never drawn.
        candidates: (N,) or (B, N) bool, partners that have this modality.
        swap_probability: p, the chance that a sample is fused with another's frames.
        num_hard_negatives: how many of the most similar to draw from; None = all.
        seed: of the run.
        epoch: from 0.
        stream: one per modality; draws of two streams are independent.
        own_among_hardest: as the authors' public code has it: a sample counts among its own most
            similar ones before it is excluded, so that where it is one of them ``num - 1`` remain.

    Returns:
        Pairing: ``column`` (B,) int64 and ``matched`` (B,) bool, False where swapped; and
        ``hardest`` (B, N) bool.
        A row without candidates stays matched.

    Raises:
        ValueError: ``num_hard_negatives`` < 1 or ``swap_probability`` outside [0, 1].

    Example:
        >>> pairing = sample_hard_negatives(
        ...     torch.eye(3), torch.arange(3), positive=torch.arange(3),
        ...     candidates=torch.ones(3, dtype=torch.bool), swap_probability=1.0,
        ...     num_hard_negatives=1, seed=0, epoch=0, stream=0)
        >>> pairing.matched
        tensor([False, False, False])

    Source: TeCaFN, Huang et al. 2024, Sect. 3.2.2-3.2.3, Algorithm 1, Table 2. The authors' code
    counts a sample among its own most similar ones first; we exclude it before choosing, unless
    ``own_among_hardest`` asks for theirs.
    """
    if num_hard_negatives is not None and num_hard_negatives < 1:
        raise ValueError(f"num_hard_negatives must be >= 1 or None, got {num_hard_negatives}")
    if not 0.0 <= swap_probability <= 1.0:
        raise ValueError(f"swap_probability must be in [0, 1], got {swap_probability}")
    num_columns = similarity.shape[1]
    columns = torch.arange(num_columns, device=similarity.device)
    own = positive.unsqueeze(1) == columns  # (B, N); unlike one_hot, also for a share without rows
    allowed = candidates & ~own  # (B, N)
    counted = allowed | own if own_among_hardest else allowed
    limit = num_columns if num_hard_negatives is None else min(num_hard_negatives, num_columns)
    ranked = similarity.detach().float().masked_fill(~counted, float("-inf"))
    hardest = ranked.topk(limit, dim=1).indices  # (B, K), most similar first
    available = counted.sum(1).clamp(max=limit)
    if own_among_hardest:
        is_own = hardest == positive.unsqueeze(1)
        hardest = hardest.gather(1, is_own.byte().argsort(dim=1, stable=True))  # own to the end
        available = available - is_own.any(1).long()

    swap = sample_uniform(index, seed=seed, epoch=epoch, stream=2 * stream) < swap_probability
    share = sample_uniform(index, seed=seed, epoch=epoch, stream=2 * stream + 1)
    rank = (share * available).long().clamp(max=limit - 1)
    drawn = hardest.gather(1, rank.unsqueeze(1)).squeeze(1)
    swapped = swap & (available > 0)
    among = torch.arange(limit, device=columns.device) < available.unsqueeze(1)  # (B, K)
    drawable = torch.zeros_like(allowed).scatter(1, hardest, among)
    return Pairing(torch.where(swapped, drawn, positive), ~swapped, drawable)


def hub_reading(pairing: Pairing) -> Reading:
    """The largest share of the global batch's rows that have one sample among their hardest.

    Chance is what the largest share would be about if each row drew its hardest at random: of N
    columns that are each in a share k of the rows, the largest of N binomial counts.

    Example:
        >>> hub = torch.tensor([[False, True, False], [False, False, True], [False, True, False]])
        >>> pairing = Pairing(torch.arange(3), torch.ones(3, dtype=torch.bool), hub)
        >>> round(hub_reading(pairing).value.item(), 3)
        0.667
    """
    hardest = gather_rows(pairing.hardest)
    rows = hardest.any(1).sum().clamp(min=1).float()
    counts = hardest.float().sum(0)
    num_columns = (counts > 0).sum().clamp(min=2).float()
    share = counts.sum() / rows / num_columns
    spread = (2 * num_columns.log() * share * (1 - share) / rows).sqrt()
    return Reading("hubs", counts.max() / rows, (share + spread).clamp(max=1.0))
