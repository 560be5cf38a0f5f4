"""MISA's subspaces and losses, each written out from the paper once more."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.layers.unimodal import UtteranceLSTM
from tecafn.methods.misa import MISAConfig, MISAScheme
from tecafn.testing import MethodCase, _double, method_case

SEEDS = (0, 1, 2)
PROGRESS = Progress(seed=0, epoch=0)
CONFIG = MISAConfig(dim=8, feed_forward_dim=16, head_dropout=0.0, fusion_dropout=0.0)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("misa", config=CONFIG) as made:
        yield made


def scheme_of(case: MethodCase, seed: int) -> MISAScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, MISAScheme)
    return scheme


def moments_apart(first: Tensor, second: Tensor) -> float:
    total = 0.0
    for power in range(1, 6):
        values = []
        for rows in (first, second):
            mean = rows.mean(0)
            values.append(mean if power == 1 else ((rows - mean) ** power).mean(0))
        total += math.dist(values[0].tolist(), values[1].tolist())
    return total


def correlated(first: Tensor, second: Tensor) -> float:
    sides = []
    for rows in (first, second):
        centred = rows - rows.mean(0)
        sides.append([(row / (row.norm() + 1e-6)).tolist() for row in centred])
    width = len(sides[0][0])
    total = 0.0
    for d, e in itertools.product(range(width), repeat=2):
        total += sum(a[d] * b[e] for a, b in zip(*sides, strict=True)) ** 2
    return total / width**2


@pytest.mark.parametrize("seed", SEEDS)
def test_terms_are_the_papers_over_the_rows_that_have_what_is_compared(
    case: MethodCase, seed: int
) -> None:
    scheme, batch = scheme_of(case, seed), _double(case.mixed_batch(seed=seed))
    losses = scheme.loss(batch, PROGRESS)
    features: Any = losses.output.features
    has = {m: batch.present[m] for m in Modality}
    pairs = list(itertools.combinations(Modality, 2))
    unlike = sum(
        correlated(features[f"private_{m}"][has[m]], features[f"shared_{m}"][has[m]])
        for m in Modality
    ) + sum(
        correlated(
            features[f"private_{a}"][has[a] & has[b]], features[f"private_{b}"][has[a] & has[b]]
        )
        for a, b in pairs
    )
    alike = sum(
        moments_apart(features[f"shared_{a}"][has[a]], features[f"shared_{b}"][has[b]])
        for a, b in pairs
    )
    rebuilt = 0.0
    for m in Modality:
        decoder = scheme.decoders[m]
        errors = [
            (decoder(private + shared) - projected).square().mean().item()
            for private, shared, projected, there in zip(
                features[f"private_{m}"],
                features[f"shared_{m}"],
                features[f"projected_{m}"],
                has[m].tolist(),
                strict=True,
            )
            if there
        ]
        rebuilt += sum(errors) / len(errors) / 3
    assert batch.labels is not None
    errors = (losses.output.prediction - batch.labels).tolist()
    expected = {
        "task": sum(error**2 for error in errors) / len(errors),
        "difference": unlike,
        "similarity": alike / 3,
        "reconstruction": rebuilt,
    }
    got = {name: term.item() for name, term in losses.terms.items()}
    assert got == pytest.approx(expected, abs=1e-10)
    total = expected["task"] + 0.3 * unlike + alike / 3 + rebuilt
    assert losses.total.item() == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_modality_has_its_own_private_encoder_and_all_share_one(
    case: MethodCase, seed: int
) -> None:
    network, batch = scheme_of(case, seed).network, _double(case.batch(4, seed=seed))
    features = network(batch).features
    for m in Modality:
        projected = features[f"projected_{m}"]
        encoder: Any = network.private[m]
        own = torch.sigmoid(projected @ encoder[0].weight.T + encoder[0].bias)
        torch.testing.assert_close(features[f"private_{m}"], own)
        shared: Any = network.shared
        common = torch.sigmoid(projected @ shared[0].weight.T + shared[0].bias)
        torch.testing.assert_close(features[f"shared_{m}"], common)


def attention_layer(rows: Tensor, layer: nn.TransformerEncoderLayer) -> Tensor:
    """One sample's six vectors through a post-norm layer of two heads."""
    attention = layer.self_attn
    assert attention.in_proj_weight is not None
    queries, keys, values = (rows @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, 1)
    width = rows.shape[1] // 2
    heads = []
    for head in range(2):
        columns = slice(head * width, (head + 1) * width)
        scores = queries[:, columns] @ keys[:, columns].T / math.sqrt(width)
        heads.append(scores.softmax(1) @ values[:, columns])
    rows = layer.norm1(rows + attention.out_proj(torch.cat(heads, 1)))
    change: Tensor = layer.linear2(torch.relu(layer.linear1(rows)))
    normed: Tensor = layer.norm2(rows + change)
    return normed


@pytest.mark.parametrize("seed", SEEDS)
def test_fusion_attends_over_the_six_vectors_and_joins_them(case: MethodCase, seed: int) -> None:
    network, batch = scheme_of(case, seed).network, _double(case.mixed_batch(seed=seed))
    output = network(batch)
    features: Any = output.features
    for row in range(batch.size):
        six = [features[f"{kind}_{m}"][row] for kind in ("private", "shared") for m in Modality]
        fused = attention_layer(torch.stack(six), network.fusion).flatten()
        hidden: Any = network.hidden
        score = network.answer.linear(torch.relu(hidden[0](fused))).item()
        assert output.prediction[row].item() == pytest.approx(score, abs=1e-10)


def test_the_vector_of_a_sequence_is_the_last_states_of_both_lstms() -> None:
    torch.manual_seed(0)
    module = UtteranceLSTM(3).double()
    values = torch.randn(1, 5, 3, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False]])
    kept = values[:, mask[0]]
    states, (first, _) = module.first.lstm(kept)
    _, (second, _) = module.second.lstm(module.norm(states))
    expected = torch.cat([first[0], first[1], second[0], second[1]], dim=1)
    torch.testing.assert_close(module(Padded(values, mask)), expected)


def test_an_absent_modality_is_a_learned_vector(case: MethodCase) -> None:
    network = scheme_of(case, 0).network
    with torch.no_grad():
        for slot in network.slots.vectors.values():
            slot.normal_()
    batch = _double(case.batch(3, lacking={0: "t", 1: "av"}))
    features = network(batch).features
    for row, absent in ((0, "t"), (1, "av")):
        for m in Modality:
            is_slot = torch.equal(features[f"projected_{m}"][row], network.slots.vectors[m])
            assert is_slot is (m[0] in absent)


def test_decoders_serve_training_and_are_not_exported(case: MethodCase) -> None:
    scheme = scheme_of(case, 0)
    assert any(name.startswith("decoders") for name in scheme.state_dict())
    assert not any("decoder" in name for name in scheme.network.state_dict())
