"""Attention with dropout on a CPU: the plain formula under the same draws, gradients included."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tecafn.layers.attention import MultiHeadAttention
from tecafn.layers.cpu_attention import CpuAttention, parts_of
from tecafn.layers.dropout import dropout

PROBABILITY = 0.3

Heads = tuple[Tensor, Tensor, Tensor]


def heads(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Heads, Tensor]:
    """Query (2, 3, 4, 2), key and value (2, 3, 5, 2) as views, and a mask with holes."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 4, 3, 2), (2, 5, 3, 2), (2, 5, 3, 2))
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).transpose(1, 2)
        for shape in shapes
    ]
    allowed = torch.tensor([[True, False, True, True, False], [False, True, True, False, True]])
    query, key, value = (x.detach().requires_grad_() for x in inputs)
    return (query, key, value), allowed[:, None, None, :]


def plain(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Softmax, dropout of its weights, weighted sum, one operation after another."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return dropout(weights, PROBABILITY) @ value


@pytest.mark.parametrize("kept", [0, 10_000])
@pytest.mark.parametrize("part", [1, 100, 10_000])
@pytest.mark.parametrize(("seed", "narrow"), [(0, 8), (1, 8), (2, 1)])  # heads are 2 wide
def test_answer_and_gradients_are_those_of_the_plain_formula(
    seed: int, narrow: int, part: int, kept: int
) -> None:
    attend = CpuAttention(narrow=narrow, weights_per_part=part, weights_kept=kept)
    inputs, allowed = heads(seed)
    found = []
    for compute in (
        lambda q, k, v: attend(q, k, v, allowed, PROBABILITY),
        lambda q, k, v: plain(q, k, v, allowed),
    ):
        torch.manual_seed(seed)
        answer = compute(*inputs)
        weight = torch.randn(answer.shape, generator=torch.Generator().manual_seed(9)).double()
        found.append((answer, *torch.autograd.grad(answer, inputs, weight)))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kept", [0, 10_000])
@pytest.mark.parametrize("factor", [1.0, 6.0, 1e3, 1e6])
def test_scores_that_overflow_an_exponential_are_like_any_other(factor: float, kept: int) -> None:
    attend = CpuAttention(weights_kept=kept)
    whole, allowed = heads(0, torch.float32)
    inputs = [(x.detach() * factor).requires_grad_() for x in whole]
    found = []
    for compute in (
        lambda q, k, v: attend(q, k, v, allowed, PROBABILITY),
        lambda q, k, v: plain(q.double(), k.double(), v.double(), allowed).float(),
    ):
        torch.manual_seed(1)
        answer = compute(*inputs)
        found.append((answer, *torch.autograd.grad(answer.sum(), inputs)))
    for ours, expected in zip(*found, strict=True):
        size = expected.detach().abs().max().item()
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * size + 1e-6)


@pytest.mark.parametrize(
    ("safe", "part", "kept"),
    [
        (60.0, 1, 0),
        (0.0, 10_000, 10_000),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product((0.0, 60.0), (1, 10_000), (0, 10_000))
            if case not in {(60.0, 1, 0), (0.0, 10_000, 10_000)}
        ),
    ],
)
def test_gradients_and_their_gradients_are_those_of_finite_differences(
    safe: float, part: int, kept: int
) -> None:
    attend = CpuAttention(safe_exponent=safe, weights_per_part=part, weights_kept=kept)
    inputs, allowed = heads(3)

    def compute(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        torch.manual_seed(4)  # the same draws in every call
        return attend(query, key, value, allowed, PROBABILITY)

    assert gradcheck(compute, inputs)
    assert gradgradcheck(compute, inputs)


def test_under_autocast_it_stays_bfloat16_and_near_the_float32_answer() -> None:
    inputs, allowed = heads(5, torch.bfloat16)
    torch.manual_seed(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = CpuAttention()(*inputs, allowed, PROBABILITY)
    gradients = torch.autograd.grad(answer.float().square().sum(), inputs)
    assert {answer.dtype, *(g.dtype for g in gradients)} == {torch.bfloat16}
    query, key, value = (x.detach().float().requires_grad_() for x in inputs)
    wide = (query, key, value)
    torch.manual_seed(6)
    expected = plain(*wide, allowed)
    of_wide = torch.autograd.grad(expected.square().sum(), wide)
    torch.testing.assert_close(answer.float(), expected, rtol=0.02, atol=0.02)
    for ours, theirs in zip(gradients, of_wide, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.05, atol=0.05)


def test_a_training_step_on_long_sequences_keeps_about_a_byte_per_weight() -> None:
    rows, length, num_heads = 4, 300, 3
    module = MultiHeadAttention(6, num_heads=num_heads, dropout=0.1)
    frames = torch.randn(rows, length, 6)
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        module(frames, frames, torch.ones(rows, length, dtype=torch.bool))
    num_weights = rows * num_heads * length**2
    assert num_weights > CpuAttention().weights_kept
    assert num_weights <= sum(kept.values()) < 1.5 * num_weights


def test_a_share_without_rows_has_an_answer_without_rows() -> None:
    inputs, allowed = heads(0)
    query, key, value = nothing = [x.detach()[:0].requires_grad_() for x in inputs]
    answer = CpuAttention()(query, key, value, allowed[:0], PROBABILITY)
    assert answer.shape == (0, 3, 4, 2)
    answer.sum().backward()
    assert all(x.grad is not None for x in nothing)


@pytest.mark.parametrize("kept", [0, 10_000])
@pytest.mark.parametrize("part", [1, 10_000])
def test_queries_that_nobody_reads_change_no_other(part: int, kept: int) -> None:
    attend = CpuAttention(weights_per_part=part, weights_kept=kept)
    inputs, allowed = heads(7)
    asked = torch.tensor([[True, False, True, False], [False] * 4])
    read = asked[:, None, :, None]
    found = []
    for of_interest in (None, asked):
        torch.manual_seed(8)
        answer = attend(*inputs, allowed, PROBABILITY, of_interest)
        gradients = torch.autograd.grad((answer * read).square().sum(), inputs)
        found.append(((answer * read), *gradients))
    assert found[0][0].any()
    for everything, less in zip(*found, strict=True):
        torch.testing.assert_close(less, everything, rtol=1e-10, atol=1e-12)


def test_parts_end_after_their_last_query_and_key() -> None:
    allowed = torch.tensor(
        [[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool
    ).unsqueeze(1)
    asked = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).bool()
    size = {"num_heads": 3, "length": 4, "weights_per_part": 2 * 3 * 12}
    parts = parts_of(allowed, asked, **size)
    found = [(p.rows.start, p.rows.stop, p.num_queries, p.num_keys, p.hides) for p in parts]
    # Two rows of 2 queries and 3 keys are few enough; each of the others is too many with another.
    assert found == [(0, 2, 2, 3, True), (2, 3, 4, 5, False), (3, 4, 4, 5, False)]
    assert len(parts_of(allowed, None, **size)) == 3
