import math
from typing import Any

import pytest
import torch
from torch import nn

from tecafn.training.config import TrainingConfig
from tecafn.training.schedules import Schedule


def make(num_steps: int = 10, **settings: Any) -> tuple[torch.optim.SGD, Schedule]:
    optimizer = torch.optim.SGD(
        [
            {"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0},
            {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.01},
        ]
    )
    return optimizer, Schedule(optimizer, config=TrainingConfig(**settings), num_steps=num_steps)


def rates(optimizer: torch.optim.Optimizer, schedule: Schedule, num_steps: int) -> list[float]:
    seen = []
    for _ in range(num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        schedule.after_step()
    return seen


def test_linear_rises_and_then_falls_to_zero_as_computed_by_hand() -> None:
    optimizer, schedule = make(10, schedule="linear", warmup_fraction=0.2)
    seen = rates(optimizer, schedule, 11)
    expected = [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    assert seen == pytest.approx(expected)


def test_cosine_falls_along_half_a_wave() -> None:
    optimizer, schedule = make(8, schedule="cosine")
    seen = rates(optimizer, schedule, 9)
    assert seen == pytest.approx([(1 + math.cos(math.pi * s / 8)) / 2 for s in range(9)])


def test_constant_stays_and_every_group_keeps_its_own_rate() -> None:
    optimizer, schedule = make(4, schedule="constant", warmup_fraction=0.25)
    assert rates(optimizer, schedule, 4) == pytest.approx([0.5, 1, 1, 1])
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.01]


def test_plateau_halves_after_each_run_of_stale_epochs() -> None:
    optimizer, schedule = make(schedule="plateau", plateau_patience=2)
    seen = []
    for improved in (True, False, False, False, True, False, False, False, False):
        schedule.after_epoch(improved=improved)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_warm_up_multiplies_the_halved_rate_of_plateau() -> None:
    optimizer, schedule = make(10, schedule="plateau", plateau_patience=1, warmup_fraction=0.4)
    assert rates(optimizer, schedule, 2) == pytest.approx([0.2, 0.4])
    schedule.after_epoch(improved=False)
    assert rates(optimizer, schedule, 3) == pytest.approx([0.3, 0.4, 0.5])


@pytest.mark.parametrize("seed", range(5))
def test_plateau_equals_reduce_lr_on_plateau_of_torch(seed: int) -> None:
    values = torch.rand(40, generator=torch.Generator().manual_seed(seed)).tolist()
    config = TrainingConfig(plateau_patience=3)
    optimizer, schedule = make(schedule="plateau", plateau_patience=3)
    other, _ = make()
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        other, factor=0.5, patience=2, threshold=0, eps=0
    )
    best = None
    for value in values:
        improved = config.improves(value, best)
        best = value if improved else best
        schedule.after_epoch(improved=improved)
        reference.step(value)
        assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]
    assert optimizer.param_groups[0]["lr"] < 0.01


def test_a_restored_schedule_gives_the_same_rate() -> None:
    optimizer, schedule = make(schedule="plateau", plateau_patience=1, warmup_fraction=0.5)
    rates(optimizer, schedule, 3)
    schedule.after_epoch(improved=False)
    fresh_optimizer, fresh = make(schedule="plateau", plateau_patience=1, warmup_fraction=0.5)
    fresh.load_state(schedule.state())
    assert fresh_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 1 / 3
