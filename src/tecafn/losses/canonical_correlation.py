"""Deep canonical correlation: how much of two views is linearly the same."""

from __future__ import annotations

import torch
from torch import Tensor

from tecafn.losses.discrepancy import gathered

# Singular values below it are rounding: with fewer rows than columns most of them are zero, and
# their singular vectors, hence their gradients, are arbitrary.
_NO_CORRELATION = 1e-6


def canonical_correlation(
    first: Tensor, second: Tensor, *, present: Tensor, regularisation: float = 1e-4
) -> Tensor:
    """The sum of the canonical correlations of two views, to be maximised.

    The trace norm of ``S11^(-1/2) S12 S22^(-1/2)``, S the covariances of the views over the global
    batch with ``regularisation`` added to the diagonals of S11 and S22. Whitened by Cholesky
    factors instead of matrix roots: they differ by rotations, which change no singular value, and
    have gradients also where eigenvalues coincide. Computed in float64.

    Args:
        first: (B, D), one view.
        second: (B, E), the other.
        present: (B,) bool, rows that have both.
        regularisation: r > 0.

    Returns:
        Scalar in [0, min(D, E, N - 1)]; zero with fewer than two rows.

    Raises:
        ValueError: ``regularisation`` <= 0.

    Example:
        >>> view = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, -1.0]])
        >>> turned = view @ torch.tensor([[0.0, 3.0], [-2.0, 1.0]])
        >>> all_rows = torch.ones(4, dtype=torch.bool)
        >>> round(canonical_correlation(view, turned, present=all_rows).item(), 3)
        2.0

    Source: Andrew et al. 2013, "Deep canonical correlation analysis", who regularise the diagonal,
    too; ICCN, Sun et al. 2020.
    """
    if regularisation <= 0:
        raise ValueError(f"regularisation must be > 0, got {regularisation}")
    one, two = gathered(first, present).double(), gathered(second, present).double()
    if len(one) < 2:
        return (one.sum() * 0 + two.sum() * 0).to(first.dtype)
    one, two = one - one.mean(0), two - two.mean(0)
    scale = 1 / (len(one) - 1)
    factors = []
    for view in (one, two):
        diagonal = regularisation * torch.eye(view.shape[1], dtype=view.dtype, device=view.device)
        factors.append(torch.linalg.cholesky(scale * view.T @ view + diagonal))
    across = scale * one.T @ two  # (D, E)
    half = torch.linalg.solve_triangular(factors[0], across, upper=False)  # L1^-1 S12
    whitened = torch.linalg.solve_triangular(factors[1], half.T, upper=False)  # (E, D)
    values: Tensor = torch.linalg.svdvals(whitened)
    return values[values > _NO_CORRELATION].sum().to(first.dtype)
