"""Methods that have no public code, against what the head of their own file says they compute.

HCIL, CRNet, BIMHA, TeFNA and MTMD are built after their abstracts, ICCN after its paper; the
baseline ``concat`` has a file of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from plain_torch import (
    AUDIO,
    TEXT,
    VISION,
    Weights,
    assert_same,
    attention,
    cross_modal,
    frames_of,
    layer_norm,
    linear,
    lstm,
    positions,
    prepared,
    renamed,
    weights_of,
)
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.bimha import BIMHAConfig
from tecafn.methods.crnet import CRNetConfig
from tecafn.methods.hcil import HCILConfig
from tecafn.methods.iccn import ICCNConfig
from tecafn.methods.mtmd import MTMDConfig
from tecafn.methods.tefna import TeFNAConfig

START = Progress(seed=0, epoch=0)
OTHERS = (AUDIO, VISION)
Vectors = dict[Modality, Tensor]


def convolution(x: Tensor, w: Weights, name: str) -> Tensor:
    """(B, L, D) to (B, L, E); frames outside are zero."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    half, length = weight.shape[2] // 2, x.shape[1]
    rows = []
    for t in range(length):
        total = bias
        for k in range(weight.shape[2]):
            if 0 <= t + k - half < length:
                total = total + x[:, t + k - half] @ weight[:, :, k].T
        rows.append(total)
    return torch.stack(rows, dim=1)


def utterances(w: Weights, frames: Vectors, name: str) -> Vectors:
    """[CLS], last LSTM states, a linear layer each."""
    vectors = {TEXT: linear(frames[TEXT][:, 0], w, f"{name}.text.project")}
    for m in OTHERS:
        last = lstm(frames[m], w, f"{name}.{m}.recurrent.lstm")[:, -1]
        vectors[m] = linear(last, w, f"{name}.{m}.project")
    return vectors


def joined(vectors: Iterable[Tensor]) -> Tensor:
    return torch.cat(list(vectors), dim=1)


def answered(fused: Tensor, w: Weights) -> Tensor:
    return linear(fused, w, "network.answer.linear").squeeze(1)


def hcil(w: Weights, frames: Vectors) -> Tensor:
    """Three vectors, three interactions, a ReLU layer on all six."""
    vectors = utterances(w, frames, "network.encoders.encoders")
    pairs = [
        linear(joined((vectors[a], vectors[b])), w, f"network.interactions.{a}_{b}.0").relu()
        for a, b in itertools.combinations(Modality, 2)
    ]
    return answered(linear(joined((*vectors.values(), *pairs)), w, "network.hidden.1").relu(), w)


def crnet(w: Weights, frames: Vectors) -> Tensor:
    """Of either subspace the text's and the other's projection, a ReLU layer on all four."""
    vectors = utterances(w, frames, "network.encoders.encoders")
    projected = []
    for m in OTHERS:
        projected.append(linear(vectors[TEXT], w, f"network.{m}.text.0").tanh())
        projected.append(linear(vectors[m], w, f"network.{m}.other.0").tanh())
    return answered(linear(joined(projected), w, "network.hidden.1").relu(), w)


def bimha(w: Weights, frames: Vectors) -> Tensor:
    """Outer products of two vectors each, attention among the three, a residual, two layers."""
    vectors = {TEXT: frames[TEXT][:, 0]}
    vectors |= {m: lstm(frames[m], w, f"network.recurrent.{m}.lstm")[:, -1] for m in OTHERS}
    vectors = {m: linear(x, w, f"network.project.{m}.0").tanh() for m, x in vectors.items()}
    pairs = [
        linear((vectors[a][:, :, None] * vectors[b][:, None]).flatten(1), w, f"network.pairs.{n}.0")
        for n, (a, b) in enumerate(((AUDIO, VISION), (AUDIO, TEXT), (VISION, TEXT)))
    ]
    rows = torch.stack(pairs, dim=1).relu()
    query = linear(rows, w, "network.attention.query")
    key, value = linear(rows, w, "network.attention.key_value").chunk(2, dim=-1)
    taken = linear(attention(query, key, value, num_heads=2), w, "network.attention.output")
    fused = layer_norm(rows + taken, w, "network.norm").flatten(1)
    return answered(linear(fused, w, "network.hidden.1").relu(), w)


