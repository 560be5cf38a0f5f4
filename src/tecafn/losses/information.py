"""Mutual information between representations, bounded from below."""

from __future__ import annotations

from torch import Tensor

from tecafn.core.parallel import mean_over_rows


def negative_log_density(
    mean: Tensor, log_variance: Tensor, target: Tensor, *, present: Tensor
) -> Tensor:
    """The data term of the Barber-Agakov bound, to be minimised: -E log q(y | x) up to constants.

    As MMIM, and TeCaFN's public code after it, compute it: the Gaussian's own normalisation,
    ``log_variance / 2``, is left out, and so is the entropy of y.

    Args:
        mean, log_variance: (B, D) of q(y | x).
        target: (B, D), y.
        present: (B,) bool, rows that have x and y.

    Returns:
        The mean over the present rows of the global batch of ``(mean - y)^2 / (2 variance)``
        summed over columns; zero if there are none.

    Example:
        >>> import torch
        >>> zero, two = torch.zeros(1, 3), torch.full((1, 3), 2.0)
        >>> present = torch.tensor([True])
        >>> negative_log_density(zero, zero, two, present=present).item()
        6.0

    Source: MMIM, Han et al. 2021, eq. 5-6; Barber and Agakov 2003.
    """
    rows = ((mean - target).square() / 2 * (-log_variance).exp()).sum(-1)
    return mean_over_rows(rows, present)
