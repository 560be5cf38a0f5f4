"""The discrepancy to N(0, I) against sums over vectors and over quadrature nodes of the normal."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tecafn.losses.mmd import normal_mmd

SEEDS = (0, 1, 2)


def kernel(x: list[float], y: list[float], variance: float) -> float:
    distance = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    return math.exp(-distance / (2 * variance))


def normal_nodes(dim: int) -> list[tuple[float, list[float]]]:
    """Weights and points of Gauss-Hermite quadrature for N(0, I)."""
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    return [
        (float(np.prod([weights[i] for i in chosen])), [float(points[i]) for i in chosen])
        for chosen in itertools.product(range(len(points)), repeat=dim)
    ]


@pytest.mark.parametrize("variance", [0.8, 3.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_discrepancy_is_the_three_double_sums(seed: int, variance: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(6, 2, generator=generator, dtype=torch.float64) + 0.5
    present = torch.tensor([True, True, False, True, True, False])
    kept = vectors[present].tolist()
    nodes = normal_nodes(2)
    pairs = sum(kernel(x, y, variance) for x in kept for y in kept) / len(kept) ** 2
    cross = sum(w * kernel(x, y, variance) for x in kept for w, y in nodes) / len(kept)
    # The kernel factorises over columns, and so does its mean over two draws.
    line = normal_nodes(1)
    column = sum(v * w * kernel(x, y, variance) for v, x in line for w, y in line)
    expected = pairs - 2 * cross + column**2
    got = normal_mmd(vectors, present=present, variance=variance)
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_discrepancy_falls_as_vectors_become_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    everyone = torch.ones(400, dtype=torch.bool)
    spread = [
        normal_mmd(scale * normal, present=everyone, variance=3.0).item() for scale in (3, 2, 1)
    ]
    assert spread[0] > spread[1] > 10 * spread[2] > 0
    assert normal_mmd(0 * normal, present=everyone, variance=3.0).item() > 10 * spread[2]


def test_rows_that_do_not_count_are_invisible_even_as_nan() -> None:
    vectors = torch.tensor([[0.5], [float("nan")]], dtype=torch.float64, requires_grad=True)
    present = torch.tensor([True, False])
    got = normal_mmd(vectors, present=present, variance=1.0)
    alone = normal_mmd(vectors[:1], present=present[:1], variance=1.0)
    torch.testing.assert_close(got, alone)
    (gradient,) = torch.autograd.grad(got, vectors)
    assert gradient[1].item() == 0.0
    assert gradient[0].item() != 0.0


def test_no_row_means_zero() -> None:
    nobody = torch.zeros(3, dtype=torch.bool)
    assert normal_mmd(torch.ones(3, 2), present=nobody, variance=1.0).item() == 0.0
    assert normal_mmd(torch.ones(0, 2), present=nobody[:0], variance=1.0).item() == 0.0


def test_the_gradient_is_the_functions() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    present = torch.tensor([True, True, False, True])
    assert torch.autograd.gradcheck(
        lambda v: normal_mmd(v, present=present, variance=2.0), (vectors,)
    )


def test_a_variance_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="variance must be > 0, got 0"):
        normal_mmd(torch.ones(1, 1), present=torch.ones(1, dtype=torch.bool), variance=0.0)
