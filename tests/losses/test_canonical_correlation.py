"""Canonical correlations against matrix roots and a direct singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tecafn.losses.canonical_correlation import canonical_correlation

SEEDS = (0, 1, 2)
Matrix = NDArray[np.float64]


def views(seed: int, num_rows: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(num_rows, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_rows, 3, generator=generator, dtype=torch.float64)
    return first, first[:, :3] @ torch.diag(torch.tensor([1.0, -2.0, 0.5]).double()) + noise


def inverse_root(matrix: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(matrix)
    root: Matrix = vectors @ np.diag(values**-0.5) @ vectors.T
    return root


def direct(first: Matrix, second: Matrix, regularisation: float) -> float:
    """Andrew et al. 2013, Sect. 3: T = S11^(-1/2) S12 S22^(-1/2), its trace norm."""
    first, second = first - first.mean(0), second - second.mean(0)
    n = len(first) - 1
    s11 = first.T @ first / n + regularisation * np.eye(first.shape[1])
    s22 = second.T @ second / n + regularisation * np.eye(second.shape[1])
    t = inverse_root(s11) @ (first.T @ second / n) @ inverse_root(s22)
    return float(np.linalg.svd(t, compute_uv=False).sum())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("regularisation", [1e-4, 0.1])
@pytest.mark.parametrize("num_rows", [3, 12, 40])
def test_it_is_the_trace_norm_of_the_whitened_covariance(
    seed: int, regularisation: float, num_rows: int
) -> None:
    first, second = views(seed, num_rows)
    present = torch.ones(num_rows, dtype=torch.bool)
    got = canonical_correlation(first, second, present=present, regularisation=regularisation)
    expected = direct(first.numpy(), second.numpy(), regularisation)
    assert got.item() == pytest.approx(expected, abs=1e-9)


def test_rows_that_lack_a_side_do_not_count() -> None:
    first, second = views(0)
    present = torch.tensor([True, False, *[True] * 10])
    first[1] = float("nan")
    got = canonical_correlation(first, second, present=present).item()
    kept = present.numpy()
    assert got == pytest.approx(direct(first.numpy()[kept], second.numpy()[kept], 1e-4), abs=1e-9)


def test_views_that_are_turned_into_each_other_are_fully_correlated() -> None:
    first, _ = views(1, 40)
    turned = first @ torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double() + 5.0
    present = torch.ones(40, dtype=torch.bool)
    assert canonical_correlation(first, turned, present=present).item() == pytest.approx(4, abs=0.1)
    unlike = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1)).double()
    nothing = canonical_correlation(
        unlike[:, :1], unlike[:, 1:], present=torch.ones(4000, dtype=torch.bool)
    )
    assert nothing.item() < 0.05


@pytest.mark.parametrize("num_rows", [0, 1])
def test_fewer_than_two_rows_have_no_correlation(num_rows: int) -> None:
    first, second = (view.requires_grad_() for view in views(0))
    present = torch.zeros(12, dtype=torch.bool)
    present[:num_rows] = True
    value = canonical_correlation(first, second, present=present)
    value.backward()
    assert value.item() == 0.0
    assert first.grad is not None
    assert bool((first.grad == 0).all())


@pytest.mark.parametrize("num_rows", [4, 12])
def test_gradient_is_right(num_rows: int) -> None:
    """With fewer rows than columns the covariance has no full rank; the gradient still holds."""
    first, second = (view.requires_grad_() for view in views(2, num_rows))
    present = torch.ones(num_rows, dtype=torch.bool)

    def value(a: Tensor, b: Tensor) -> Tensor:
        return canonical_correlation(a, b, present=present, regularisation=0.05)

    assert torch.autograd.gradcheck(value, (first, second))


def test_equal_rows_have_finite_gradients() -> None:
    first = torch.ones(6, 3).requires_grad_()
    second = torch.arange(12.0).view(6, 2)
    value = canonical_correlation(first, second, present=torch.ones(6, dtype=torch.bool))
    value.backward()
    assert value.dtype == torch.float32
    assert first.grad is not None
    assert bool(first.grad.isfinite().all())


def test_regularisation_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"regularisation must be > 0, got 0.0"):
        canonical_correlation(
            *views(0), present=torch.ones(12, dtype=torch.bool), regularisation=0.0
        )