def tefna(w: Weights, frames: Vectors) -> Tensor:
    """The text's mean, the means of what it took from audio and vision, TeCaFN's tanh head."""
    low = {m: convolution(x, w, f"network.convolutions.{m}.conv") for m, x in frames.items()}
    placed = {m: x + positions(*x.shape[1:], first=0) for m, x in low.items()}
    vectors = [low[TEXT].mean(1)]
    for m in OTHERS:
        stream = cross_modal(
            placed[TEXT], placed[m], renamed(w, f"network.crossings.{m}"), num_heads=2
        )
        vectors.append(stream.mean(1))
    hidden = joined(vectors)
    for layer in (0, 3, 6):
        hidden = linear(hidden, w, f"network.head.layers.{layer}").tanh()
    return 3 * linear(hidden, w, "network.head.layers.9").squeeze(1).tanh()


def iccn(w: Weights, frames: Vectors) -> Tensor:
    """[CLS]; audio and vision by convolution, ReLU and LSTM; a CNN on the text's outer products."""
    vectors = {TEXT: frames[TEXT][:, 0]}
    for m in OTHERS:
        read = convolution(frames[m], w, f"network.vectors.{m}.convolution.conv").relu()
        vectors[m] = lstm(read, w, f"network.vectors.{m}.lstm.lstm")[:, -1]
    said = {}
    for m in OTHERS:
        image = (vectors[TEXT][:, :, None] * vectors[m][:, None]).unsqueeze(1)
        for layer in ("first", "second"):
            weight, bias = (w[f"network.pairs.{m}.{layer}.{part}"] for part in ("weight", "bias"))
            image = torch.nn.functional.conv2d(image, weight, bias, padding=1).relu()
            image = torch.nn.functional.max_pool2d(image, 2, ceil_mode=True)
        said[m] = linear(image.flatten(1), w, f"network.pairs.{m}.project")
    return answered(joined((said[AUDIO], vectors[TEXT], said[VISION])), w)


def mtmd_vectors(w: Weights, frames: Vectors) -> Vectors:
    """[CLS] itself; last states with a linear layer."""
    vectors = {TEXT: frames[TEXT][:, 0]}
    for m in OTHERS:
        name = f"network.joined.encoders.encoders.{m}"
        last = lstm(frames[m], w, f"{name}.recurrent.lstm")[:, -1]
        vectors[m] = linear(last, w, f"{name}.project")
    return vectors


def mtmd(w: Weights, frames: Vectors) -> Tensor:
    """Self-MM's network: two ReLU layers on what is joined."""
    fused = linear(joined(mtmd_vectors(w, frames).values()), w, "network.joined.fuse.1").relu()
    hidden = linear(fused, w, "network.joined.hidden.0").relu()
    return linear(hidden, w, "network.joined.answer.linear").squeeze(1)


MTMD = MTMDConfig(
    audio_lstm_dim=3, vision_lstm_dim=4, audio_dim=3, vision_dim=4, fused_dim=6, task_dim=5
)
Reference = Callable[[Weights, Vectors], Tensor]
REFERENCES: dict[str, tuple[Any, Reference]] = {
    "hcil": (HCILConfig(dim=6, lstm_dim=4, temperature=0.5), hcil),
    "crnet": (CRNetConfig(dim=6, lstm_dim=4, step_size=0.5), crnet),
    "bimha": (
        BIMHAConfig(unimodal_dim=3, recurrent_dim=4, pair_dim=6, num_heads=2, hidden_dim=5),
        bimha,
    ),
    "tefna": (TeFNAConfig(dim=8, num_heads=2, num_layers=2), tefna),
    "iccn": (ICCNConfig(frame_dim=6, num_channels=2, pair_dim=3), iccn),
    "mtmd": (MTMD, mtmd),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", REFERENCES)
def test_it_computes_what_its_own_file_says(name: str, seed: int) -> None:
    config, reference = REFERENCES[name]
    scheme, batch = prepared(name, config, seed=seed)
    expected = reference(weights_of(scheme), frames_of(scheme.network, batch))
    assert_same(scheme.predict(batch), expected)
    # The answer listens to every modality.
    for m in OTHERS:
        moved = {
            k: v.values + (1.0 if k == m else 0) for k, v in scheme.network.frames(batch).items()
        }
        assert float((reference(weights_of(scheme), moved) - expected).detach().abs().max()) > 1e-4


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))


