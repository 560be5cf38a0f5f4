"""MFN's recurrence (Zadeh et al. 2018) in plain loops, and the joint frames it runs over."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.layers.memory_fusion import MemoryFusion, MemoryFusionSettings, joint_frames

TEXT, AUDIO, VISION = Modality
SEEDS = (0, 1, 2)
DIMS = {TEXT: 4, AUDIO: 2, VISION: 3}
SETTINGS = MemoryFusionSettings(
    text_hidden_dim=3,
    audio_hidden_dim=2,
    vision_hidden_dim=2,
    memory_dim=4,
    attention_dim=5,
    candidate_dim=3,
    retain_dim=2,
    update_dim=6,
    attention_dropout=0.0,
    candidate_dropout=0.0,
    retain_dropout=0.0,
    update_dropout=0.0,
)
Vector = list[float]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def affine(x: Vector, weight: Tensor, bias: Tensor) -> Vector:
    return [
        b + sum(w * value for w, value in zip(row, x, strict=True))
        for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
    ]


def two_layers(x: Vector, module: Any) -> Vector:
    hidden = [max(0.0, v) for v in affine(x, module[0].weight, module[0].bias)]
    return affine(hidden, module[3].weight, module[3].bias)


def lstm_step(
    x: Vector, hidden: Vector, cell: Vector, module: nn.LSTMCell
) -> tuple[Vector, Vector]:
    gates = [
        a + b
        for a, b in zip(
            affine(x, module.weight_ih, module.bias_ih),
            affine(hidden, module.weight_hh, module.bias_hh),
            strict=True,
        )
    ]
    size = len(hidden)
    new_hidden, new_cell = [], []
    for k in range(size):
        enter, forget = sigmoid(gates[k]), sigmoid(gates[size + k])
        candidate, leave = math.tanh(gates[2 * size + k]), sigmoid(gates[3 * size + k])
        new_cell.append(forget * cell[k] + enter * candidate)
        new_hidden.append(leave * math.tanh(new_cell[k]))
    return new_hidden, new_cell


def slow(
    module: MemoryFusion, frames: dict[Modality, Padded], row: int
) -> tuple[dict[Modality, Vector], Vector]:
    """One sample, frame by frame, number by number."""
    hidden = {m: [0.0] * size for m, size in module.hidden_dims.items()}
    cells = {m: [0.0] * size for m, size in module.hidden_dims.items()}
    memory = [0.0] * module.memory_dim
    length = next(iter(frames.values())).mask.shape[1]
    for step in range(length):
        here = [m for m in frames if bool(frames[m].mask[row, step])]
        if not here:
            continue
        before = [value for m in module.hidden_dims for value in cells[m]]
        for m in here:
            cell = module.cells[m]
            assert isinstance(cell, nn.LSTMCell)
            x = frames[m].values[row, step].tolist()
            hidden[m], cells[m] = lstm_step(x, hidden[m], cells[m], cell)
        after = [value for m in module.hidden_dims for value in cells[m]]
        joined = before + after
        powers = [math.exp(score) for score in two_layers(joined, module.attention)]
        attended = [c * p / sum(powers) for c, p in zip(joined, powers, strict=True)]
        candidate = [math.tanh(v) for v in two_layers(attended, module.candidate)]
        retain = [sigmoid(v) for v in two_layers(attended + memory, module.retain)]
        update = [sigmoid(v) for v in two_layers(attended + memory, module.update)]
        memory = [
            r * u + g * c for r, u, g, c in zip(retain, memory, update, candidate, strict=True)
        ]
    return hidden, memory


def module_and_frames(seed: int) -> tuple[MemoryFusion, dict[Modality, Padded]]:
    torch.manual_seed(seed)
    module = MemoryFusion(DIMS, SETTINGS).double()
    with torch.no_grad():  # far from linear, so that every gate shows
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    frames = {}
    for modality, dim in DIMS.items():
        mask = torch.rand(3, 6) < 0.6
        mask[:, 2] = False  # a frame that all lack
        if modality == AUDIO:
            mask[1] = False  # a sample without audio
        values = torch.randn(3, 6, dim, dtype=torch.float64)
        frames[modality] = Padded(values * mask.unsqueeze(-1), mask)
    return module, frames


@pytest.mark.parametrize("seed", SEEDS)
def test_recurrence_is_the_papers_number_by_number(seed: int) -> None:
    module, frames = module_and_frames(seed)
    hidden, memory = module(frames)
    for row in range(3):
        slow_hidden, slow_memory = slow(module, frames, row)
        torch.testing.assert_close(memory[row].tolist(), slow_memory)
        for m in DIMS:
            torch.testing.assert_close(hidden[m][row].tolist(), slow_hidden[m])


def test_a_modality_without_tensors_is_as_one_that_is_masked() -> None:
    module, frames = module_and_frames(0)
    masked = Padded(torch.zeros_like(frames[AUDIO].values), torch.zeros(3, 6, dtype=torch.bool))
    hidden, memory = module(frames | {AUDIO: masked})
    without, same_memory = module({m: p for m, p in frames.items() if m != AUDIO})
    torch.testing.assert_close(same_memory, memory)
    for m in DIMS:
        torch.testing.assert_close(without[m], hidden[m])


def batch_of(sequences: dict[Modality, Padded], spoken: Tensor | None) -> Batch:
    size = len(next(iter(sequences.values())).mask)
    return Batch(
        sequences=sequences,
        present={m: p.mask.any(1) for m, p in sequences.items()},
        labels=None,
        index=torch.arange(size),
        ids=tuple(map(str, range(size))),
        frame_of_token=spoken,
    )


def test_a_text_frame_is_the_mean_of_the_tokens_spoken_in_it() -> None:
    tokens = torch.tensor([[[9.0], [1.0], [3.0], [5.0], [9.0]]])
    text = Padded(tokens, torch.ones(1, 5, dtype=torch.bool))
    audio = Padded(torch.ones(1, 2, 1), torch.tensor([[True, False]]))
    spoken = torch.tensor([[-1, 0, 0, 3, -1]])
    frames = {TEXT: text, AUDIO: audio}
    joint = joint_frames(frames, batch_of(frames, spoken))
    assert joint[TEXT].values.flatten().tolist() == [2.0, 0.0, 0.0, 5.0]
    assert joint[TEXT].mask.tolist() == [[True, False, False, True]]
    assert joint[AUDIO].values.flatten().tolist() == [1.0, 1.0, 0.0, 0.0]
    assert joint[AUDIO].mask.tolist() == [[True, False, False, False]]


def test_frames_of_masked_tokens_make_no_sequence_longer() -> None:
    text = Padded(torch.ones(1, 3, 1), torch.tensor([[True, True, False]]))
    frames = {TEXT: text}
    joint = joint_frames(frames, batch_of(frames, torch.tensor([[-1, 1, 70]])))
    assert joint[TEXT].mask.tolist() == [[False, True]]


def test_text_alone_without_frames_has_its_tokens_for_frames() -> None:
    frames = {TEXT: Padded(torch.ones(1, 3, 1), torch.tensor([[True, True, False]]))}
    assert joint_frames(frames, batch_of(frames, None))[TEXT].mask.tolist() == [[True, True, False]]


def test_text_beside_frames_needs_to_know_where_it_was_spoken() -> None:
    real = torch.ones(1, 3, dtype=torch.bool)
    frames = {TEXT: Padded(torch.ones(1, 3, 1), real), AUDIO: Padded(torch.ones(1, 3, 1), real)}
    with pytest.raises(ValueError, match="needs frame_of_token"):
        joint_frames(frames, batch_of(frames, None))


def test_a_share_without_samples_has_no_rows() -> None:
    module, frames = module_and_frames(0)
    nobody = torch.arange(0)
    hidden, memory = module({m: p.select(nobody) for m, p in frames.items()})
    assert memory.shape == (0, SETTINGS.memory_dim)
    assert hidden[TEXT].shape == (0, SETTINGS.text_hidden_dim)
    text = Padded(torch.zeros(0, 1, 4), torch.zeros(0, 1, dtype=torch.bool))
    joint = joint_frames({TEXT: text}, batch_of({TEXT: text}, torch.zeros(0, 1, dtype=torch.int64)))
    assert joint[TEXT].values.shape == (0, 1, 4)


class OfTensors(nn.Module):
    """The recurrence as a function of tensors alone, as a trace takes it."""

    def __init__(self, module: MemoryFusion) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(DIMS, tensors[::2], tensors[1::2], strict=True)
        hidden, memory = self.module({m: Padded(values, mask) for m, values, mask in pairs})
        return (*hidden.values(), memory)


@pytest.mark.parametrize("length", [1, 4, 6, 11])
def test_a_trace_runs_as_often_as_there_are_frames(length: int) -> None:
    module, example = module_and_frames(0)

    def flat(frames: dict[Modality, Padded]) -> list[Tensor]:
        return [tensor for m in DIMS for tensor in (frames[m].values, frames[m].mask)]

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a trace, and of a shape that is checked
        traced = torch.jit.trace(OfTensors(module), tuple(flat(example)), check_trace=False)
    frames = {}
    for m, dim in DIMS.items():
        mask = torch.rand(2, length) < 0.7
        values = torch.randn(2, length, dim, dtype=torch.float64) * mask.unsqueeze(-1)
        frames[m] = Padded(values, mask)
    *hidden, memory = traced(*flat(frames))
    for row in range(2):
        slow_hidden, slow_memory = slow(module, frames, row)
        torch.testing.assert_close(memory[row].tolist(), slow_memory)
        for m, states in zip(DIMS, hidden, strict=True):
            torch.testing.assert_close(states[row].tolist(), slow_hidden[m])
