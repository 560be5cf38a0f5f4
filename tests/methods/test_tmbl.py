"""TMBL's binding: who is bound with whom, and what the shared transformer reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tecafn.core.batch import Batch
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.parallel import sample_uniform
from tecafn.methods.tmbl import TMBLConfig, TMBLScheme, partners
from tecafn.testing import MethodCase, _double, method_case

TEXT, AUDIO, VISION = Modality
SEEDS = (0, 1, 2)
CONFIG = TMBLConfig(dim=8)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("tmbl", config=CONFIG) as made:
        yield made


def scheme_of(case: MethodCase, seed: int) -> TMBLScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, TMBLScheme)
    return scheme


def batch_of(case: MethodCase, seed: int) -> Batch:
    return _double(case.mixed_batch(seed=seed))


@pytest.mark.parametrize("size", [0, 1, 2, 7, 12])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_sample_is_bound_with_one_that_is_bound_with_it(size: int, epoch: int) -> None:
    bound = partners(torch.arange(size) + 40, seed=3, epoch=epoch).tolist()
    assert [bound[partner] for partner in bound] == list(range(size))
    assert sum(partner == row for row, partner in enumerate(bound)) == size % 2


def test_the_halves_are_those_of_the_hash() -> None:
    index = torch.tensor([5, 9, 2, 14, 7, 1])
    draws = sample_uniform(index, seed=1, epoch=2, stream=0).tolist()
    order = sorted(range(6), key=lambda row: draws[row])
    bound = partners(index, seed=1, epoch=2).tolist()
    for one, other in zip(order[:3], order[3:], strict=True):
        assert bound[one] == other


def test_another_epoch_binds_otherwise_and_the_order_of_rows_does_not_matter() -> None:
    index = torch.arange(16)
    first, second = (partners(index, seed=0, epoch=epoch) for epoch in (0, 1))
    assert not torch.equal(first, second)
    turned = index.flip(0)
    assert torch.equal(turned[partners(turned, seed=0, epoch=0)].flip(0), index[first])


def attended(query: Tensor, key: Tensor, value: Tensor, attention: Any) -> Tensor:
    """(2, dim) each, two heads."""
    weights = attention.in_proj_weight.chunk(3)
    biases = attention.in_proj_bias.chunk(3)
    q, k, v = (
        rows @ weight.T + bias
        for rows, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    width = query.shape[1] // 2
    answer = []
    for i in range(len(q)):
        heads = []
        for head in range(2):
            columns = slice(head * width, (head + 1) * width)
            scores = [
                math.exp((q[i, columns] @ k[j, columns]).item() / math.sqrt(width))
                for j in range(len(k))
            ]
            mixed = [s / sum(scores) * v[j, columns] for j, s in enumerate(scores)]
            heads.append(torch.stack(mixed).sum(0))
        answer.append(torch.cat(heads))
    projected: Tensor = attention.out_proj(torch.stack(answer))
    return projected


@pytest.mark.parametrize("seed", SEEDS)
def test_the_shared_transformer_takes_the_modalities_as_query_key_and_value_in_turn(
    case: MethodCase, seed: int
) -> None:
    scheme, batch = scheme_of(case, seed), batch_of(case, seed)
    own = scheme.network.encode(batch)
    bound = {m: vector.flip(0) for m, vector in own.items()}
    features = scheme.network.fuse(own, bound).features
    shared = scheme.network.shared
    for query, key, value in ((TEXT, VISION, AUDIO), (VISION, AUDIO, TEXT), (AUDIO, TEXT, VISION)):
        for row in range(batch.size):
            pair = {m: torch.stack([own[m][row], bound[m][row]]) for m in Modality}
            normed = [shared.norm(pair[m]) for m in (query, key, value)]
            stream = pair[query] + attended(*normed, shared.attention)
            expected = stream + shared.feed_forward(stream)
            torch.testing.assert_close(features[f"shared_{query}"][row], expected[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_private_transformer_reads_both_of_a_pair(case: MethodCase, seed: int) -> None:
    scheme, batch = scheme_of(case, seed), batch_of(case, seed)
    own = scheme.network.encode(batch)
    alone = scheme.network.fuse(own, own).features
    beside = scheme.network.fuse(own, {m: v.flip(0) for m, v in own.items()}).features
    both = torch.ones(1, 2, dtype=torch.bool)
    for m in Modality:
        assert not torch.allclose(alone[f"private_{m}"], beside[f"private_{m}"])
        pair = torch.stack([own[m][3], own[m].flip(0)[3]]).unsqueeze(0)
        expected = scheme.network.private[m](pair, None, both)[0, 0]
        torch.testing.assert_close(beside[f"private_{m}"][3], expected)


def test_inference_binds_a_sample_with_itself(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 0), batch_of(case, 0)
    own = scheme.network.encode(batch)
    itself = scheme.network.fuse(own, own).prediction
    assert torch.equal(scheme.predict(batch), itself)
    trained = scheme.loss(batch, Progress(seed=0, epoch=0)).output.prediction
    assert not torch.allclose(trained, itself)


@pytest.mark.parametrize("seed", SEEDS)
def test_terms_are_over_bound_samples_and_rows_that_have_what_is_compared(
    case: MethodCase, seed: int
) -> None:
    scheme, batch = scheme_of(case, seed), batch_of(case, seed)
    progress = Progress(seed=4, epoch=seed)
    losses = scheme.loss(batch, progress)
    own = scheme.network.encode(batch)
    rows = partners(batch.index, seed=4, epoch=seed)
    output = scheme.network.fuse(own, {m: vector[rows] for m, vector in own.items()})
    torch.testing.assert_close(losses.output.prediction, output.prediction)
    features: Any = output.features
    has = batch.present

    def correlated(first: Tensor, second: Tensor) -> float:
        sides = []
        for values in (first, second):
            centred = values - values.mean(0)
            sides.append([(row / (row.norm() + 1e-6)).tolist() for row in centred])
        total = 0.0
        for d, e in itertools.product(range(8), repeat=2):
            total += sum(a[d] * b[e] for a, b in zip(*sides, strict=True)) ** 2
        return total / 64

    unlike = alike = 0.0
    for m in Modality:
        unlike += correlated(features[f"private_{m}"][has[m]], features[f"shared_{m}"][has[m]])
    for one, other in itertools.combinations(Modality, 2):
        both = has[one] & has[other]
        unlike += correlated(features[f"private_{one}"][both], features[f"private_{other}"][both])
        for a, b in zip(
            features[f"shared_{one}"][both], features[f"shared_{other}"][both], strict=True
        ):
            p, q = a.softmax(0), b.softmax(0)
            divergence = ((p - q) * (p / q).log()).sum().item() / 2
            alike += divergence / int(both.sum()) / 3
    assert batch.labels is not None
    task = (output.prediction - batch.labels).square().mean().item()
    expected = {"task": task, "difference": unlike, "similarity": alike}
    got = {name: term.item() for name, term in losses.terms.items()}
    assert got == pytest.approx(expected, abs=1e-10)
    assert losses.total.item() == pytest.approx(task + unlike / 2 + alike / 2, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_six_vectors_communicate_and_a_convolution_fuses_them(case: MethodCase, seed: int) -> None:
    network, batch = scheme_of(case, seed).network, batch_of(case, seed)
    output = network(batch)
    features: Any = output.features
    module, convolution = network.communicator, network.convolution
    places: Any = module.places
    columns: Any = module.columns
    gelu = torch.nn.functional.gelu
    for row in (0, 7):
        six = torch.stack(
            [features[f"{kind}_{m}"][row] for kind in ("private", "shared") for m in Modality]
        )
        normed = module.place_norm(six)
        over = torch.stack([places[2](gelu(places[0](normed[:, d]))) for d in range(8)], dim=1)
        mixed = six + over
        mixed = mixed + columns[2](gelu(columns[0](module.column_norm(mixed))))
        fused = torch.zeros(3, 8, dtype=torch.float64)
        for channel, d, place, tap in itertools.product(range(3), range(8), range(6), range(3)):
            if 0 <= d + tap - 1 < 8:
                weight = convolution.weight[channel, place, tap]
                fused[channel, d] += (weight * mixed[place, d + tap - 1]).detach()
        assert convolution.bias is not None
        fused += convolution.bias.detach().unsqueeze(1)
        torch.testing.assert_close(features["fused"][row], fused.flatten())
        hidden: Any = network.hidden
        vector = torch.relu(hidden[1](torch.relu(fused.flatten())))
        score = network.answer.linear(vector).item()
        assert output.prediction[row].item() == pytest.approx(score, abs=1e-10)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        TMBLConfig(kernel_size=4)
