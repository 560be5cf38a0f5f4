"""MFN and MFM against MMSA's code of them (``MFN.py``, ``MFM.py``)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_torch import (
    AUDIO,
    SIZE,
    Weights,
    apart,
    assert_same,
    linear,
    lstm,
    memory_fusion,
    prepared,
    renamed,
    weights_of,
    without_frame,
    word_frames,
)
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.losses.mmd import normal_mmd
from tecafn.methods.mfm import MFMConfig
from tecafn.methods.mfn import MFNConfig

MEMORY = {
    "text_hidden_dim": 5,
    "audio_hidden_dim": 3,
    "vision_hidden_dim": 4,
    "memory_dim": 6,
    "attention_dim": 5,
    "candidate_dim": 4,
    "retain_dim": 3,
    "update_dim": 5,
}
MFN = MFNConfig(**MEMORY, output_dim=7)
MFM = MFMConfig(
    **MEMORY,
    joint_code_dim=5,
    text_code_dim=4,
    audio_code_dim=3,
    vision_code_dim=4,
    joint_factor_dim=4,
    text_factor_dim=3,
    audio_factor_dim=2,
    vision_factor_dim=3,
)
SEEDS = (0, 1)


def mfn(network: Any, batch: Any) -> Tensor:
    w = weights_of(network)
    last = memory_fusion(word_frames(network, batch), renamed(w, "fusion"))
    return linear(linear(last, w, "hidden.0").relu(), w, "answer.linear").squeeze(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_mfn_computes_what_is_published(seed: int) -> None:
    scheme, batch = prepared("mfn", MFN, seed=seed)
    expected = mfn(scheme.network, batch)
    assert_same(scheme.predict(batch), expected)
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    assert batch.labels is not None
    assert_same(losses.terms, {"task": (expected - batch.labels).abs().mean()})


def test_a_missing_frame_keeps_the_state_where_the_published_code_reads_a_frame_of_zeros() -> None:
    scheme, batch = prepared("mfn", MFN)
    holed = without_frame(batch, AUDIO, 2)
    published = mfn(scheme.network, holed)  # whose frame is zero there
    assert apart(scheme.predict(holed)[:1], published[:1]) > 1e-6
    assert_same(scheme.predict(holed)[1:], published[1:])


def factor_of(code: Tensor, w: Weights, name: str, *, last_relu: bool) -> Tensor:
    factor = linear(linear(code, w, f"{name}.0").relu(), w, f"{name}.3")
    return factor.relu() if last_relu else factor


def decoded(both: Tensor, length: int, w: Weights, *, feeds_back: bool) -> Tensor:
    """Published: the factors enter once, then the hidden state is fed back."""
    cell = hidden = both.new_zeros(both.shape)
    states = []
    for t in range(length):
        entering = hidden if feeds_back and t else both
        gates = entering @ w["decoder.weight_ih_l0"].T + w["decoder.bias_ih_l0"]
        gates = gates + hidden @ w["decoder.weight_hh_l0"].T + w["decoder.bias_hh_l0"]
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        states.append(hidden)
    return linear(torch.stack(states, dim=1), w, "rebuild")


def mfm(
    scheme: Any, batch: Any, *, last_relu: bool = False, feeds_back: bool = False
) -> dict[str, Tensor]:
    """Prediction, codes, and the squared error of each modality's rebuilt frames."""
    w, x = weights_of(scheme.network), word_frames(scheme.network, batch)
    code = linear(memory_fusion(x, renamed(w, "fusion")), w, "code")
    joint = factor_of(code, w, "factor", last_relu=last_relu)
    score = linear(linear(joint, w, "hidden.0").relu(), w, "answer.linear").squeeze(1)
    found = {"prediction": score, "code": code}
    for m in Modality:
        own = renamed(weights_of(scheme), f"generators.{m}")
        found[f"code_{m}"] = linear(lstm(x[m], own, "encoder.lstm")[:, -1], own, "code")
        factor = factor_of(found[f"code_{m}"], own, "factor", last_relu=last_relu)
        both = torch.cat([joint, factor], dim=1)
        rebuilt = decoded(both, x[m].shape[1], own, feeds_back=feeds_back)
        found[f"reconstruction_{m}"] = (rebuilt - x[m].detach()).square().mean()
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_mfm_computes_what_is_published_without_the_last_relu_and_the_feedback(seed: int) -> None:
    scheme, batch = prepared("mfm", MFM, seed=seed)
    losses, expected = scheme.loss(batch, Progress(seed=0, epoch=0)), mfm(scheme, batch)
    assert_same(losses.output.prediction, expected["prediction"])
    for m in Modality:
        name = f"reconstruction_{m}"
        assert_same(losses.terms[name], expected[name])
    assert batch.labels is not None
    assert_same(losses.terms["task"], (expected["prediction"] - batch.labels).abs().mean())
    everyone = torch.ones(SIZE, dtype=torch.bool)
    codes = [expected["code"], *(expected[f"code_{m}"] for m in Modality)]
    mmd = sum(normal_mmd(c, present=everyone, variance=c.shape[1] ** 2 / 2) for c in codes)
    assert_same(losses.terms["discrepancy"], mmd)


def test_each_of_mfms_two_departures_makes_a_difference() -> None:
    scheme, batch = prepared("mfm", MFM)
    ours = mfm(scheme, batch)
    relu = mfm(scheme, batch, last_relu=True)["prediction"]
    assert apart(ours["prediction"], relu) > 1e-4
    fed = mfm(scheme, batch, feeds_back=True)
    assert_same(fed["prediction"], ours["prediction"])
    assert apart(fed["reconstruction_audio"], ours["reconstruction_audio"]) > 1e-8


def test_the_closed_form_of_the_discrepancy_is_the_mean_over_draws_of_the_normal() -> None:
    generator = torch.Generator().manual_seed(3)
    codes = 0.5 + torch.randn(16, 3, generator=generator, dtype=torch.float64)

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        """Published: exp of minus the mean square over columns, once more over their number."""
        squares = (one.unsqueeze(1) - other).square().mean(2)
        return (-squares / one.shape[1]).exp().mean()

    draws = []
    for _ in range(2000):
        normal = torch.randn(16, 3, generator=generator, dtype=torch.float64)
        published = kernel(normal, normal) + kernel(codes, codes) - 2 * kernel(normal, codes)
        draws.append(published)
    values = torch.stack(draws)
    variance = 3**2 / 2
    everyone = torch.ones(16, dtype=torch.bool)
    closed = normal_mmd(codes, present=everyone, variance=variance)
    # A draw's vectors are each also paired with themselves, which the closed form has no share of.
    excess = (1 - (variance / (variance + 2)) ** 1.5) / 16
    error = float(values.std() / 2000**0.5)
    assert abs(float(values.mean() - closed - excess)) < 4 * error
