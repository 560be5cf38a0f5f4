"""How alike, or how unlike, two sets of representations are: moments, correlations, divergences.

Every one of them is over the global batch and over the rows that have what is compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from tecafn.core.modality import Modality
from tecafn.core.parallel import gather_rows, mean_over_rows


def gathered(values: Tensor, present: Tensor) -> Tensor:
    """(N, D): the rows of all processes that are ``present``, with gradients to their owners.

    A term made of these alike on every process needs no scaling: the backward pass sums over
    processes what their gradients' mean then divides.
    """
    return gather_rows(values)[gather_rows(present)]


def central_moment_discrepancy(
    first: Tensor,
    second: Tensor,
    *,
    first_present: Tensor,
    second_present: Tensor,
    num_moments: int = 5,
) -> Tensor:
    """CMD: distance of means plus distances of the 2nd to K-th central moments.

    Args:
        first: (B, D), columns in [0, 1], so that the interval's length, which the paper divides by,
            is 1.
        second: (B, D), likewise.
        first_present: (B,) bool, rows that have ``first``.
        second_present: (B,) bool, rows that have ``second``.
        num_moments: K >= 1.

    Returns:
        Scalar >= 0; zero where one of the two has no row.

    Raises:
        ValueError: ``num_moments`` < 1.

    Example:
        >>> both = torch.ones(2, dtype=torch.bool)
        >>> one, two = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [0.5]])
        >>> value = central_moment_discrepancy(
        ...     one, two, first_present=both, second_present=both, num_moments=2)
        >>> value.item()  # equal means, variances 1/4 and 0
        0.25

    Source: Zellinger et al. 2017, "Central moment discrepancy (CMD) for domain-invariant
    representation learning"; MISA, Hazarika et al. 2020, in its public code with K = 5.
    """
    if num_moments < 1:
        raise ValueError(f"num_moments must be >= 1, got {num_moments}")
    one, two = gathered(first, first_present), gathered(second, second_present)
    if not len(one) or not len(two):
        return one.sum() * 0 + two.sum() * 0
    means = one.mean(0), two.mean(0)
    distance: Tensor = torch.linalg.vector_norm(means[0] - means[1])
    centred = one - means[0], two - means[1]
    for power in range(2, num_moments + 1):
        moments = centred[0].pow(power).mean(0), centred[1].pow(power).mean(0)
        distance = distance + torch.linalg.vector_norm(moments[0] - moments[1])
    return distance


def difference(first: Tensor, second: Tensor, *, present: Tensor) -> Tensor:
    """How correlated two representations are, column by column: zero where they are orthogonal.

    Args:
        first: (B, D), one representation.
        second: (B, E), the other.
        present: (B,) bool, rows that have both.

    Returns:
        The mean over D x E of the squares of ``X^T Y``; the columns of X and Y have zero mean and
        then their rows length one. Zero with fewer than two rows.

    Example:
        >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([[2.0], [-2.0]])
        >>> round(difference(x, y, present=torch.ones(2, dtype=torch.bool)).item(), 4)
        4.0

    Source: MISA, Hazarika et al. 2020; Bousmalis et al. 2016. The print has the squared Frobenius
    norm, the sum; the public code, whose weight 0.3 we take, has the mean, and so do we. As there,
    the rows' lengths are constants: no gradient passes through them.
    """
    one, two = gathered(first, present), gathered(second, present)
    if len(one) < 2:
        return one.sum() * 0 + two.sum() * 0
    return (_rows_of_length_one(one).T @ _rows_of_length_one(two)).square().mean()


def subspace_differences(
    private: Mapping[Modality, Tensor],
    shared: Mapping[Modality, Tensor],
    *,
    present: Mapping[Modality, Tensor],
) -> Tensor:
    """``difference`` of each modality's two vectors, and of every two private ones, summed.

    Args:
        private: (B, D) of each modality.
        shared: (B, D) of each modality.
        present: (B,) bool, which samples have it.

    Source: MISA, Hazarika et al. 2020, its difference loss.
    """
    unlike = [difference(private[m], shared[m], present=present[m]) for m in private] + [
        difference(private[one], private[other], present=present[one] & present[other])
        for one, other in itertools.combinations(private, 2)
    ]
    return torch.stack(unlike).sum()


def _rows_of_length_one(values: Tensor) -> Tensor:
    centred = values - values.mean(0)
    length: Tensor = torch.linalg.vector_norm(centred.detach(), dim=1, keepdim=True)
    return centred / (length + 1e-6)


def softmax_divergence(first: Tensor, second: Tensor, *, present: Tensor) -> Tensor:
    """KL divergence between what two vectors say as distributions, both ways.

    Args:
        first: (B, D), each row the logits of a distribution over D.
        second: (B, D), likewise.
        present: (B,) bool, rows that have both.

    Returns:
        The mean over rows of ``(KL(p | q) + KL(q | p)) / 2``; zero if no row has both.

    Example:
        >>> one = torch.zeros(1, 2)
        >>> softmax_divergence(one, one + 3.0, present=torch.tensor([True])).item()
        0.0

    Source: TMBL, Huang et al. 2024, names a KL divergence as its similarity loss, and half of it
    each way is its public code's; the softmax is ours, that code takes the vectors as they are.
    """
    p, q = functional.log_softmax(first, dim=-1), functional.log_softmax(second, dim=-1)
    # KL(p | q) + KL(q | p) in one sum.
    rows = ((p.exp() - q.exp()) * (p - q)).sum(-1) / 2
    return mean_over_rows(rows, present)


def cosine_distance(first: Tensor, second: Tensor, *, present: Tensor) -> Tensor:
    """One minus the cosine between two vectors.

    Args:
        first: (B, D).
        second: (B, D).
        present: (B,) bool, rows that have both.

    Returns:
        The mean over rows, in [0, 2]; zero if no row has both.

    Example:
        >>> one = torch.tensor([[1.0, 0.0]])
        >>> cosine_distance(one, torch.tensor([[0.0, 2.0]]), present=torch.tensor([True])).item()
        1.0

    Source: TMBL, Huang et al. 2024, the similarity loss of its public code.
    """
    return mean_over_rows(1 - functional.cosine_similarity(first, second, dim=-1), present)