def test_hcil_predicts_each_modality_from_each_other_through_two_layers() -> None:
    scheme, batch = prepared("hcil", REFERENCES["hcil"][0])
    w, frames = weights_of(scheme), frames_of(scheme.network, batch)
    vectors = utterances(w, frames, "network.encoders.encoders")
    apart = []
    for a, b in itertools.permutations(Modality, 2):
        hidden = linear(vectors[a], w, f"predictors.{a}_to_{b}.0").relu()
        guess = linear(hidden, w, f"predictors.{a}_to_{b}.2")
        apart.append((1 - cosine(guess, vectors[b])).mean())
    assert_same(scheme.loss(batch, START).terms["prediction"], torch.stack(apart).mean())


def test_hcil_sentiments_are_the_sides_of_the_middle_and_the_middle_itself() -> None:
    scheme, _ = prepared("hcil", REFERENCES["hcil"][0])
    groups: Any = scheme.groups
    assert groups(torch.tensor([-3.0, -0.1, 0.0, 0.2, 3.0])).tolist() == [-1, -1, 0, 1, 1]
    assert groups(torch.tensor([0, 1, 1])).tolist() == [0, 1, 1]


def test_mtmds_tasks_and_classes_are_those_of_its_own_file() -> None:
    scheme, batch = prepared("mtmd", MTMD)
    w, frames = weights_of(scheme), frames_of(scheme.network, batch)
    assert batch.labels is not None
    vectors = mtmd_vectors(w, frames)
    features = {"fused": linear(joined(vectors.values()), w, "network.joined.fuse.1").relu()}
    errors = {}
    for m in Modality:
        features[m] = linear(vectors[m], w, f"tasks.heads.{m}.features.1").relu()
        hidden = linear(features[m], w, f"tasks.heads.{m}.hidden.0").relu()
        score = linear(hidden, w, f"tasks.heads.{m}.answer.linear").squeeze(1)
        errors[m] = (score - batch.labels).abs().mean()
    losses = scheme.loss(batch, START)
    for m in Modality:
        assert_same(losses.terms[m], errors[m])
    # Seven classes, -3 to 3; the nearest whole number is a sample's.
    entropies = []
    for name, feature in features.items():
        shares = linear(feature, w, f"classify.{name}").softmax(1)
        assert shares.shape[1] == 7
        rows = [-shares[i, round(y) + 3].log() for i, y in enumerate(batch.labels.tolist())]
        entropies.append(torch.stack(rows).mean())
    assert_same(losses.terms["class"], torch.stack(entropies).mean())


def test_mtmd_learns_from_copies_that_have_moved_apart_scores_and_classes() -> None:
    scheme, batch = prepared("mtmd", MTMD)  # stirring has moved students and copies differently
    w, frames = weights_of(scheme), frames_of(scheme.network, batch)
    terms = []
    for m in OTHERS:
        said = []
        for name in (
            (f"network.joined.encoders.encoders.{m}", f"tasks.heads.{m}", f"classify.{m}"),
            tuple(f"copies.{m}.module.{n}" for n in range(3)),
        ):
            encoder, head, classify = name
            last = lstm(frames[m], w, f"{encoder}.recurrent.lstm")[:, -1]
            feature = linear(linear(last, w, f"{encoder}.project"), w, f"{head}.features.1").relu()
            hidden = linear(feature, w, f"{head}.hidden.0").relu()
            score = linear(hidden, w, f"{head}.answer.linear").squeeze(1)
            said.append((score, (linear(feature, w, classify) / 2).log_softmax(1)))
        (score, own), (copied, theirs) = said
        terms.append((score - copied).abs().mean())
        terms.append(4 * (theirs.exp() * (theirs - own)).sum(1).mean())
    expected = torch.stack(terms).mean()
    assert expected.item() > 1e-3
    assert_same(scheme.loss(batch, START).terms["momentum"], expected)


def test_tefnas_bounds_have_the_temperature_of_its_settings() -> None:
    for temperature in (0.5, 1.0):
        config = TeFNAConfig(dim=8, num_heads=2, num_layers=2, temperature=temperature)
        scheme, batch = prepared("tefna", config)
        w, frames = weights_of(scheme), frames_of(scheme.network, batch)
        means = {
            m: convolution(x, w, f"network.convolutions.{m}.conv").mean(1)
            for m, x in frames.items()
        }
        for m in OTHERS:
            sides = [x / x.norm(dim=1, keepdim=True) for x in (means[TEXT], means[m])]
            scores = sides[0] @ sides[1].T / temperature
            expected = (scores.exp().sum(1).log() - scores.diagonal()).mean()
            got = scheme.loss(batch, START).terms[f"information_{m}"]
            assert_same(got, expected)
            assert math.isfinite(expected.item())
