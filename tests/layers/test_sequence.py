"""Positions, standardisation, pooling, convolution and LSTM over sequences with holes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Padded
from tecafn.layers.sequence import (
    MaskedConv1d,
    SequenceLSTM,
    Standardise,
    add_positions,
    masked_mean,
    sinusoidal_positions,
    zero_padding,
)

MASK = torch.tensor(
    [
        [True, True, True, True, True],
        [True, True, False, False, False],  # padding behind
        [False, False, True, True, True],  # padding in front
        [True, False, True, False, True],  # holes
        [False, True, False, False, False],
        [False, False, False, False, False],
    ]
)


def frames(seed: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*MASK.shape, dim, generator=generator, dtype=torch.float64)


def poisoned(values: Tensor) -> Tensor:
    """NaN in every masked frame."""
    return torch.where(MASK.unsqueeze(-1), values, float("nan"))


def test_zero_padding_removes_nan() -> None:
    values = frames(0, 3)
    cleaned = zero_padding(poisoned(values), MASK)
    assert torch.equal(cleaned[MASK], values[MASK])
    assert bool((cleaned[~MASK] == 0).all())


def test_pooling_is_the_mean_of_real_frames_and_zero_without_any() -> None:
    values = frames(1, 3)
    got = masked_mean(poisoned(values), MASK)
    for row, mask in enumerate(MASK):
        real = values[row][mask]
        expected = real.mean(0) if len(real) else torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(got[row], expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sequence_lstm_steps_a_cell_over_real_frames_only(seed: int) -> None:
    torch.manual_seed(seed)
    module = SequenceLSTM(3, 4).double()
    cell = nn.LSTMCell(3, 4).double()
    cell.load_state_dict(
        {name.removesuffix("_l0"): value for name, value in module.lstm.state_dict().items()}
    )
    values = frames(seed, 3)
    expected = torch.zeros(*MASK.shape, 4, dtype=torch.float64)
    for row in range(len(MASK)):
        state = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64)
        for t in range(MASK.shape[1]):
            if MASK[row, t]:
                state = cell(values[row, t].unsqueeze(0), state)
                expected[row, t] = state[0][0]
    states, _ = module(Padded(poisoned(values), MASK))
    torch.testing.assert_close(states.values, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_traced_lstm_turns_frames_where_packing_cannot_go(
    num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SequenceLSTM(3, 4, num_layers=num_layers, bidirectional=True).double()
    given = Padded(frames(0, 3), MASK)
    states, last = module(given)
    monkeypatch.setattr("tecafn.layers.sequence.is_traced", lambda: True)
    turned, last_turned = module(given)
    torch.testing.assert_close(turned.values, states.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(last_turned, last, rtol=0, atol=1e-12)


def test_sequence_lstm_gives_masked_frames_no_gradient() -> None:
    torch.manual_seed(0)
    module = SequenceLSTM(3, 4).double()
    values = frames(0, 3).requires_grad_()
    states, _ = module(Padded(values, MASK))
    states.values.square().sum().backward()
    assert values.grad is not None
    assert bool((values.grad[~MASK] == 0).all())
    assert bool((values.grad[MASK] != 0).all())


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution_sees_zeros_where_masked(kernel_size: int, depthwise: bool) -> None:
    torch.manual_seed(0)
    out_dim = 3 if depthwise else 4
    module = MaskedConv1d(3, out_dim, kernel_size=kernel_size, depthwise=depthwise).double()
    values = frames(2, 3)
    got = module(poisoned(values), MASK)
    half = kernel_size // 2
    for row in range(len(MASK)):
        for t in range(MASK.shape[1]):
            expected = module.conv.bias.clone()
            for k in range(kernel_size):
                at = t + k - half
                if 0 <= at < MASK.shape[1] and MASK[row, at]:
                    weight = module.conv.weight[:, :, k]
                    frame = values[row, at]
                    expected = expected + (
                        weight.squeeze(1) * frame if depthwise else weight @ frame
                    )
            torch.testing.assert_close(got[row, t], expected, rtol=0, atol=1e-12)


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd, got 2"):
        MaskedConv1d(3, 3, kernel_size=2)


@pytest.mark.parametrize("dim", [1, 2, 5, 30, 33])
def test_positions_are_sines_then_cosines(dim: int) -> None:
    got = sinusoidal_positions(40, dim)
    assert got.shape == (40, dim)
    half = (dim + 1) // 2
    for t in (0, 1, 7, 39):
        for column in range(dim):
            step = column if column < half else column - half
            angle = t * 10000.0 ** (-step / max(half - 1, 1))
            expected = math.sin(angle) if column < half else math.cos(angle)
            assert got[t, column].item() == pytest.approx(expected, abs=5e-6)


def test_positions_are_added_to_scaled_frames_from_the_first_one_on() -> None:
    values = frames(0, 6)
    codes = sinusoidal_positions(9, 6).double()
    assert torch.equal(add_positions(values), values + codes[:5])
    assert torch.equal(add_positions(values, scale=2.0, first=3), 2 * values + codes[3:8])


def test_positions_tell_frames_apart_and_do_not_depend_on_the_length() -> None:
    long = sinusoidal_positions(500, 30)
    assert torch.equal(sinusoidal_positions(7, 30), long[:7])
    distance = torch.cdist(long, long) + 10 * torch.eye(500)
    assert distance.min().item() > 0.1


def test_standardise_shifts_scales_and_clips() -> None:
    module = Standardise([1.0, -2.0, 5.0], [2.0, 0.5, 0.0]).double()
    values = torch.tensor([[[3.0, -2.5, 5.5], [1e6, -1e6, -1e6], [1.0, -2.0, 5.0]]]).double()
    expected = torch.tensor([[[1.0, -1.0, 0.5], [10.0, -10.0, -10.0], [0.0, 0.0, 0.0]]]).double()
    assert torch.equal(module(values), expected)


def test_statistics_travel_in_the_state() -> None:
    module = Standardise([1.0, -2.0], [2.0, 0.5])
    other = Standardise([0.0, 0.0], [1.0, 1.0])
    other.load_state_dict(module.state_dict())
    values = torch.randn(2, 3, 2)
    assert torch.equal(other(values), module(values))
    assert not list(module.parameters())
