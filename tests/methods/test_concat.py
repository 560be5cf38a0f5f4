"""The baseline: encoders, means over time, one row of vectors, TeCaFN's head, in slow loops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.layers.encoders import FrameEncoder, TextSequenceEncoder
from tecafn.methods.concat import Concat, ConcatConfig
from tecafn.testing import MethodCase, _double, method_case

SEEDS = (0, 1, 2)
TEXT, AUDIO, VISION = Modality
CONFIG = ConcatConfig(dim=6, num_heads=2, num_unimodal_layers=2, unimodal_hidden_dim=5)
START = Progress(seed=0, epoch=0)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("concat", config=CONFIG) as made:
        yield made


def network_of(case: MethodCase, seed: int) -> Concat:
    network = case.build(seed=seed, dropout=False).double().network.eval()
    assert isinstance(network, Concat)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def affine(x: list[float], layer: nn.Linear) -> list[float]:
    return [
        bias + sum(w * value for w, value in zip(row, x, strict=True))
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def score(fused: list[float], network: Concat) -> float:
    """Three tanh layers of 128, 256 and 128, then 3 tanh of a linear one."""
    linear = [layer for layer in network.head.layers if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [128, 256, 128, 1]
    for layer in linear[:-1]:
        fused = [math.tanh(value) for value in affine(fused, layer)]
    return 3 * math.tanh(affine(fused, linear[-1])[0])


def mean_of(encoder: Any, sequence: Padded, row: int) -> list[float]:
    """A sample's encoded frames, one by one, without any padding beside them."""
    alone = Padded(sequence.values[row : row + 1], sequence.mask[row : row + 1])
    encoded = encoder(alone)
    frames = [frame for frame, real in zip(encoded.values[0], alone.mask[0], strict=True) if real]
    return [sum(column) / len(frames) for column in zip(*(f.tolist() for f in frames), strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
def test_each_modality_is_the_mean_of_its_encoded_frames_and_the_head_takes_all_three(
    case: MethodCase, seed: int
) -> None:
    network, batch = network_of(case, seed), _double(case.mixed_batch(seed=seed))
    with torch.no_grad():
        output = network(batch)
        for row in range(batch.size):
            fused: list[float] = []
            for m in (TEXT, AUDIO, VISION):  # in this order
                if batch.present[m][row]:
                    fused += mean_of(network.encoders[m], batch.sequences[m], row)
                else:
                    fused += network.absent[m].tolist()
            wanted = torch.tensor(fused, dtype=torch.float64)
            torch.testing.assert_close(output.features["fused"][row], wanted, rtol=0, atol=1e-10)
            assert output.prediction[row].item() == pytest.approx(score(fused, network), abs=1e-10)


def test_its_encoders_are_tecafns_with_its_settings(case: MethodCase) -> None:
    config = dataclasses.replace(
        CONFIG,
        text_kernel_size=3,
        frame_kernel_size=5,
        embedding_dropout=0.11,
        attention_dropout=0.12,
        relu_dropout=0.13,
        residual_dropout=0.14,
        head_dropout=0.15,
    )
    network = dataclasses.replace(case, config=config).build().network
    assert isinstance(network, Concat)
    text = network.encoders[TEXT]
    assert isinstance(text, TextSequenceEncoder)
    assert text.convolution.conv.kernel_size == (3,)
    for m, width in case.info.widths.items():
        encoder: Any = network.encoders[m]
        assert isinstance(encoder, FrameEncoder)
        assert encoder.project.in_features == width
        torch.testing.assert_close(
            encoder.standardise.mean, torch.tensor(list(case.info.statistics[m].mean))
        )
        assert encoder.convolution.conv.kernel_size == (5,)
        assert (encoder.lstm.lstm.input_size, encoder.lstm.lstm.hidden_size) == (6, 5)
        assert len(encoder.transformer.layers) == 2
        layer: Any = encoder.transformer.layers[0]
        assert (layer.residual, layer.attention.num_heads) == ("printed", 2)
        assert encoder.embedding_dropout.probability == 0.11
        assert layer.attention.dropout == 0.12
        assert layer.feed_forward[2].probability == 0.13
        assert layer.residual_dropout.probability == 0.14
    assert network.head.layers[2].probability == 0.15


def test_a_modality_the_data_does_not_have_takes_no_room(case: MethodCase) -> None:
    info = dataclasses.replace(case.info, widths={AUDIO: case.info.widths[AUDIO]})
    scheme = dataclasses.replace(case, info=info).build()
    assert isinstance(scheme.network, Concat)
    assert [*scheme.network.encoders] == [TEXT, AUDIO]
    assert scheme.network.head.layers[0].in_features == 2 * CONFIG.dim


def test_the_errors_are_absolute_and_trained_through_every_part(case: MethodCase) -> None:
    scheme, batch = case.build(dropout=False), case.mixed_batch()
    losses = scheme.loss(batch, START)
    assert batch.labels is not None
    errors = [
        abs(a - b)
        for a, b in zip(losses.output.prediction.tolist(), batch.labels.tolist(), strict=True)
    ]
    assert losses.total.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    torch.autograd.backward(losses.total)
    silent = [
        name
        for name, p in scheme.named_parameters()
        if (p.grad is None or not bool((p.grad != 0).any())) and not name.endswith("self.key.bias")
    ]
    assert silent == []


def test_a_score_reaches_no_further_than_the_label_range(case: MethodCase) -> None:
    network: Any = network_of(case, 0)
    for bias, end in ((100.0, 3.0), (-100.0, -3.0)):
        with torch.no_grad():
            network.head.layers[-1].bias.fill_(bias)
            scores: Tensor = network(_double(case.mixed_batch())).prediction
        torch.testing.assert_close(scores, torch.full_like(scores, end))
