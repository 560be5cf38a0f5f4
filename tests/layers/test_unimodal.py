"""Vectors of single modalities: LSTMs with holes, learned slots, statistics of the batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.layers.heads import OutputLayer
from tecafn.layers.sequence import SequenceLSTM
from tecafn.layers.unimodal import AbsentVectors, GlobalBatchNorm, ModalityFrames, pool

TEXT, AUDIO, VISION = Modality
MASK = torch.tensor(
    [
        [True, True, True, True],
        [True, True, False, False],
        [False, True, False, True],  # a hole and padding in front
        [False, False, False, False],
    ]
)


def sequence(seed: int, dim: int) -> Padded:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*MASK.shape, dim, generator=generator, dtype=torch.float64)
    return Padded(torch.where(MASK.unsqueeze(-1), values, float("nan")), MASK)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_lstm_of_a_row_is_the_lstm_of_its_real_frames(num_layers: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    module = SequenceLSTM(3, 4, num_layers=num_layers, bidirectional=bidirectional).double()
    frames = sequence(0, 3)
    states, last = module(frames)
    for row in range(3):
        real = frames.values[row][MASK[row]].unsqueeze(0)
        expected, (final, _) = module.lstm(real)
        torch.testing.assert_close(states.values[row][MASK[row]], expected[0])
        ends = [final[-2, 0], final[-1, 0]] if bidirectional else [final[-1, 0]]
        torch.testing.assert_close(last[row], torch.cat(ends))
    assert not bool(states.values[~MASK].any())
    assert not bool(last[3].any())


def test_pooling_takes_the_first_real_frame_or_the_mean() -> None:
    frames = sequence(1, 2)
    first, mean = pool(frames, "first"), pool(frames, "mean")
    for row in range(3):
        real = frames.values[row][MASK[row]]
        torch.testing.assert_close(first[row], real[0])
        torch.testing.assert_close(mean[row], real.mean(0))
    assert not bool(first[3].any())
    assert not bool(mean[3].any())


def test_slots_fill_what_a_sample_or_the_whole_batch_lacks() -> None:
    slots = AbsentVectors({Modality.TEXT: 2, Modality.AUDIO: 2})
    with torch.no_grad():
        slots.vectors[Modality.TEXT].fill_(7.0)
        slots.vectors[Modality.AUDIO].fill_(8.0)
    batch = Batch(
        sequences={Modality.TEXT: Padded(torch.ones(2, 1, 2), torch.tensor([[True], [False]]))},
        present={Modality.TEXT: torch.tensor([True, False])},
        labels=None,
        index=torch.arange(2),
        ids=("a", "b"),
    )
    filled = slots({Modality.TEXT: torch.ones(2, 2)}, batch)
    assert list(filled) == [Modality.TEXT, Modality.AUDIO]
    assert filled[Modality.TEXT].tolist() == [[1.0, 1.0], [7.0, 7.0]]
    assert filled[Modality.AUDIO].tolist() == [[8.0, 8.0], [8.0, 8.0]]


def test_presence_is_of_what_the_sample_has_and_the_network_reads() -> None:
    info = DataInfo(widths={AUDIO: 2, VISION: 3}, modalities=(AUDIO, VISION))
    everyone = torch.ones(2, 4, dtype=torch.bool)
    ids = Padded(torch.ones(2, 4, dtype=torch.int64), everyone)
    batch = Batch(
        sequences={TEXT: ids, AUDIO: Padded(torch.zeros(2, 4, 2), everyone)},
        present={TEXT: torch.tensor([True, True]), AUDIO: torch.tensor([True, False])},
        labels=None,
        index=torch.arange(2),
        ids=("a", "b"),
    )
    presence = ModalityFrames(info).presence(batch)
    assert {m: there.tolist() for m, there in presence.items()} == {
        TEXT: [False, False],  # not in use
        AUDIO: [True, False],
        VISION: [False, False],  # no tensor
    }


def test_batch_norm_is_torchs_on_the_rows_that_count() -> None:
    ours, theirs = GlobalBatchNorm(3).double(), nn.BatchNorm1d(3).double()
    generator = torch.Generator().manual_seed(0)
    present = torch.tensor([True, False, True, True, False, True])
    for _ in range(3):
        vectors = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(ours(vectors, present)[present], theirs(vectors[present]))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    vectors = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    before = ours.running_mean.clone()
    alone = ours(vectors, torch.tensor([True]))
    torch.testing.assert_close(ours.running_mean, before)
    torch.testing.assert_close(alone, theirs.eval()(vectors))


@pytest.mark.parametrize(("output", "bound"), [("tanh", 2.0), ("sigmoid", 2.0)])
def test_bounded_answers_reach_the_label_range_and_no_further(output: str, bound: float) -> None:
    answer = OutputLayer(1, DataInfo(widths={}, label_range=(-1.0, bound)), output=output)  # type: ignore[arg-type]
    with torch.no_grad():
        answer.linear.weight.fill_(1.0)
        answer.linear.bias.zero_()
    got = answer(torch.tensor([[-100.0], [0.0], [100.0]]))
    torch.testing.assert_close(got, torch.tensor([-1.0, (bound - 1.0) / 2, bound]))


def test_logits_are_never_bounded() -> None:
    info = DataInfo(widths={}, task="classification", num_classes=2)
    answer = OutputLayer(3, info, output="tanh")
    assert answer(100 * torch.ones(4, 3)).shape == (4, 2)
    assert answer.scale.scale == "linear"
