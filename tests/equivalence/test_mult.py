"""MulT against the computation of its public code (yaohungt)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain_torch import (
    apart,
    assert_same,
    cross_modal,
    frames_of,
    linear,
    positions,
    prepared,
    renamed,
    weights_of,
)
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.mult import MulTConfig

CONFIG = MulTConfig(dim=8, num_heads=2, num_memory_layers=2)
SEEDS = (0, 1)


def reference(
    network: Any, batch: Any, *, first: int = 0, is_causal: bool = False, one_norm: bool = False
) -> Tensor:
    """Scores.

    Args:
        network: gives its weights.
        batch: complete.
        first: position of the first frame; published 1.
        is_causal: as published, see ``cross_modal``.
        one_norm: likewise.
    """
    w, frames = weights_of(network), frames_of(network, batch)
    x = {}
    for m in Modality:
        kernel, bias = w[f"convolutions.{m}.conv.weight"], w[f"convolutions.{m}.conv.bias"]
        x[m] = frames[m] @ kernel.squeeze(2).T + bias

    def transformer(name: str, target: Tensor, source: Tensor | None = None) -> Tensor:
        def placed(values: Tensor) -> Tensor:
            length, dim = values.shape[1:]
            return math.sqrt(dim) * values + positions(length, dim, first=first)

        return cross_modal(
            placed(target),
            None if source is None else placed(source),
            renamed(w, name),
            num_heads=2,
            is_causal=is_causal,
            one_norm=one_norm,
        )

    last = []
    for target in Modality:
        streams = [
            transformer(f"crossings.{source}_to_{target}", x[target], x[source])
            for source in Modality
            if source != target
        ]
        last.append(transformer(f"memories.{target}", torch.cat(streams, dim=2))[:, -1])
    joined = torch.cat(last, dim=1)
    fused = joined + linear(linear(joined, w, "block.0").relu(), w, "block.3")
    return linear(fused, w, "answer.linear").squeeze(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_computes_what_its_public_code_does_but_for_what_is_declared(seed: int) -> None:
    scheme, batch = prepared("mult", CONFIG, seed=seed)
    expected = reference(scheme.network, batch)
    assert_same(scheme.predict(batch), expected)
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    assert batch.labels is not None
    assert_same(losses.terms, {"task": (expected - batch.labels).abs().mean()})


@pytest.mark.parametrize("departure", [{"first": 1}, {"is_causal": True}, {"one_norm": True}])
def test_each_declared_departure_makes_a_difference(departure: dict[str, Any]) -> None:
    scheme, batch = prepared("mult", CONFIG)
    assert apart(scheme.predict(batch), reference(scheme.network, batch, **departure)) > 1e-4
