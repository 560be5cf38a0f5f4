"""Self-MM against the computation of its public code (thuiar)."""

from __future__ import annotations

import dataclasses
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
from tecafn.methods.self_mm import SelfMMConfig

CONFIG = SelfMMConfig(
    audio_lstm_dim=3,
    vision_lstm_dim=4,
    audio_dim=3,
    vision_dim=4,
    fused_dim=6,
    text_task_dim=5,
    audio_task_dim=3,
    vision_task_dim=4,
    first_weight=0.0,
)
SEEDS = (0, 1)


def reference(scheme: Any, batch: Any) -> dict[str, Tensor]:
    """Prediction and fused feature; each task's feature and score."""
    w, frames = weights_of(scheme), frames_of(scheme.network, batch)
    vectors = {TEXT: frames[TEXT][:, 0]}
    for m in (AUDIO, VISION):
        name = f"network.joined.encoders.encoders.{m}"
        last = lstm(frames[m], w, f"{name}.recurrent.lstm")[:, -1]
        vectors[m] = linear(last, w, f"{name}.project")
    fused = linear(torch.cat(list(vectors.values()), dim=1), w, "network.joined.fuse.1").relu()
    hidden = linear(fused, w, "network.joined.hidden.0").relu()
    score = linear(hidden, w, "network.joined.answer.linear").squeeze(1)
    found = {"fused": fused, "prediction": score}
    for m in Modality:
        name = f"tasks.heads.{m}"
        found[f"task_{m}"] = linear(vectors[m], w, f"{name}.features.1").relu()
        hidden = linear(found[f"task_{m}"], w, f"{name}.hidden.0").relu()
        found[f"score_{m}"] = linear(hidden, w, f"{name}.answer.linear").squeeze(1)
    return found


class PublishedLabels:
    """Labels of each modality, made as the public code does, with zero labels on neither side.

    Args:
        labels: (N,) of the samples.
        eps: in the denominator of a ratio; published 1e-8.
    """

    def __init__(self, labels: Tensor, *, eps: float) -> None:
        self.own, self.eps = labels, eps
        self.labels = {m: labels.clone() for m in Modality}
        self.features: dict[str, Tensor] = {}

    def delta(self, task: str, labels: Tensor, rows: Tensor) -> Tensor:
        known = self.features[task]
        near, far = (known[side].mean(0) for side in (labels > 0, labels < 0))
        to_near, to_far = ((rows - c).norm(dim=1) for c in (near, far))
        return (to_far - to_near) / (to_near + 1e-8)

    def update(self, found: dict[str, Tensor], *, epoch: int) -> None:
        """After a step on all samples; ``epoch`` from 1."""
        if epoch > 1:
            fused = self.delta("fused", self.own, found["fused"])
            for m in Modality:
                own = self.delta(m, self.labels[m], found[f"task_{m}"])
                ratio = own / (fused + self.eps)
                new = 0.5 * ratio * self.own + 0.5 * (self.own + own - fused)
                kept = (epoch - 1) / (epoch + 1) * self.labels[m]
                self.labels[m] = kept + 2 / (epoch + 1) * new.clamp(-3, 3)
        self.features = {"fused": found["fused"], **{m: found[f"task_{m}"] for m in Modality}}


@pytest.mark.parametrize("seed", SEEDS)
def test_it_computes_what_its_public_code_does(seed: int) -> None:
    scheme, batch = prepared("self_mm", CONFIG, seed=seed)
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    features: Any = losses.output.features
    expected = reference(scheme, batch)
    for name, value in expected.items():
        got = losses.output.prediction if name == "prediction" else features[name]
        assert_same(got, value)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_and_losses_over_four_epochs_are_those_of_the_public_code(seed: int) -> None:
    scheme, batch = prepared("self_mm", CONFIG, seed=seed)
    assert batch.labels is not None
    published = {eps: PublishedLabels(batch.labels, eps=eps) for eps in (0.0, 1e-8)}
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(4):
        progress = Progress(seed=0, epoch=epoch)
        losses, found = scheme.loss(batch, progress), reference(scheme, batch)
        expected = {"task": (found["prediction"] - batch.labels).abs().mean()}
        for m in Modality:
            labels = published[0.0].labels[m]
            weight = (labels - batch.labels).abs().tanh()
            expected[str(m)] = (weight * (found[f"score_{m}"] - labels).abs()).mean()
        assert_same({str(k): v for k, v in losses.terms.items()}, expected)
        scheme.after_step(batch, losses, progress)
        detached = {name: value.detach() for name, value in found.items()}
        for labels_of in published.values():
            labels_of.update(detached, epoch=epoch + 1)
        with torch.no_grad():  # a step
            for parameter in scheme.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.02 * noise)
    for m in Modality:
        stored, made = scheme.tasks.bank.labels_of(m, batch.labels, batch.index)
        assert bool(made.all())
        assert_same(stored, published[0.0].labels[m])
        # The published 1e-8 in the ratio's denominator is the one thing that is not here.
        assert apart(stored, published[1e-8].labels[m]) < 1e-5


def test_a_first_weight_counts_labels_that_were_not_generated_yet() -> None:
    config = dataclasses.replace(CONFIG, first_weight=1.0)
    scheme, batch = prepared("self_mm", config)
    assert batch.labels is not None
    losses, found = scheme.loss(batch, Progress(seed=0, epoch=0)), reference(scheme, batch)
    for m in Modality:
        expected = (found[f"score_{m}"] - batch.labels).abs().mean()
        assert_same(losses.terms[m], expected)
