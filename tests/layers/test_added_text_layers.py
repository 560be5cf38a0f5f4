"""Layers added to the text encoder: the same for every method, trained, none by default."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from slow_tecafn import layer_norm, numbers, plus, randomise, transformer
from torch import Tensor

import tecafn.methods  # noqa: F401  registers every method
from tecafn.core.batch import Padded
from tecafn.core.info import DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS
from tecafn.core.scheme import parameter_groups
from tecafn.layers.attention import MultiHeadAttention
from tecafn.layers.sequence import sinusoidal_positions
from tecafn.layers.text_encoder import (
    AddedLayers,
    StoredTextVectors,
    TextEncoder,
    build_text_encoder,
)
from tecafn.testing import MethodCase, method_case


def stored(num_added_layers: int) -> StoredTextVectors:
    info = DataInfo(
        widths={Modality.TEXT: 6},
        text_encoder=TextEncoderSpec(source="features", num_added_layers=num_added_layers),
    )
    encoder = build_text_encoder(info)
    assert isinstance(encoder, StoredTextVectors)
    return encoder


def some_text() -> Padded:
    values = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    mask = torch.arange(5) < torch.tensor([5, 2, 3]).unsqueeze(1)
    return Padded(torch.where(mask.unsqueeze(-1), values, float("nan")), mask)


def with_added(case: MethodCase, count: int, *, trained: int | None = 0) -> MethodCase:
    spec = dataclasses.replace(
        case.info.text_encoder, num_added_layers=count, num_trained_layers=trained
    )
    return dataclasses.replace(case, info=dataclasses.replace(case.info, text_encoder=spec))


def test_by_default_nothing_is_added() -> None:
    assert TextEncoderSpec().num_added_layers == 0
    encoder, text = stored(0), some_text()
    assert not list(encoder.parameters())
    wanted = text.values.masked_fill(~text.mask.unsqueeze(-1), 0.0)
    assert torch.equal(encoder(text).values, wanted)
    with pytest.raises(ValueError, match="num_added_layers must be >= 0"):
        TextEncoderSpec(num_added_layers=-1)


def test_stored_vectors_are_placed_and_go_through_pre_norm_layers() -> None:
    encoder = randomise(stored(2), 1)
    layers: Any = encoder.added_layers.transformer
    text = some_text()
    got = encoder(text)
    for row in range(3):
        mask = numbers(text.mask[row])
        frames = [
            frame if real else [0.0] * 6
            for frame, real in zip(numbers(text.values[row]), mask, strict=True)
        ]
        codes = numbers(sinusoidal_positions(5, 6))
        placed = [plus(frame, code) for frame, code in zip(frames, codes, strict=True)]
        states = transformer(placed, None, mask, layers, "pre_norm")
        states = [layer_norm(frame, layers.closing_norm) for frame in states]
        states = [s if real else [0.0] * 6 for s, real in zip(states, mask, strict=True)]
        wanted = torch.tensor(states, dtype=torch.float64)
        torch.testing.assert_close(got.values[row].detach(), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("dim", "heads"),
    [(384, 8), (300, 6), (30, 6), (25, 5), (20, 5), (12, 6), (28, 4), (9, 3), (14, 2), (7, 1)],
)
def test_there_are_as_many_heads_as_divide_the_width(dim: int, heads: int) -> None:
    layers = AddedLayers(dim, num_layers=1)
    assert len(layers) == 1
    assert {m.num_heads for m in layers.modules() if isinstance(m, MultiHeadAttention)} == {heads}


def test_cached_states_of_a_frozen_encoder_give_what_token_ids_give() -> None:
    with method_case("concat") as case:
        scheme = with_added(case, 2).build().eval()
        encoder = next(m for m in scheme.modules() if isinstance(m, TextEncoder))
        tokens = case.mixed_batch().sequences[Modality.TEXT]
        states = encoder.run_frozen(tokens)
        torch.testing.assert_close(encoder(tokens).values, encoder(states).values)
        without = TextEncoder(dataclasses.replace(case.info.text_encoder, num_trained_layers=0))
        assert without.frozen_fingerprint() == encoder.frozen_fingerprint()
        assert encoder.num_trained_layers == 2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_the_added_layers_and_nothing_else_of_a_frozen_encoder(
    name: str,
) -> None:
    with method_case(name) as case:
        scheme = with_added(case, 1).build()
        groups = parameter_groups(scheme)
        assert set(groups) == {"main"}
        encoders = [m for m in scheme.modules() if isinstance(m, TextEncoder)]
        assert encoders
        added = {
            f"{number}.{key}": parameter
            for number, encoder in enumerate(encoders)
            for key, parameter in encoder.added_layers.named_parameters()
            if parameter.requires_grad
        }
        assert added
        untrained = set(added)
        for seed in range(2):
            batch = case.mixed_batch(seed=seed)
            for phase in scheme.phases():
                scheme.zero_grad(set_to_none=True)
                phase.loss(batch, Progress(seed=0, epoch=0)).total.backward()
                untrained -= {k for k, p in added.items() if moved(p.grad)}
        # A key's bias moves all scores of a query alike.
        assert {key for key in untrained if "key_value.bias" not in key} == set()


def moved(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


def test_a_trained_encoder_keeps_its_own_learning_rate() -> None:
    with method_case("concat") as case:
        scheme = with_added(case, 1, trained=None).build()
        groups = {name: {id(p) for p in ps} for name, ps in parameter_groups(scheme).items()}
        encoder = next(m for m in scheme.modules() if isinstance(m, TextEncoder))
        added = {id(p) for p in encoder.added_layers.parameters()}
        assert added <= groups["main"]
        assert {id(p) for p in encoder.layers.parameters()} <= groups["text_encoder"]
