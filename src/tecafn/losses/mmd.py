"""Maximum mean discrepancy between representations and the standard normal distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from tecafn.core.parallel import gather_rows


def normal_mmd(vectors: Tensor, *, present: Tensor, variance: float) -> Tensor:
    """The squared discrepancy between the global batch's vectors and N(0, I), Gaussian kernel.

    With ``k(x, y) = exp(-|x - y|^2 / (2 variance))`` it is the mean of k over all pairs of vectors,
    minus twice the mean over a vector and the normal, plus the mean over two draws of the normal.
    The papers draw as many normal vectors as there are samples; both means over the normal have a
    closed form for this kernel, so nothing is drawn here: no noise, nothing to resume, and the same
    number on any number of processes.

    Args:
        vectors: (B, D).
        present: (B,) bool, rows that count.
        variance: of the kernel, > 0.

    Returns:
        Scalar >= 0, the same on every process; zero if no row counts.

    Raises:
        ValueError: ``variance`` <= 0.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator ...>
        >>> normal, all_rows = torch.randn(500, 2), torch.ones(500, dtype=torch.bool)
        >>> bool(normal_mmd(normal, present=all_rows, variance=1.0) < 0.01)
        True
        >>> bool(normal_mmd(normal + 2.0, present=all_rows, variance=1.0) > 0.1)
        True

    Source: Gretton et al. 2012, "A kernel two-sample test", eq. 5 (all pairs, a vector and itself
    included, so that it is never negative); MFM, Tsai et al. 2019, as the regulariser of a
    Wasserstein autoencoder.
    """
    if variance <= 0:
        raise ValueError(f"variance must be > 0, got {variance}")
    # Autocasting would take the distances' matrix product in half precision.
    with torch.autocast(vectors.device.type, enabled=False):
        wide = vectors if vectors.dtype == torch.float64 else vectors.float()
        rows = gather_rows(wide)
        counts = gather_rows(present).to(rows.dtype)
        # A row that does not count may hold anything; its zero weight would keep a NaN.
        rows = torch.where(counts.unsqueeze(1) > 0, rows, 0.0)
        dim = rows.shape[1]
        weights = counts / counts.sum().clamp(min=1)
        lengths = rows.square().sum(1)
        distances = (lengths.unsqueeze(1) + lengths - 2 * rows @ rows.T).clamp(min=0)
        pairs = weights @ torch.exp(-distances / (2 * variance)) @ weights
        to_normal = (variance / (variance + 1)) ** (dim / 2) * (
            weights @ torch.exp(-lengths / (2 * (variance + 1)))
        )
        between_normals = (variance / (variance + 2)) ** (dim / 2)
        discrepancy: Tensor = pairs - 2 * to_normal + between_normals * weights.sum()
    return discrepancy
