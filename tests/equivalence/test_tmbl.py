"""TMBL against the computation of its public code (JackAILab, ``network.py``)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from plain_torch import (
    AUDIO,
    TEXT,
    VISION,
    Weights,
    apart,
    assert_same,
    attention,
    both_ways,
    difference,
    frames_of,
    gradients,
    layer_norm,
    linear,
    positions,
    prepared,
    renamed,
    weights_of,
)
from torch import Tensor
from torch.nn import functional

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.tmbl import TMBLConfig

CONFIG = TMBLConfig(
    dim=12,
    num_heads=2,
    key_dim=4,
    value_dim=6,
    feed_forward_dim=10,
    num_layers=2,
    communicator_dim=5,
)
SEEDS = (0, 1)


def layer(query: Tensor, key: Tensor, value: Tensor, w: Weights) -> Tensor:
    """Post-norm attention without biases, all heads under one temperature; gated feed-forward."""
    own = renamed(w, "attention")
    q, k, v = (linear(x, own, n) for x, n in ((query, "query"), (key, "key"), (value, "value")))
    mixed = attention(q, k, v, num_heads=2, temperature=math.sqrt(q.shape[-1]))
    x = layer_norm(query + linear(mixed, own, "output"), own, "norm", eps=1e-6)
    own = renamed(w, "feed_forward")
    doubled = linear(linear(x, own, "up"), own, "widen")
    gate, gated = linear(doubled, own, "mix").chunk(2, dim=-1)
    return layer_norm(x + linear(gate.relu() * gated, own, "down"), own, "norm", eps=1e-6)


def placed(x: Tensor, w: Weights, name: str) -> Tensor:
    dim = x.shape[-1]
    return layer_norm(x + positions(x.shape[1], dim, first=0), w, f"{name}.norm", eps=1e-6)


def communicated(x: Tensor, w: Weights, name: str) -> Tensor:
    """(B, 2, D): over the two places, then over the columns; a residual each."""
    for part, turned in (("places", True), ("columns", False)):
        seen = x.transpose(1, 2) if turned else x
        hidden = functional.gelu(linear(seen, w, f"{name}.{part}.0"))
        change = linear(hidden, w, f"{name}.{part}.3")
        x = x + (change.transpose(1, 2) if turned else change)
    return x


def reference(network: Any, batch: Any, *, over_samples: bool = False) -> dict[str, Tensor]:
    """Prediction, private and shared vectors.

    Args:
        network: gives its weights.
        batch: complete.
        over_samples: as the public code: a transformer's sequence is the batch, not a sample's set.
    """
    w, frames = weights_of(network), frames_of(network, batch)
    vectors = {TEXT: frames[TEXT].mean(1)}
    for m in (AUDIO, VISION):
        own = renamed(w, f"encoders.recurrent.{m}")
        states, last = both_ways(frames[m], own, "first.lstm")
        _, final = both_ways(layer_norm(states, own, "norm"), own, "second.lstm")
        vectors[m] = torch.cat([last, final], dim=1)
    for m in Modality:
        name = f"encoders.project.{m}"
        vectors[m] = layer_norm(linear(vectors[m], w, f"{name}.0").relu(), w, f"{name}.2")

    def turned(x: Tensor) -> Tensor:  # which of the axes is the sequence
        return x.transpose(0, 1) if over_samples else x

    made: dict[Modality, list[Tensor]] = {m: [] for m in Modality}
    for one, other in ((AUDIO, VISION), (VISION, TEXT), (TEXT, AUDIO)):
        own = renamed(w, f"private.{one}_{other}")
        x = placed(turned(torch.stack([vectors[one], vectors[other]], dim=1)), own, "placed")
        for number in range(2):
            x = layer(x, x, x, renamed(own, f"layers.{number}"))
        made[one].append(turned(x)[:, 0])
        made[other].append(turned(x)[:, 1])
    t, a, v = (vectors[m] for m in Modality)
    sets = [torch.stack(pair, dim=1) for pair in ((t, v), (v, a), (a, t))]  # T + V, V + A, A + T
    own = renamed(w, "shared")
    streams = [placed(turned(x), own, f"placed.{i}") for i, x in enumerate(sets)]
    for number in range(2):
        q, k, v = streams
        streams = [layer(q, k, v, renamed(own, f"layers.{number}.{i}")) for i in range(3)]
    found: dict[str, Tensor] = {}
    for m in Modality:
        mean = linear((made[m][0] + made[m][1]) / 2, w, f"align.{m}")
        twice = torch.stack([mean, mean], dim=1)
        found[f"private_{m}"] = communicated(twice, w, "private_communicator")
    for m, stream in zip((TEXT, VISION, AUDIO), streams, strict=True):
        found[f"shared_{m}"] = communicated(turned(stream), w, "shared_communicator")
    size = len(t)
    tokens = [token.expand(size, 1, -1) for token in w["tokens"]]
    order = (
        *(found[f"private_{m}"] for m in (AUDIO, VISION, TEXT)),
        tokens[0],
        *(found[f"shared_{m}"] for m in (TEXT, VISION, AUDIO)),
        tokens[1],
    )
    x = (torch.cat(order, dim=1) + w["positions"]).transpose(1, 2)
    for name in ("first", "second", "last"):
        weight, bias = w[f"fusion.{name}.weight"], w[f"fusion.{name}.bias"]
        wide = functional.pad(x, (1, 1)).unfold(2, 3, 1)  # (B, D, L, 3)
        x = torch.einsum("bdlk,odk->bol", wide, weight) + bias[:, None]
        x = x if name == "last" else x.relu()
    return found | {"prediction": x.mean(2).squeeze(1)}


@pytest.mark.parametrize("seed", SEEDS)
def test_it_computes_what_its_public_code_does_but_for_the_attention_within_a_sample(
    seed: int,
) -> None:
    scheme, batch = prepared("tmbl", CONFIG, seed=seed)
    expected = reference(scheme.network, batch)
    output = scheme.network(batch)
    assert_same({**output.features, "prediction": output.prediction}, expected)


@pytest.mark.parametrize("similarity", ["cosine", "kl"])
def test_its_losses_and_their_gradients_are_those_of_the_public_code(similarity: Any) -> None:
    scheme, batch = prepared("tmbl", dataclasses.replace(CONFIG, similarity=similarity))
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    found = reference(scheme.network, batch)
    assert batch.labels is not None
    t, a, v = (found[f"shared_{m}"] for m in Modality)
    pt, pa, pv = (found[f"private_{m}"] for m in Modality)
    pairs = ((pt, t), (pv, v), (pa, a), (pa, pt), (pa, pv), (pt, pv))
    unlike = sum(difference(x.flatten(1), y.flatten(1)) for x, y in pairs)
    alike = torch.zeros((), dtype=torch.float64)
    for x, y in ((t, v), (t, a), (a, v)):
        if similarity == "cosine":
            cosine = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
            alike = alike + (1 - cosine).mean() / 3
        else:  # half of the divergence each way
            p, q = x.softmax(-1), y.softmax(-1)
            both = (p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)
            alike = alike + both.mean() / 2 / 3
    task = (found["prediction"] - batch.labels).square().mean()
    total = task + 0.5 * unlike + 0.5 * alike
    assert_same(losses.terms, {"task": task, "difference": unlike, "similarity": alike})
    assert_same(gradients(losses.total, scheme.network), gradients(total, scheme.network))


def test_over_samples_as_there_a_score_would_depend_on_its_neighbours() -> None:
    scheme, batch = prepared("tmbl", CONFIG)
    some = batch.select(torch.arange(3))
    whole, part = (
        reference(scheme.network, b, over_samples=True)["prediction"] for b in (batch, some)
    )
    assert apart(whole[:3], part) > 1e-4
    ours = [scheme.predict(b) for b in (batch, some)]
    assert_same(ours[0][:3], ours[1])
    assert apart(ours[0], whole) > 1e-4
