"""MMIM against the computation of its public code (declare-lab)."""

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
    apart,
    assert_same,
    frames_of,
    linear,
    lstm,
    prepared,
    weights_of,
)
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.mmim import MMIMConfig

JITTER = 1e-4
CONFIG = MMIMConfig(recurrent_dim=3, fusion_dim=5, memory_size=6, jitter=JITTER)
SEEDS = (0, 1)


def reference(network: Any, batch: Any) -> dict[str, Tensor]:
    """Prediction, fused feature, and each modality's vector."""
    w, frames = weights_of(network), frames_of(network, batch)
    found = {str(TEXT): frames[TEXT][:, 0]}
    for m in (AUDIO, VISION):
        last = lstm(frames[m], w, f"recurrent.{m}.lstm")[:, -1]
        found[str(m)] = linear(last, w, f"project.{m}")
    joined = torch.cat([found[str(m)] for m in Modality], dim=1)
    fused = linear(linear(joined, w, "fusion.1").tanh(), w, "fusion.3").tanh()
    return found | {"fused": fused, "prediction": linear(fused, w, "answer.linear").squeeze(1)}


def contrast(prediction: Tensor, vector: Tensor, *, over_predictions: bool) -> Tensor:
    """-log of the share of a row's own pair.

    Args:
        prediction: (B, D).
        vector: (B, D), what was predicted.
        over_predictions: as published: among all predictions for a vector, not the reverse.
    """
    one, other = (x / x.norm(dim=1, keepdim=True) for x in (vector, prediction))
    scores = one @ other.T
    if not over_predictions:
        scores = scores.T
    return -(scores.diagonal() - scores.logsumexp(1)).mean()


def density(scheme: Any, found: Any, m: Modality, *, is_normalised: bool) -> Tensor:
    """Of a Gaussian whose mean and log-variance are networks of the text; published bare."""
    w, name = weights_of(scheme), f"gaussians.{m}"

    def network(x: Tensor, part: str) -> Tensor:
        hidden = linear(x, w, f"{name}.{part}.0").relu()
        return linear(hidden, w, f"{name}.{part}.2")

    mean, log_variance = (network(found[str(TEXT)], part) for part in ("mean", "log_variance"))
    rows = ((mean - found[str(m)]).square() / 2 / log_variance.exp()).sum(1)
    if is_normalised:
        rows = rows + (log_variance + math.log(2 * math.pi)).sum(1) / 2
    return rows.mean()


def entropy(
    rows: Tensor, earlier: Tensor, *, jitter: float, subtract: int, has_constant: bool
) -> Tensor:
    """Of the Gaussian with the covariance of both; published over N, without the rest."""
    both = torch.cat([earlier, rows])
    centred = both - both.mean(0)
    covariance = centred.T @ centred / (len(both) - subtract)
    dim = len(covariance)
    value = torch.logdet(covariance + jitter * torch.eye(dim, dtype=torch.float64)) / 2
    return value + dim / 2 * math.log(2 * math.pi * math.e) if has_constant else value


def terms(
    scheme: Any, batch: Any, earlier: Any, *, is_published: bool = False
) -> dict[str, Tensor]:
    """All terms of the main phase; with ``is_published`` what the four departures are from."""
    found = reference(scheme.network, batch)
    w = weights_of(scheme)
    contrasts = [
        contrast(
            linear(found["fused"], w, f"predictors.{m}"),
            found[str(m)],
            over_predictions=is_published,
        )
        for m in Modality
    ]
    entropies = []
    for m in (AUDIO, VISION):
        for side in (batch.labels > 0, batch.labels < 0):
            value = entropy(
                found[str(m)][side],
                earlier[str(m)][side],
                jitter=0.0 if is_published else JITTER,
                subtract=0 if is_published else 1,
                has_constant=not is_published,
            )
            entropies.append(value / 2)
    densities = [density(scheme, found, m, is_normalised=not is_published) for m in (AUDIO, VISION)]
    return {
        "task": (found["prediction"] - batch.labels).abs().mean(),
        "cpc": sum(contrasts, torch.zeros((), dtype=torch.float64)),
        "log_density": sum(densities, torch.zeros((), dtype=torch.float64)),
        "entropy": -sum(entropies, torch.zeros((), dtype=torch.float64)),
    }


def with_memory(scheme: Any, batch: Any) -> dict[str, Tensor]:
    """The vectors that a step has left in the memory, as many as it holds."""
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    scheme.after_step(batch, losses, Progress(seed=0, epoch=0))
    earlier = {name: value.detach() for name, value in reference(scheme.network, batch).items()}
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.mul_(1.05)
    return earlier


@pytest.mark.parametrize("seed", SEEDS)
def test_it_computes_what_its_public_code_does(seed: int) -> None:
    scheme, batch = prepared("mmim", CONFIG, seed=seed)
    output = scheme.network(batch)
    expected = reference(scheme.network, batch)
    assert_same({**output.features, "prediction": output.prediction}, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_its_terms_are_the_published_ones_but_for_what_is_declared(seed: int) -> None:
    config = dataclasses.replace(CONFIG, memory_size=12)  # as many as a batch
    scheme, batch = prepared("mmim", config, seed=seed, size=12)
    earlier = with_memory(scheme, batch)
    losses = scheme.loss(batch, Progress(seed=0, epoch=1))
    assert_same(losses.terms, terms(scheme, batch, earlier))
    published = terms(scheme, batch, earlier, is_published=True)
    for name in ("cpc", "log_density", "entropy"):
        assert apart(losses.terms[name], published[name]) > 1e-4
    assert losses.weights == {"task": 1.0, "cpc": 0.1, "log_density": 0.1, "entropy": 0.1}


def test_the_memory_lasts_from_one_epoch_to_the_next() -> None:
    scheme, batch = prepared("mmim", CONFIG)
    with_memory(scheme, batch)
    assert all(memory.is_full for memory in scheme.memories.values())
    losses = scheme.loss(batch, Progress(seed=0, epoch=1))
    assert losses.terms["entropy"].item() != 0.0


def test_the_first_phase_is_the_density_alone() -> None:
    scheme, batch = prepared("mmim", CONFIG)
    (first, _) = scheme.phases()
    found = reference(scheme.network, batch)
    value = first.loss(batch, Progress(seed=0, epoch=0)).total
    expected = sum(density(scheme, found, m, is_normalised=True) for m in (AUDIO, VISION))
    assert_same(value, expected)
