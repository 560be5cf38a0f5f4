from typing import Any

import pytest
import torch
from torch import nn
from training_toys import TwoPhaseScheme

from tecafn.core.batch import Batch
from tecafn.core.errors import UserError
from tecafn.core.output import Losses, Progress
from tecafn.core.scheme import Phase
from tecafn.training.config import TrainingConfig
from tecafn.training.optimizers import (
    build_optimizer,
    learning_rates,
    load_optimizer_tensors,
    optimizer_tensors,
    refuse_unknown_groups,
)


def phase_of(*parameters: nn.Parameter) -> Phase:
    def loss(batch: Batch, progress: Progress) -> Losses:
        raise AssertionError

    return Phase("main", loss, {"main": parameters[:1], "text_encoder": parameters[1:]})


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2, generator=generator)) for _ in range(2)]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_steps_equal_the_plain_optimizer_of_torch(name: Any) -> None:
    ours, theirs = parameters(), parameters()
    config = TrainingConfig(optimizer=name, weight_decay=0.1)
    optimizer = build_optimizer(phase_of(*ours), config)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    reference = kind(
        [{"params": theirs[:1], "lr": 1e-3}, {"params": theirs[1:], "lr": 5e-5}], weight_decay=0.1
    )
    for _ in range(3):
        for p in (*ours, *theirs):
            p.grad = p.detach().cos()
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    assert learning_rates(optimizer) == {"main": 1e-3, "text_encoder": 5e-5}


def test_memory_survives_being_taken_out_and_put_back() -> None:
    first, second = parameters(), parameters()
    one = build_optimizer(phase_of(*first), TrainingConfig())
    for p in first:
        p.grad = p.detach().cos()
    one.step()
    two = build_optimizer(phase_of(*second), TrainingConfig())
    memory = {name: tensor.clone() for name, tensor in optimizer_tensors(one).items()}
    load_optimizer_tensors(two, memory)
    with torch.no_grad():
        for p, q in zip(first, second, strict=True):
            q.copy_(p)
    for p in (*first, *second):
        p.grad = p.detach().sin()
    one.step()
    two.step()
    assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))


def test_memory_of_another_network_is_one_line() -> None:
    optimizer = build_optimizer(phase_of(*parameters()), TrainingConfig())
    with pytest.raises(UserError, match=r"'1/exp_avg' of shape \(9, 9\)") as caught:
        load_optimizer_tensors(optimizer, {"1/exp_avg": torch.zeros(9, 9)})
    assert "\n" not in str(caught.value)


def test_a_rate_for_a_group_that_no_phase_has_is_refused() -> None:
    phases = TwoPhaseScheme().phases()
    refuse_unknown_groups(phases, TrainingConfig())
    with pytest.raises(UserError, match="'mian': did you mean 'main'"):
        refuse_unknown_groups(phases, TrainingConfig(learning_rates={"mian": 1e-3}))
