"""TETFN against the computation of MMSA's code of it (``TETFN.py``), wired as published."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from typing import Any

import pytest
import torch
from plain_torch import (
    AUDIO,
    TEXT,
    VISION,
    apart,
    assert_same,
    cross_modal,
    frames_of,
    linear,
    lstm,
    positions,
    prepared,
    renamed,
    weights_of,
)
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.experiments.shipped import configs_folder
from tecafn.methods.tetfn import TETFNConfig

PUBLISHED = TETFNConfig(
    dim=8,
    num_heads=2,
    num_layers=2,
    num_lower_layers=1,
    num_memory_layers=2,
    scaled_inputs=True,
    positions="each",
    streams="all",
    reading="last",
    fusion_dim=6,
    kernel_size=1,
    audio_lstm_dim=3,
    vision_lstm_dim=4,
    task_dim=4,
)
SEEDS = (0, 1)


def reference(network: Any, batch: Any, *, is_causal: bool = False, one_norm: bool = False) -> Any:
    """Prediction, the fused feature, and the maxima that the unimodal tasks read.

    Args:
        network: gives its weights.
        batch: complete.
        is_causal: as published, see ``cross_modal``.
        one_norm: likewise.
    """
    w, frames = weights_of(network), frames_of(network, batch)
    x = {}
    for m in Modality:
        own = frames[m]
        if m != TEXT:
            own = lstm(own, w, f"recurrent.{m}.lstm")
        kernel, bias = w[f"convolutions.{m}.conv.weight"], w[f"convolutions.{m}.conv.bias"]
        x[m] = own @ kernel.squeeze(2).T + bias
    maxima = {f"vector_{m}": x[m].max(1).values for m in Modality}

    def placed(values: Tensor) -> Tensor:
        length, dim = values.shape[1:]
        return math.sqrt(dim) * values + positions(length, dim, first=1)

    def transformer(name: str, target: Tensor, source: Tensor | None = None) -> Tensor:
        return cross_modal(
            placed(target),
            None if source is None else placed(source),
            renamed(w, name),
            num_heads=2,
            is_causal=is_causal,
            one_norm=one_norm,
        )

    def enhanced(name: str, target: Tensor, source: Tensor) -> Tensor:
        """The source has looked at the text when the target looks at it."""
        return transformer(f"{name}.upper", target, transformer(f"{name}.lower", source, x[TEXT]))

    streams = {
        TEXT: [
            transformer("text_from_audio", x[TEXT], x[AUDIO]),
            transformer("text_from_vision", x[TEXT], x[VISION]),
        ],
        AUDIO: [
            transformer("from_text.audio", x[AUDIO], x[TEXT]),
            enhanced("audio_from_vision", x[AUDIO], x[VISION]),
        ],
        VISION: [
            transformer("from_text.vision", x[VISION], x[TEXT]),
            enhanced("vision_from_audio", x[VISION], x[AUDIO]),
        ],
    }
    last = [transformer(f"memories.{m}", torch.cat(s, 2))[:, -1] for m, s in streams.items()]
    fused = linear(torch.cat(last, dim=1), w, "block.1").relu()
    score = linear(linear(fused, w, "hidden.0").relu(), w, "answer.linear").squeeze(1)
    return {**maxima, "fused": fused, "prediction": score}


@pytest.mark.parametrize("seed", SEEDS)
def test_wired_as_published_it_computes_what_is_published(seed: int) -> None:
    scheme, batch = prepared("tetfn", PUBLISHED, seed=seed)
    output = scheme.network(batch)
    found = {**output.features, "prediction": output.prediction}
    assert_same(found, reference(scheme.network, batch))


def test_one_layernorm_for_query_and_source_is_the_same_once_its_weights_are() -> None:
    scheme, batch = prepared("tetfn", PUBLISHED)
    one_norm = reference(scheme.network, batch, one_norm=True)["prediction"]
    assert apart(scheme.predict(batch), one_norm) > 1e-4
    with torch.no_grad():
        for name, parameter in scheme.network.named_parameters():
            if ".source_norm." in name:
                parameter.copy_(
                    scheme.network.get_parameter(name.replace("source_norm", "attention_norm"))
                )
    one_norm = reference(scheme.network, batch, one_norm=True)["prediction"]
    assert_same(scheme.predict(batch), one_norm)


def test_the_published_causal_mask_is_what_is_left_out() -> None:
    scheme, batch = prepared("tetfn", PUBLISHED)
    masked = reference(scheme.network, batch, is_causal=True)["prediction"]
    assert apart(scheme.predict(batch), masked) > 1e-4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scaled_inputs", False),
        ("positions", "once"),
        ("reading", "maximum"),
    ],
)
def test_each_switch_away_from_the_published_wiring_makes_a_difference(
    name: str, value: Any
) -> None:
    scheme, batch = prepared("tetfn", PUBLISHED)
    other, _ = prepared("tetfn", dataclasses.replace(PUBLISHED, **{name: value}))
    other.load_state_dict(scheme.state_dict())  # none of these has weights of its own
    assert apart(scheme.predict(batch), other.predict(batch)) > 1e-4


@pytest.mark.parametrize("folder", ["synthetic", "mosi", "mosei"])
def test_the_published_config_has_every_switch_as_published(folder: str) -> None:
    path = configs_folder() / folder / "tetfn_published.toml"
    model = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
    switches = (
        "num_layers",
        "num_lower_layers",
        "num_memory_layers",
        "scaled_inputs",
        "positions",
        "streams",
        "reading",
    )
    assert {name: model[name] for name in switches} == {
        name: getattr(PUBLISHED, name) for name in switches
    }
    assert (model["fusion_dim"], model["first_weight"]) == (64, 0.0)
