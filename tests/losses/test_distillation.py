"""Distillation in loops, and momentum copies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tecafn.losses.distillation import (
    MomentumCopy,
    adaptive_rate,
    class_distillation,
    score_distillation,
)

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_and_softened_classes_are_compared_row_by_row(seed: int) -> None:
    torch.manual_seed(seed)
    student, teacher = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    defined = torch.tensor([True, False, True, True, False])
    temperature, apart, divergences = 2.0, [], []
    for row in (0, 2, 3):
        apart.append(abs(student[row, 0].item() - teacher[row, 0].item()))
        shares = []
        for logits in (teacher[row].tolist(), student[row].tolist()):
            powers = [math.exp(value / temperature) for value in logits]
            shares.append([power / sum(powers) for power in powers])
        divergences.append(sum(p * math.log(p / q) for p, q in zip(*shares, strict=True)))
    got = score_distillation(student[:, 0], teacher[:, 0], defined=defined)
    assert got.item() == pytest.approx(sum(apart) / 3, abs=1e-12)
    got = class_distillation(student, teacher, defined=defined, temperature=temperature)
    assert got.item() == pytest.approx(4 * sum(divergences) / 3, abs=1e-12)


def test_the_teacher_gets_no_gradient() -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    defined = torch.ones(4, dtype=torch.bool)
    loss = class_distillation(student, teacher, defined=defined, temperature=1.0)
    loss = loss + score_distillation(student[:, 0], teacher[:, 0], defined=defined)
    torch.autograd.backward(loss)
    assert teacher.grad is None
    assert student.grad is not None
    assert bool((student.grad != 0).any())


def test_a_temperature_of_zero_is_refused() -> None:
    logits, defined = torch.zeros(1, 2), torch.tensor([True])
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        class_distillation(logits, logits, defined=defined, temperature=0.0)


def test_a_copy_follows_without_being_trained_and_without_dropout() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).double()
    follower = MomentumCopy(source)
    follower.train()
    assert not any(p.requires_grad for p in follower.parameters())
    assert not any(module.training for module in follower.modules())
    before = [p.clone() for p in follower.parameters()]
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter))
    follower.move(source, rate=0.3)
    for old, new, goal in zip(before, follower.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(new, 0.7 * old + 0.3 * goal)
    assert all(p.requires_grad for p in source.parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(1.0, 1.0, 0.1), (0.0, 2.0, 0.2), (2.0, 0.0, 0.0), (0.0, 0.0, 0.1)],
)
def test_a_copy_moves_further_the_better_the_student_is(
    student: float, teacher: float, expected: float
) -> None:
    # The second row would turn the answer around, if it counted.
    rate = adaptive_rate(
        torch.tensor([student, 50.0 * teacher]),
        torch.tensor([teacher, 50.0 * student]),
        torch.zeros(2),
        defined=torch.tensor([True, False]),
        momentum=0.9,
    )
    assert rate == pytest.approx(expected)
