"""Moments, correlations and divergences against slow loops written from the papers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tecafn.losses.discrepancy import (
    central_moment_discrepancy,
    cosine_distance,
    difference,
    softmax_divergence,
)

SEEDS = (0, 1, 2)
EVERYONE = torch.ones(6, dtype=torch.bool)


def pair(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.rand(2, 6, 3, generator=generator, dtype=torch.float64)
    return first, second.square()


def slow_cmd(first: list[list[float]], second: list[list[float]], num_moments: int) -> float:
    def column_moments(rows: list[list[float]], power: int) -> list[float]:
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        if power == 1:
            return means
        return [
            sum((row[d] - means[d]) ** power for row in rows) / len(rows) for d in range(len(means))
        ]

    return sum(
        math.dist(column_moments(first, k), column_moments(second, k))
        for k in range(1, num_moments + 1)
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_moments", [1, 2, 5])
def test_cmd_is_the_sum_of_the_distances_of_moments(seed: int, num_moments: int) -> None:
    first, second = pair(seed)
    got = central_moment_discrepancy(
        first, second, first_present=EVERYONE, second_present=EVERYONE, num_moments=num_moments
    )
    expected = slow_cmd(first.tolist(), second.tolist(), num_moments)
    assert got.item() == pytest.approx(expected, abs=1e-12)
    assert got.item() > 0.01


def test_cmd_counts_each_sides_own_rows() -> None:
    first, second = pair(0)
    a = torch.tensor([True, True, False, True, False, True])
    b = torch.tensor([False, True, True, True, False, False])
    first[2], second[0] = 100.0, float("nan")
    got = central_moment_discrepancy(first, second, first_present=a, second_present=b)
    expected = slow_cmd(first[a].tolist(), second[b].tolist(), 5)
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_cmd_of_the_same_rows_is_zero_and_so_is_its_gradient() -> None:
    first = pair(1)[0].requires_grad_()
    value = central_moment_discrepancy(
        first, first.detach().clone(), first_present=EVERYONE, second_present=EVERYONE
    )
    value.backward()
    assert value.item() == 0.0
    assert first.grad is not None
    assert bool(first.grad.isfinite().all())


@pytest.mark.parametrize("present", [[], [3]])
def test_too_few_rows_cost_nothing(present: list[int]) -> None:
    first, second = (values.requires_grad_() for values in pair(0))
    rows = torch.zeros(6, dtype=torch.bool)
    rows[present] = True
    total = difference(first, second, present=rows)
    if not present:
        total = total + central_moment_discrepancy(
            first, second, first_present=rows, second_present=EVERYONE
        )
        total = total + softmax_divergence(first, second, present=rows)
    total.backward()
    assert total.item() == 0.0
    assert first.grad is not None
    assert bool((first.grad == 0).all())


def test_cmd_needs_a_moment() -> None:
    with pytest.raises(ValueError, match="num_moments must be >= 1, got 0"):
        central_moment_discrepancy(
            *pair(0), first_present=EVERYONE, second_present=EVERYONE, num_moments=0
        )


def slow_difference(first: list[list[float]], second: list[list[float]]) -> float:
    def prepared(rows: list[list[float]]) -> list[list[float]]:
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        centred = [[x - m for x, m in zip(row, means, strict=True)] for row in rows]
        return [[x / (math.hypot(*row) + 1e-6) for x in row] for row in centred]

    one, two = prepared(first), prepared(second)
    total = 0.0
    for d in range(len(one[0])):
        for e in range(len(two[0])):
            total += sum(a[d] * b[e] for a, b in zip(one, two, strict=True)) ** 2
    return total / (len(one[0]) * len(two[0]))


@pytest.mark.parametrize("seed", SEEDS)
def test_difference_is_the_mean_square_of_correlations(seed: int) -> None:
    first, second = pair(seed)
    second = torch.cat([second, first[:, :1]], dim=1)  # other widths
    present = torch.tensor([True, True, False, True, True, True])
    first[2] = float("nan")
    got = difference(first, second, present=present).item()
    expected = slow_difference(first[present].tolist(), second[present].tolist())
    assert got == pytest.approx(expected, abs=1e-12)


def test_orthogonal_columns_have_no_difference_loss() -> None:
    first = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    second = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    present = torch.ones(4, dtype=torch.bool)
    assert difference(first, second, present=present).item() == pytest.approx(0.0, abs=1e-20)
    assert difference(first, first, present=present).item() > 1.0


def test_equal_rows_have_finite_gradients() -> None:
    first = torch.ones(6, 3).requires_grad_()
    difference(first, pair(0)[1].float(), present=EVERYONE).backward()
    assert first.grad is not None
    assert bool(first.grad.isfinite().all())


@pytest.mark.parametrize("seed", SEEDS)
def test_softmax_divergence_is_the_mean_of_both_kl_divergences(seed: int) -> None:
    first, second = pair(seed)
    present = torch.tensor([True, False, True, True, True, False])
    expected = 0.0
    for row in present.nonzero().flatten().tolist():
        p, q = first[row].softmax(0).tolist(), second[row].softmax(0).tolist()
        for a, b in zip(p, q, strict=True):
            expected += (a * math.log(a / b) + b * math.log(b / a)) / 2
    got = softmax_divergence(first, second, present=present).item()
    assert got == pytest.approx(expected / 4, abs=1e-12)
    assert got > 0


def test_gradients_are_right() -> None:
    first, second = (values.requires_grad_() for values in pair(2))
    present = torch.tensor([True, True, False, True, True, True])

    def losses(a: Tensor, b: Tensor) -> Tensor:
        return (
            central_moment_discrepancy(a, b, first_present=present, second_present=EVERYONE)
            + cosine_distance(a, b, present=present)
            + softmax_divergence(a, b, present=present)
        )

    assert torch.autograd.gradcheck(losses, (first, second))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_gradient_of_the_difference_passes_through_the_lengths_of_rows(seed: int) -> None:
    first, second = (values.requires_grad_() for values in pair(seed))
    lengths = [(v - v.mean(0)).norm(dim=1, keepdim=True).detach() + 1e-6 for v in (first, second)]
    sides = [(v - v.mean(0)) / n for v, n in zip((first, second), lengths, strict=True)]
    expected = torch.autograd.grad((sides[0].T @ sides[1]).square().mean(), (first, second))
    value = difference(first, second, present=EVERYONE)
    for got, wanted in zip(torch.autograd.grad(value, (first, second)), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_cosine_distance_is_the_mean_of_one_minus_the_cosine(seed: int) -> None:
    first, second = pair(seed)
    present = torch.tensor([True, False, True, True, True, False])
    expected = 0.0
    for row in present.nonzero().flatten().tolist():
        a, b = first[row].tolist(), second[row].tolist()
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        expected += 1 - dot / (math.hypot(*a) * math.hypot(*b))
    got = cosine_distance(first, second, present=present).item()
    assert got == pytest.approx(expected / 4, abs=1e-12)
