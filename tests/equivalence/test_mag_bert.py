"""MAG-BERT against the computation of its public code (WasifurRahman)."""

from __future__ import annotations

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
    attention,
    layer_norm,
    linear,
    prepared,
    renamed,
    weights_of,
)
from torch import Tensor

from tecafn.core.output import Progress
from tecafn.methods.mag_bert import MAGBERTConfig


def bert_layer(x: Tensor, w: Any) -> Tensor:
    """Post-norm self-attention of four heads, then a GELU layer."""
    q, k, v = (linear(x, w, f"attention.self.{name}") for name in ("query", "key", "value"))
    mixed = linear(attention(q, k, v, num_heads=4), w, "attention.output.dense")
    x = layer_norm(x + mixed, w, "attention.output.LayerNorm", eps=1e-12)
    hidden = linear(x, w, "intermediate.dense")
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return layer_norm(x + linear(hidden, w, "output.dense"), w, "output.LayerNorm", eps=1e-12)


def gated(states: Tensor, spoken: dict[Any, Tensor], w: Any, *, shift: float) -> Tensor:
    """Rahman et al.: H = g_v (W_v v) + g_a (W_a a), as far as alpha allows, and a LayerNorm."""
    change = torch.zeros_like(states)
    for m, frames in spoken.items():
        gate = linear(torch.cat([frames, states], dim=-1), w, f"gates.{m}").relu()
        change = change + gate * linear(frames, w, f"shifts.{m}")
    lengths = [x.norm(dim=-1, keepdim=True) for x in (states, change)]
    alpha = (lengths[0] / (lengths[1] + 1e-6) * shift).clamp(max=1)
    return layer_norm(states + alpha * change, w, "norm")


def reference(network: Any, batch: Any, *, shift: float, zero_frames: bool = False) -> Tensor:
    """Scores.

    Args:
        network: gives its weights.
        batch: complete, one frame per word.
        shift: beta.
        zero_frames: as published: a token that has no frame, [CLS] and [SEP], has a frame of zeros.
    """
    w = weights_of(network)
    with torch.no_grad():
        states = network.frames.text_encoder.run_frozen(batch.sequences[TEXT]).values
    frames = {m: network.frames(batch)[m].values for m in (AUDIO, VISION)}
    own = renamed(w, "gate")
    zeros = {m: x.new_zeros(len(x), 1, x.shape[2]) for m, x in frames.items()}
    spoken = {m: torch.cat([zeros[m], x, zeros[m]], dim=1) for m, x in frames.items()}
    shifted = gated(states, spoken, own, shift=shift)
    if not zero_frames:
        alone = gated(states, {}, own, shift=shift)
        shifted = torch.cat([alone[:, :1], shifted[:, 1:-1], alone[:, -1:]], dim=1)
    for number in range(2):
        shifted = bert_layer(shifted, renamed(w, f"frames.text_encoder.layers.{number}"))
    pooled = linear(shifted[:, 0], w, "pooler.0").tanh()
    return linear(pooled, w, "answer.linear").squeeze(1)


@pytest.mark.parametrize("shift", [0.05, 1.0, 50.0])
def test_it_computes_what_its_public_code_does(shift: float) -> None:
    scheme, batch = prepared("mag_bert", MAGBERTConfig(shift=shift))
    expected = reference(scheme.network, batch, shift=shift)
    assert_same(scheme.predict(batch), expected)
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    assert batch.labels is not None
    assert_same(losses.terms, {"task": (expected - batch.labels).square().mean()})


def test_a_token_without_a_frame_is_shifted_by_a_frame_of_zeros_there_and_by_nothing_here() -> None:
    scheme, batch = prepared("mag_bert")
    published = reference(scheme.network, batch, shift=1.0, zero_frames=True)
    assert apart(scheme.predict(batch), published) > 1e-4
    # Nothing else differs: without biases, zeros shift by nothing as well.
    with torch.no_grad():
        for layer in scheme.network.gate.shifts.values():
            layer.bias.zero_()
    published = reference(scheme.network, batch, shift=1.0, zero_frames=True)
    assert_same(scheme.predict(batch), published)
