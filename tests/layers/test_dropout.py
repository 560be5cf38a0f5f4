"""Dropout by its own draws: how often, how scaled, how independent."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from tecafn.layers.dropout import Dropout, dropout

MANY = 200_000


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 0.9])
def test_elements_are_dropped_with_the_probability_and_the_mean_is_kept(
    probability: float,
) -> None:
    torch.manual_seed(0)
    values = dropout(torch.ones(MANY, dtype=torch.float64), probability)
    dropped = int((values == 0).sum())
    assert stats.binomtest(dropped, MANY, probability).pvalue > 1e-3
    kept = values[values != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - probability), rel=1e-3)


def test_the_four_numbers_of_one_draw_are_independent() -> None:
    torch.manual_seed(1)
    dropped = (dropout(torch.ones(MANY), 0.5) == 0).view(-1, 4).long()
    pattern = (dropped * torch.tensor([1, 2, 4, 8])).sum(1)
    assert stats.chisquare(pattern.bincount(minlength=16).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (0, 4), (2, 3, 5)])
def test_any_shape_and_a_gradient_through_the_same_mask(shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    values = torch.full(shape, 2.0, requires_grad=True)
    answer = dropout(values, 0.4)
    assert answer.shape == shape
    answer.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(answer.detach(), 2.0 * values.grad)


def test_masks_differ_from_call_to_call_and_repeat_with_the_seed() -> None:
    values = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(values, 0.5), dropout(values, 0.5)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(dropout(values, 0.5), first)


def test_dropout_is_for_training_only() -> None:
    module = Dropout(0.5)
    values = torch.ones(100)
    assert bool((module(values) == 0).any())
    assert module.eval()(values) is values
    assert Dropout(0.0)(values) is values


@pytest.mark.parametrize("probability", [-0.1, 1.0, 1.5])
def test_an_impossible_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=rf"dropout must be in \[0, 1\), got {probability}"):
        Dropout(probability)
