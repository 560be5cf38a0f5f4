"""TFN and LMF against MMSA's code of them (``TFN.py``, ``LMF.py``, ``FeatureNets.py``)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_torch import (
    AUDIO,
    TEXT,
    VISION,
    Weights,
    assert_same,
    frames_of,
    linear,
    lstm,
    prepared,
    renamed,
    weights_of,
)
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.lmf import LMFConfig
from tecafn.methods.tfn import TFNConfig

WIDTHS: dict[str, Any] = {"text_hidden_dim": 6, "text_dim": 4, "audio_dim": 3, "vision_dim": 5}
TFN = TFNConfig(**WIDTHS, post_fusion_dim=7)
LMF = LMFConfig(**WIDTHS)
SEEDS = (0, 1)


def with_ones(network: Any, batch: Any, *, is_training: bool) -> list[Tensor]:
    """[1; h] of each modality: an LSTM's last state; a normalised mean through three layers."""
    w, frames = renamed(weights_of(network), "subnetworks.subnetworks"), frames_of(network, batch)
    vectors = {TEXT: linear(lstm(frames[TEXT], w, "text.lstm.lstm")[:, -1], w, "text.linear")}
    for m in (AUDIO, VISION):
        own = renamed(w, str(m))
        mean = frames[m].mean(1)
        x = normalised(mean, renamed(own, "norm"), is_training=is_training)
        for number in (1, 3, 5):
            x = linear(x, own, f"layers.{number}").relu()
        vectors[m] = x
    return [torch.cat([v.new_ones(len(v), 1), v], dim=1) for v in vectors.values()]


def normalised(x: Tensor, w: Weights, *, is_training: bool) -> Tensor:
    mean, variance = w["running_mean"], w["running_var"]
    if is_training:
        mean, variance = x.mean(0), x.var(0, correction=0)
    return (x - mean) / (variance + 1e-5).sqrt() * w["weight"] + w["bias"]


def frames_of_subnetworks(network: Any) -> Any:
    """``frames_of`` looks for the frames where most networks have them."""
    network.frames = network.subnetworks.frames
    return network


def tfn(network: Any, batch: Any, *, is_training: bool = False) -> Tensor:
    w = weights_of(network)
    t, a, v = with_ones(network, batch, is_training=is_training)
    product = torch.einsum("bi,bj,bk->bijk", t, a, v).flatten(1)
    x = linear(linear(product, w, "inference.1").relu(), w, "inference.3").relu()
    return linear(x, w, "answer.linear").squeeze(1).sigmoid() * 6 - 3


def lmf(network: Any, batch: Any, *, is_training: bool = False) -> Tensor:
    w = weights_of(network)
    product: Any = 1.0
    for m, vector in zip(Modality, with_ones(network, batch, is_training=is_training), strict=True):
        product = product * torch.einsum("bi,rio->bro", vector, w[f"fusion.factors.{m}"])
    return (
        torch.einsum("r,bro->bo", w["fusion.rank_weights"], product).squeeze(1) + w["fusion.bias"]
    )


@pytest.mark.parametrize(("name", "config", "reference"), [("tfn", TFN, tfn), ("lmf", LMF, lmf)])
@pytest.mark.parametrize("seed", SEEDS)
def test_it_computes_what_is_published(name: str, config: Any, reference: Any, seed: int) -> None:
    scheme, batch = prepared(name, config, seed=seed)
    network = frames_of_subnetworks(scheme.network)
    assert_same(scheme.predict(batch), reference(network, batch))


@pytest.mark.parametrize(("name", "config", "reference"), [("tfn", TFN, tfn), ("lmf", LMF, lmf)])
def test_training_normalises_by_the_batch_and_the_loss_is_the_absolute_error(
    name: str, config: Any, reference: Any
) -> None:
    scheme, batch = prepared(name, config)
    network = frames_of_subnetworks(scheme.network)
    scheme.train()
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    expected = reference(network, batch, is_training=True)
    assert_same(losses.output.prediction, expected)
    assert batch.labels is not None
    assert_same(losses.terms, {"task": (expected - batch.labels).abs().mean()})


def test_training_keeps_a_tenth_of_each_batchs_statistics() -> None:
    scheme, batch = prepared("tfn", TFN)
    network = frames_of_subnetworks(scheme.network)
    norm = network.subnetworks.subnetworks["audio"].norm
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    scheme.train()
    scheme.loss(batch, Progress(seed=0, epoch=0))
    rows = frames_of(network, batch)[AUDIO].mean(1)
    assert_same(norm.running_mean, 0.9 * mean + 0.1 * rows.mean(0))
    assert_same(norm.running_var, 0.9 * variance + 0.1 * rows.var(0))
