"""MISA against the computation of its public code (declare-lab)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from plain_torch import (
    AUDIO,
    TEXT,
    VISION,
    apart,
    assert_same,
    attention,
    both_ways,
    difference,
    frames_of,
    gradients,
    layer_norm,
    linear,
    prepared,
    renamed,
    weights_of,
)
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.misa import MISAConfig

CONFIG = MISAConfig(dim=8, feed_forward_dim=10)
SEEDS = (0, 1)


def reference(network: Any, batch: Any) -> dict[str, Tensor]:
    """Prediction, projected, private and shared vectors."""
    w, frames = weights_of(network), frames_of(network, batch)
    vectors = {TEXT: frames[TEXT].mean(1)}
    for m in (AUDIO, VISION):
        own = renamed(w, f"encoders.recurrent.{m}")
        states, last = both_ways(frames[m], own, "first.lstm")
        _, final = both_ways(layer_norm(states, own, "norm"), own, "second.lstm")
        vectors[m] = torch.cat([last, final], dim=1)
    found = {}
    for m in Modality:
        name = f"encoders.project.{m}"
        found[f"projected_{m}"] = layer_norm(
            linear(vectors[m], w, f"{name}.0").relu(), w, f"{name}.2"
        )
        found[f"private_{m}"] = linear(found[f"projected_{m}"], w, f"private.{m}.0").sigmoid()
        found[f"shared_{m}"] = linear(found[f"projected_{m}"], w, "shared.0").sigmoid()
    six = torch.stack([found[f"{kind}_{m}"] for kind in ("private", "shared") for m in Modality], 1)
    joint = six @ w["fusion.self_attn.in_proj_weight"].T + w["fusion.self_attn.in_proj_bias"]
    mixed = attention(*joint.chunk(3, dim=-1), num_heads=2)
    x = layer_norm(six + linear(mixed, w, "fusion.self_attn.out_proj"), w, "fusion.norm1")
    hidden = linear(linear(x, w, "fusion.linear1").relu(), w, "fusion.linear2")
    fused = layer_norm(x + hidden, w, "fusion.norm2").flatten(1)
    hidden = linear(fused, w, "hidden.0").relu()
    return found | {"fused": fused, "prediction": linear(hidden, w, "answer.linear").squeeze(1)}


def cmd(one: Tensor, two: Tensor) -> Tensor:
    """Distance of the means, then of the second to fifth central moments."""
    centred = [rows - rows.mean(0) for rows in (one, two)]
    distance = (one.mean(0) - two.mean(0)).square().sum().sqrt()
    for power in range(2, 6):
        a, b = ((rows**power).mean(0) for rows in centred)
        distance = distance + (a - b).square().sum().sqrt()
    return distance


def published_terms(scheme: Any, batch: Any, *, is_detached: bool = True) -> dict[str, Tensor]:
    found, w = reference(scheme.network, batch), weights_of(scheme)
    pairs = list(itertools.combinations(Modality, 2))
    apart_ = [(f"private_{m}", f"shared_{m}") for m in Modality]
    apart_ += [(f"private_{one}", f"private_{other}") for one, other in pairs]
    unlike = [difference(found[a], found[b], is_detached=is_detached) for a, b in apart_]
    alike = [cmd(found[f"shared_{one}"], found[f"shared_{other}"]) for one, other in pairs]
    rebuilt = []
    for m in Modality:
        decoded = linear(found[f"private_{m}"] + found[f"shared_{m}"], w, f"decoders.{m}")
        rebuilt.append((decoded - found[f"projected_{m}"]).square().mean())
    return {
        "task": (found["prediction"] - batch.labels).square().mean(),
        "difference": torch.stack(unlike).sum(),
        "similarity": torch.stack(alike).mean(),
        "reconstruction": torch.stack(rebuilt).mean(),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_it_computes_what_its_public_code_does(seed: int) -> None:
    scheme, batch = prepared("misa", CONFIG, seed=seed)
    output = scheme.network(batch)
    expected = reference(scheme.network, batch)
    assert_same({**output.features, "prediction": output.prediction}, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_its_losses_and_their_gradients_are_those_of_the_public_code(seed: int) -> None:
    scheme, batch = prepared("misa", CONFIG, seed=seed)
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    expected = published_terms(scheme, batch)
    assert_same(losses.terms, expected)
    assert losses.weights == {
        "task": 1.0,
        "difference": 0.3,
        "similarity": 1.0,
        "reconstruction": 1.0,
    }
    for name, term in losses.terms.items():
        assert_same(gradients(term, scheme), gradients(expected[name], scheme))


def test_a_gradient_through_the_lengths_of_rows_would_be_another_one() -> None:
    scheme, batch = prepared("misa", CONFIG)
    terms = [
        published_terms(scheme, batch, is_detached=flag)["difference"] for flag in (True, False)
    ]
    assert_same(terms[0], terms[1])
    first, second = (gradients(term, scheme)["network.shared.0.weight"] for term in terms)
    assert apart(first, second) > 1e-6
