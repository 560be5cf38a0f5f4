"""TFN (Zadeh et al. 2017): the sub-networks and the outer product against slow loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from tecafn.core.batch import Padded
from tecafn.core.modality import Modality
from tecafn.layers.subnetworks import FrameSubnetwork, TextSubnetwork
from tecafn.methods.tfn import TFN, TFNConfig, tensor_fusion
from tecafn.testing import method_case

SEEDS = (0, 1, 2)
TEXT, AUDIO, VISION = Modality


@pytest.mark.parametrize("seed", SEEDS)
def test_fusion_is_the_outer_product_with_a_one_before_each_vector(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(4, dim, generator=generator, dtype=torch.float64) for dim in (2, 3, 5)]
    got = tensor_fusion(vectors)
    for row in range(4):
        text, audio, vision = ([1.0, *vector[row].tolist()] for vector in vectors)
        expected = [a * b * c for a, b, c in itertools.product(text, audio, vision)]
        torch.testing.assert_close(got[row], torch.tensor(expected, dtype=torch.float64))


def test_fusion_holds_every_modality_alone_and_every_pair() -> None:
    text, audio, vision = torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([[5.0]])
    entries = set(tensor_fusion([text, audio, vision])[0].tolist())
    assert entries == {1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 15.0, 30.0}


@pytest.mark.parametrize("seed", SEEDS)
def test_text_is_the_last_state_of_an_lstm_that_skips_masked_tokens(seed: int) -> None:
    torch.manual_seed(seed)
    module = TextSubnetwork(3, hidden_dim=4, out_dim=2, dropout=0.0).double()
    values = torch.randn(2, 5, 3, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    got = module(Padded(values, mask), torch.ones(2, dtype=torch.bool))
    cell = nn.LSTMCell(3, 4).double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).data = getattr(module.lstm.lstm, name + "_l0").data
    for row in range(2):
        hidden = memory = torch.zeros(1, 4, dtype=torch.float64)
        for place in range(5):
            if mask[row, place]:
                hidden, memory = cell(values[row, place].unsqueeze(0), (hidden, memory))
        torch.testing.assert_close(got[row], module.linear(hidden)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_frames_are_averaged_normalised_and_passed_through_three_relu_layers(seed: int) -> None:
    torch.manual_seed(seed)
    module = FrameSubnetwork(3, hidden_dim=4, dropout=0.0).double()
    values = torch.randn(5, 6, 3, dtype=torch.float64)
    mask = torch.rand(5, 6) < 0.6
    mask[:, 0] = True
    present = torch.tensor([True, True, False, True, True])
    got = module(Padded(values, mask), present)
    means = torch.stack([values[row][mask[row]].mean(0) for row in range(5)])
    mean, variance = means[present].mean(0), means[present].var(0, unbiased=False)
    hidden = (means - mean) / (variance + module.norm.eps).sqrt()
    linears = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
    assert len(linears) == 3
    for linear in linears:
        hidden = (hidden @ linear.weight.T + linear.bias).clamp(min=0)
    torch.testing.assert_close(got[present], hidden[present])


def test_a_score_stays_within_the_label_range() -> None:
    with method_case("tfn") as case:
        network = case.build().network.eval()
        assert isinstance(network, TFN)
        with torch.no_grad():
            network.answer.linear.bias.fill_(100.0)
            high = network(case.mixed_batch()).prediction
            network.answer.linear.bias.fill_(-100.0)
            low = network(case.mixed_batch()).prediction
    torch.testing.assert_close(high, torch.full_like(high, 3.0))
    torch.testing.assert_close(low, torch.full_like(low, -3.0))


def test_the_product_is_as_wide_as_the_modalities_in_use() -> None:
    with method_case("tfn", config=TFNConfig(text_dim=4, audio_dim=2, vision_dim=3)) as case:
        network = case.build().network
        assert isinstance(network, TFN)
        vectors = network.subnetworks(case.mixed_batch())
    assert [(m, vector.shape[1]) for m, vector in vectors.items()] == [
        (TEXT, 4),
        (AUDIO, 2),
        (VISION, 3),
    ]
    first = network.inference[1]
    assert isinstance(first, nn.Linear)
    assert first.in_features == 5 * 3 * 4
