"""Per-sample draws, and what gathering means for one process."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from scipy import stats
from torch import nn

from tecafn.core import parallel
from tecafn.core.parallel import (
    average_gradients,
    gather_rows,
    mean_over_rows,
    rank,
    row_offset,
    sample_uniform,
    world_size,
)

MANY = 100_000
WORD = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15


def mix(value: int) -> int:
    """SplitMix64's finaliser in unsigned 64-bit integers."""
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 % WORD
    value ^= value >> 27
    value = value * 0x94D049BB133111EB % WORD
    return value ^ (value >> 31)


def slow_uniform(index: int, *, seed: int, epoch: int, stream: int) -> float:
    state = 0
    for word in (seed, epoch, stream, index):
        state = mix((state + GOLDEN + word) % WORD)
    return (state >> 11) * 2.0**-53


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31 - 1, 2**62, -7])
@pytest.mark.parametrize(("epoch", "stream"), [(0, 0), (3, 1), (1000, 77)])
def test_draws_equal_unsigned_arithmetic(seed: int, epoch: int, stream: int) -> None:
    index = [0, 1, 2, 3, 1000, 16325, 2**31, 2**62]
    got = sample_uniform(torch.tensor(index), seed=seed, epoch=epoch, stream=stream)
    expected = [slow_uniform(i, seed=seed, epoch=epoch, stream=stream) for i in index]
    assert got.tolist() == expected
    assert got.dtype == torch.float64


def test_the_finaliser_is_splitmix64() -> None:
    """The first outputs of the published generator for seed 1234567."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [mix((1234567 + (k + 1) * GOLDEN) % WORD) for k in range(5)] == published


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stream", [0, 1])
def test_draws_over_samples_are_uniform(seed: int, stream: int) -> None:
    draws = sample_uniform(torch.arange(MANY), seed=seed, epoch=0, stream=stream).numpy()
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_one_samples_draws_over_epochs_and_seeds_are_uniform() -> None:
    one = torch.tensor([17])
    over_epochs = [sample_uniform(one, seed=0, epoch=e, stream=0).item() for e in range(3000)]
    over_seeds = [sample_uniform(one, seed=s, epoch=0, stream=0).item() for s in range(3000)]
    over_streams = [sample_uniform(one, seed=0, epoch=0, stream=s).item() for s in range(3000)]
    for draws in (over_epochs, over_seeds, over_streams):
        assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_streams_epochs_seeds_and_neighbours_are_independent() -> None:
    index = torch.arange(MANY)
    keys = itertools.product((0, 1), (0, 1), (0, 1, 2))
    draws = [sample_uniform(index, seed=s, epoch=e, stream=m).numpy() for s, e, m in keys]
    draws.append(sample_uniform(index + 1, seed=0, epoch=0, stream=0).numpy())
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    # 5.5 deviations: one pair in 3e7 exceeds it by chance.
    assert np.abs(correlation).max() < 5.5 / MANY**0.5


def test_pairs_of_streams_fill_the_square_evenly() -> None:
    index = torch.arange(MANY)
    first = (10 * sample_uniform(index, seed=3, epoch=0, stream=0)).long()
    second = (10 * sample_uniform(index, seed=3, epoch=0, stream=1)).long()
    counts = (10 * first + second).bincount(minlength=100)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_draw_depends_on_its_own_index_alone() -> None:
    index = torch.tensor([5, 900, 3, 5])
    together = sample_uniform(index, seed=1, epoch=2, stream=3)
    alone = [sample_uniform(index[i : i + 1], seed=1, epoch=2, stream=3) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))
    assert together[0] == together[3]


def test_order_of_the_words_matters() -> None:
    one = torch.tensor([4])
    numbers = {
        sample_uniform(one, seed=a, epoch=b, stream=c).item()
        for a, b, c in itertools.permutations((1, 2, 3))
    }
    assert len(numbers) == 6


def test_one_process_gathers_nothing() -> None:
    assert (world_size(), rank()) == (1, 0)
    values = torch.randn(3, 4, requires_grad=True)
    assert gather_rows(values) is values
    assert row_offset(3, torch.device("cpu")) == 0


def test_mean_over_rows_counts_defined_rows_only() -> None:
    values = torch.tensor([1.0, float("nan"), 4.0, float("inf")], requires_grad=True)
    defined = torch.tensor([True, False, True, False])
    mean = mean_over_rows(values, defined)
    assert mean.item() == 2.5
    mean.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0.0, 0.5, 0.0]


def test_mean_over_no_rows_is_zero_with_zero_gradient() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = mean_over_rows(values, torch.tensor([False, False]))
    mean.backward()
    assert mean.item() == 0.0
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0]


def test_average_gradients_of_one_process_leaves_them_alone() -> None:
    layer = nn.Linear(2, 1)
    layer.weight.grad = torch.ones_like(layer.weight)
    average_gradients(layer.parameters())
    assert torch.equal(layer.weight.grad, torch.ones_like(layer.weight))
    assert layer.bias.grad is None


def test_gradients_travel_together_by_type_and_up_to_a_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "BUCKET_ELEMENTS", 5)
    sizes = (2, 3, 1, 9, 2)
    gradients = [torch.zeros(n, dtype=torch.float64 if n == 3 else torch.float32) for n in sizes]
    found = [[len(g) for g in bucket] for bucket in parallel._buckets(gradients)]
    assert found == [[2, 1], [3], [9], [2]]


def gather_on_one_of_two(number: int, folder: str) -> None:
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=2)
    own = torch.tensor([1.0 + number, 3.0 + number], dtype=torch.float64, requires_grad=True)
    weight = 2.0 + number  # the two losses differ, and every row is in both
    (first,) = torch.autograd.grad(weight * (gather_rows(own) ** 3).sum(), own, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), own)
    torch.save((first.detach(), second), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_gathered_rows_have_gradients_and_gradients_of_these(tmp_path: Path) -> None:
    multiprocessing.spawn(gather_on_one_of_two, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    for number in (0, 1):
        first, second = torch.load(tmp_path / f"{number}.pt")
        own = torch.tensor([1.0 + number, 3.0 + number], dtype=torch.float64)
        torch.testing.assert_close(first, (2.0 + 3.0) * 3 * own**2)
        torch.testing.assert_close(second, (2.0 + 3.0) * 6 * own)
