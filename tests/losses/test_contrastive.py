"""InfoNCE: who is a row, who is a column, and what no row can see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tecafn.losses.contrastive import info_nce

EVERYONE = torch.ones(5, dtype=torch.bool)


def pair(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    return query, key


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_loss_is_the_mean_over_rows_of_a_softmax_over_columns(
    seed: int, temperature: float
) -> None:
    query, key = pair(seed)
    expected = 0.0
    for i in range(5):
        powers = []
        for j in range(5):
            cosine = query[i] @ key[j] / (query[i].norm() * key[j].norm())
            powers.append(math.exp(cosine.item() / temperature))
        expected -= math.log(powers[i] / sum(powers)) / 5
    got = info_nce(query, key, present=EVERYONE, temperature=temperature).loss
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_length_of_vectors_does_not_matter() -> None:
    query, key = pair(0)
    scales = torch.tensor([[0.1], [3.0], [1.0], [50.0], [2.0]], dtype=torch.float64)
    one = info_nce(query, key, present=EVERYONE, temperature=0.1).loss
    other = info_nce(query * scales, key / scales, present=EVERYONE, temperature=0.1).loss
    torch.testing.assert_close(one, other)


def test_absent_rows_change_nothing_whatever_they_hold() -> None:
    query, key = pair(1)
    present = torch.tensor([True, False, True, True, False])
    kept = info_nce(
        query[present], key[present], present=torch.ones(3, dtype=torch.bool), temperature=0.1
    )
    query[1], key[4] = 0.0, 100.0
    got = info_nce(query, key, present=present, temperature=0.1)
    torch.testing.assert_close(got.loss, kept.loss)
    assert got.candidates.tolist() == present.tolist()


def test_absent_rows_get_no_gradient_and_zero_vectors_give_finite_ones() -> None:
    query, key = pair(2)
    query[1] = key[1] = 0.0
    query.requires_grad_()
    key.requires_grad_()
    present = torch.tensor([True, False, True, True, True])
    info_nce(query, key, present=present, temperature=0.1).loss.backward()
    for gradient in (query.grad, key.grad):
        assert gradient is not None
        assert bool(gradient.isfinite().all())
        assert bool((gradient[1] == 0).all())
        assert bool((gradient[present] != 0).any(1).all())


@pytest.mark.parametrize("present", [[False] * 5, [False, True, False, False, False]])
def test_without_a_negative_the_loss_is_zero_and_so_is_its_gradient(present: list[bool]) -> None:
    query, key = (tensor.requires_grad_() for tensor in pair(0))
    loss = info_nce(query, key, present=torch.tensor(present), temperature=0.1).loss
    loss.backward()
    assert loss.item() == 0.0
    assert query.grad is not None
    assert bool((query.grad == 0).all())


def test_gradient_is_right() -> None:
    query, key = pair(3)
    present = torch.tensor([True, True, False, True, True])

    def loss(q: Tensor, k: Tensor) -> Tensor:
        return info_nce(q, k, present=present, temperature=0.5).loss

    assert torch.autograd.gradcheck(loss, (query.requires_grad_(), key.requires_grad_()))


def test_an_empty_share_of_a_batch_is_legal() -> None:
    empty = torch.zeros(0, 4)
    out = info_nce(empty, empty, present=torch.zeros(0, dtype=torch.bool), temperature=0.1)
    assert out.loss.item() == 0.0


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature: float) -> None:
    query, key = pair(0)
    with pytest.raises(ValueError, match=f"temperature must be > 0, got {temperature}"):
        info_nce(query, key, present=EVERYONE, temperature=temperature)
