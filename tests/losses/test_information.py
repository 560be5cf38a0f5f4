"""Bounds of mutual information on Gaussians whose information is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tecafn.losses.information import HalvesMemory, gaussian_entropy, negative_log_density

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("normalised", [False, True])
def test_negative_log_density_is_a_mean_over_present_rows(seed: int, normalised: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean, log_variance, y = torch.randn(3, 5, 3, generator=generator, dtype=torch.float64)
    present = torch.tensor([True, False, True, True, False])
    expected = 0.0
    for row in (0, 2, 3):
        for d in range(3):
            variance = math.exp(log_variance[row, d].item())
            expected += (mean[row, d] - y[row, d]).item() ** 2 / (2 * variance)
            if normalised:
                expected += math.log(2 * math.pi * variance) / 2
    got = negative_log_density(mean, log_variance, y, present=present, normalised=normalised)
    assert got.item() == pytest.approx(expected / 3, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_is_that_of_the_gaussian(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    rows = torch.randn(200_000, 3, generator=generator, dtype=torch.float64) @ factor.T
    true = 1.5 * math.log(2 * math.pi * math.e) + math.log(abs(torch.linalg.det(factor).item()))
    assert gaussian_entropy(rows, jitter=0.0).item() == pytest.approx(true, abs=0.02)


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.9])
def test_bound_is_the_mutual_information_where_q_is_the_truth_and_below_it_elsewhere(
    correlation: float,
) -> None:
    """Standard normal x and y: I = -log(1 - r^2) / 2 a column."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 200_000, 2, generator=generator, dtype=torch.float64)
    y = correlation * x + math.sqrt(1 - correlation**2) * noise
    present = torch.ones(len(x), dtype=torch.bool)
    entropy = gaussian_entropy(y, jitter=0.0)
    true = -math.log(1 - correlation**2)  # two columns

    def bound(slope: float, variance: float) -> float:
        log_variance = torch.full_like(x, math.log(variance))
        density = negative_log_density(slope * x, log_variance, y, present=present, normalised=True)
        return (entropy - density).item()

    assert bound(correlation, 1 - correlation**2) == pytest.approx(true, abs=0.02)
    assert bound(correlation, 1.0) < true - 0.001
    assert bound(correlation / 2, 1 - correlation**2) < true - 0.01


@pytest.mark.parametrize(
    "rows",
    [torch.zeros(2, 4), torch.ones(5, 4), torch.arange(3.0).unsqueeze(1).expand(3, 4)],
    ids=["zero", "equal", "collinear"],
)
def test_a_singular_covariance_is_finite_and_so_is_its_gradient(rows: Tensor) -> None:
    rows = rows.clone().requires_grad_()
    value = gaussian_entropy(rows)
    value.backward()
    assert bool(value.isfinite())
    assert rows.grad is not None
    assert bool(rows.grad.isfinite().all())


def test_an_entropy_needs_two_rows() -> None:
    with pytest.raises(ValueError, match="an entropy needs >= 2 rows, got 1"):
        gaussian_entropy(torch.zeros(1, 3))


EVERYONE = torch.ones(6, dtype=torch.bool)
HALF = torch.tensor([1, 0, -1, 1, 0, 1])


def vectors(seed: int) -> Tensor:
    return torch.randn(6, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_memory_holds_the_last_rows_that_are_present_and_in_a_half() -> None:
    memory = HalvesMemory(4, dim=2).double()
    present = torch.tensor([True, True, True, False, True, True])
    memory.push(vectors(0), HALF, present)  # rows 0, 1, 4, 5
    assert memory.is_full
    assert torch.equal(memory.vectors, vectors(0)[[0, 1, 4, 5]])
    memory.push(vectors(1), HALF, torch.tensor([False] * 5 + [True]))
    assert torch.equal(memory.vectors[0], vectors(1)[5])
    assert torch.equal(memory.vectors[1:], vectors(0)[[1, 4, 5]])
    assert memory.halves.tolist() == [1, 0, 0, 1]
    memory.push(vectors(2), HALF, EVERYONE)  # five rows, one more than it holds
    kept = {tuple(row) for row in memory.vectors.tolist()}
    assert kept == {tuple(row) for row in vectors(2)[[1, 3, 4, 5]].tolist()}


def test_entropy_is_the_mean_of_the_halves_over_memory_and_batch() -> None:
    memory = HalvesMemory(5, dim=2).double()
    assert memory.entropy(vectors(1), HALF, EVERYONE).item() == 0.0
    memory.push(vectors(0), HALF, EVERYONE)
    present = torch.tensor([True, True, True, True, False, True])
    expected = 0.0
    for half, earlier, now in ((0, [1, 4], [1]), (1, [0, 3, 5], [0, 3, 5])):
        rows = torch.cat([vectors(0)[earlier], vectors(1)[now]])
        assert {int(HALF[row]) for row in earlier} == {half}
        centred = rows - rows.mean(0)
        covariance = centred.T @ centred / (len(rows) - 1) + 0.01 * torch.eye(2).double()
        determinant = covariance[0, 0] * covariance[1, 1] - covariance[0, 1] ** 2
        expected += (math.log(determinant.item()) / 2 + math.log(2 * math.pi * math.e)) / 2
    got = memory.entropy(vectors(1), HALF, present, jitter=0.01)
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_what_is_remembered_gets_no_gradient_and_a_half_of_one_row_is_left_out() -> None:
    memory = HalvesMemory(2, dim=2).double()
    memory.push(vectors(0), HALF, torch.tensor([True, False, False, True, False, False]))
    now = vectors(1).requires_grad_()
    present = torch.tensor([True, True, False, False, False, False])  # one row of half 0
    value = memory.entropy(now, HALF, present)
    rows = torch.cat([vectors(0)[[0, 3]], vectors(1)[:1]])
    assert value.item() == pytest.approx(gaussian_entropy(rows).item(), abs=1e-12)
    value.backward()
    assert now.grad is not None
    assert bool((now.grad[0] != 0).all())
    assert bool((now.grad[1:] == 0).all())


def test_a_memory_needs_a_place() -> None:
    with pytest.raises(ValueError, match="a memory holds >= 1 vectors, got 0"):
        HalvesMemory(0, dim=2)
