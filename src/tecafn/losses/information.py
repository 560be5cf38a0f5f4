"""Mutual information between representations, bounded from below."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tecafn.core.parallel import gather_rows, mean_over_rows
from tecafn.losses.ring import next_places


def negative_log_density(
    mean: Tensor,
    log_variance: Tensor,
    target: Tensor,
    *,
    present: Tensor,
    normalised: bool = False,
) -> Tensor:
    """The data term of the Barber-Agakov bound, to be minimised: -E log q(y | x).

    Unless ``normalised``, as MMIM's public code, and TeCaFN's after it, compute it: without the
    Gaussian's own normalisation, ``log_variance / 2``. The entropy of y is in neither.

    Args:
        mean: (B, D) of q(y | x).
        log_variance: (B, D) of q(y | x).
        target: (B, D), y.
        present: (B,) bool, rows that have x and y.
        normalised: the whole of -E log q(y | x), constants included. Without the normalisation a
            learned variance only grows.

    Returns:
        The mean over the present rows of the global batch of ``(mean - y)^2 / (2 variance)``
        summed over columns, normalised also ``log(2 pi variance) / 2``; zero if there are none.

    Example:
        >>> import torch
        >>> zero, two = torch.zeros(1, 3), torch.full((1, 3), 2.0)
        >>> present = torch.tensor([True])
        >>> negative_log_density(zero, zero, two, present=present).item()
        6.0

    Source: MMIM, Han et al. 2021; Barber and Agakov 2003.
    """
    rows = ((mean - target).square() / 2 * (-log_variance).exp()).sum(-1)
    if normalised:
        rows = rows + (log_variance + math.log(2 * math.pi)).sum(-1) / 2
    return mean_over_rows(rows, present)


def gaussian_entropy(rows: Tensor, *, jitter: float = 1e-4) -> Tensor:
    """Entropy, in nats, of the Gaussian with the rows' covariance.

    Args:
        rows: (N, D), N >= 2.
        jitter: added to the variances, so that few or collinear rows have a finite one.

    Returns:
        Scalar ``log det(2 pi e S) / 2``.

    Raises:
        ValueError: fewer than two rows.

    Example:
        >>> rows = torch.tensor([[-1.0], [1.0]]) / 2**0.5  # variance 1
        >>> round(gaussian_entropy(rows, jitter=0.0).item(), 4)
        1.4189

    Source: MMIM, Han et al. 2021.
    """
    if len(rows) < 2:
        raise ValueError(f"an entropy needs >= 2 rows, got {len(rows)}")
    centred = rows - rows.mean(0)
    eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    covariance = centred.T @ centred / (len(rows) - 1) + jitter * eye
    half_log_det: Tensor = torch.linalg.cholesky(covariance).diagonal().log().sum()
    return half_log_det + rows.shape[1] / 2 * math.log(2 * math.pi * math.e)


class HalvesMemory(nn.Module):
    """Vectors of the last samples and the half each belongs to, for covariances of few-row batches.

    Buffers of a fixed size, the same on every process: rows of the global batch, oldest overwritten
    first.

    Args:
        size: M >= 1, vectors held.
        dim: D.

    Raises:
        ValueError: ``size`` < 1.

    Example:
        >>> memory = HalvesMemory(2, dim=1)
        >>> vectors, half = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, -1, 0])
        >>> memory.push(vectors, half, torch.ones(3, dtype=torch.bool))
        >>> memory.vectors.squeeze(1).tolist(), memory.halves.tolist(), memory.is_full
        ([1.0, 4.0], [1, 0], True)

    Source: MMIM, Han et al. 2021: the history of earlier batches' embeddings.
    """

    vectors: Tensor
    halves: Tensor
    num_pushed: Tensor

    def __init__(self, size: int, *, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a memory holds >= 1 vectors, got {size}")
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("halves", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("num_pushed", torch.zeros((), dtype=torch.int64))

    @property
    def is_full(self) -> bool:
        """Has every place been filled?"""
        return int(self.num_pushed) >= len(self.halves)

    @torch.no_grad()
    def push(self, vectors: Tensor, half: Tensor, present: Tensor) -> None:
        """Store the rows of all processes that are present and in a half.

        Args:
            vectors: (B, D) of this process.
            half: (B,) int64: 0, 1, or -1 for a row of neither.
            present: (B,) bool.
        """
        kept = gather_rows(present & (half >= 0))
        vectors, half = gather_rows(vectors)[kept], gather_rows(half)[kept]
        last, slots = next_places(self.num_pushed, len(half), size=len(self.halves))
        self.vectors[slots] = vectors[last].to(self.vectors.dtype)
        self.halves[slots] = half[last]
        self.num_pushed += len(half)

    def entropy(
        self, vectors: Tensor, half: Tensor, present: Tensor, *, jitter: float = 1e-4
    ) -> Tensor:
        """Mean entropy of the two halves: this global batch and what is remembered.

        Args:
            vectors: as ``push`` takes them.
            half: as ``push`` takes it.
            present: as ``push`` takes it.
            jitter: see ``gaussian_entropy``.

        Returns:
            Scalar, in nats. Zero until the memory is full; a half of fewer than two rows is left
            out.
        """
        current, own_half = gather_rows(vectors), gather_rows(half)
        kept = gather_rows(present)
        entropies = []
        if self.is_full:
            for number in (0, 1):
                earlier = self.vectors[self.halves == number].to(vectors.dtype)
                rows = torch.cat([earlier, current[kept & (own_half == number)]])
                if len(rows) >= 2:
                    entropies.append(gaussian_entropy(rows, jitter=jitter))
        # The empty sum keeps the batch in the graph, so that every process takes part in backward.
        return sum(entropies, current.sum() * 0) / max(len(entropies), 1)
