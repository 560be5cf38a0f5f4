"""MFN's recurrence: an LSTM per modality over joint frames, a memory of how their states move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.core.settings import per_modality
from tecafn.core.tracing import is_traced
from tecafn.layers.alignment import tokens_to_frames
from tecafn.layers.dropout import Dropout


def joint_frames(frames: Mapping[Modality, Padded], batch: Batch) -> dict[Modality, Padded]:
    """Every modality's sequence on the frames that a word-aligned dataset shares.

    A text frame is the mean of the token vectors that were spoken in it; a frame in which nothing
    was said is masked. Text that comes without audio and vision, and without frames, has its tokens
    for frames.

    Args:
        frames: (B, L, D) of each modality, tokens for text.
        batch: says in which frame each token was spoken.

    Returns:
        (B, T, D) of each modality, T the longest.

    Raises:
        ValueError: text comes with audio or vision, and nobody says where the tokens were spoken.
    """
    text, spoken = frames.get(Modality.TEXT), batch.frame_of_token
    lengths = [padded.mask.shape[1] for m, padded in frames.items() if m != Modality.TEXT]
    joint = dict(frames)
    if text is not None and spoken is None and lengths:
        raise ValueError(
            "text with audio or vision needs frame_of_token, which a batch of a word-aligned data "
            "set has; got None"
        )
    if text is not None and spoken is not None and is_traced():
        # Whoever calls an export has padded the frames to the last spoken one.
        lengths = lengths[:1] or [text.mask.shape[1]]
        joint[Modality.TEXT] = tokens_to_frames(text, spoken, lengths[0])
        return joint
    if text is not None and spoken is not None:
        last = torch.where(text.mask, spoken, -1)
        lengths.append(int(last.max()) + 1 if last.numel() else 0)
        joint[Modality.TEXT] = tokens_to_frames(text, spoken, max(1, *lengths))
    length = max(padded.mask.shape[1] for padded in joint.values())
    return {m: padded.padded_to(length) for m, padded in joint.items()}


@dataclass(frozen=True, kw_only=True)
class MemoryFusionSettings:
    """Widths and dropouts of ``MemoryFusion``.

    Args:
        text_hidden_dim, audio_hidden_dim, vision_hidden_dim: of the three LSTMs.
        memory_dim: of the memory.
        attention_dim, candidate_dim, retain_dim, update_dim: hidden layer of each small network.
        attention_dropout, candidate_dropout, retain_dropout, update_dropout: in that layer.
    """

    text_hidden_dim: int
    audio_hidden_dim: int
    vision_hidden_dim: int
    memory_dim: int
    attention_dim: int
    candidate_dim: int
    retain_dim: int
    update_dim: int
    attention_dropout: float
    candidate_dropout: float
    retain_dropout: float
    update_dropout: float


def _two_layers(in_dim: int, hidden_dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim), nn.ReLU(), Dropout(dropout), nn.Linear(hidden_dim, out_dim)
    )


class MemoryFusion(nn.Module):
    """System of LSTMs, delta-memory attention and multi-view gated memory.

    At frame t every modality's LSTM takes its frame. The cell states before and after it, of all
    modalities side by side, are weighted by a softmax of a small network of themselves; from the
    weighted states come a candidate (tanh) and, together with the memory, two gates (sigmoid): what
    is retained of the memory and what is added of the candidate.

    A modality without a good frame at t keeps its state; a frame that all modalities lack changes
    nothing, so neither padding nor holes are seen.

    Args:
        dims: width of each modality's frames.
        settings: widths and dropouts.

    Source: MFN, Zadeh et al. 2018, "Memory Fusion Network for Multi-view Sequential Learning"; the
    softmax runs over the entries of the joined states, as in the code that MMSA has of it. Ours:
    keeping the state where a frame is missing; that code's sequences are complete.
    """

    def __init__(self, dims: Mapping[Modality, int], settings: MemoryFusionSettings) -> None:
        super().__init__()
        hidden_dims = per_modality(settings, "hidden_dim")
        self.hidden_dims: dict[Modality, int] = {m: hidden_dims[m] for m in dims}
        self.cells = nn.ModuleDict(
            {m: nn.LSTMCell(dim, self.hidden_dims[m]) for m, dim in dims.items()}
        )
        states_dim = 2 * sum(self.hidden_dims.values())
        self.memory_dim = settings.memory_dim
        gate_dim = states_dim + settings.memory_dim
        self.attention = _two_layers(
            states_dim, settings.attention_dim, states_dim, settings.attention_dropout
        )
        self.candidate = _two_layers(
            states_dim, settings.candidate_dim, settings.memory_dim, settings.candidate_dropout
        )
        self.retain = _two_layers(
            gate_dim, settings.retain_dim, settings.memory_dim, settings.retain_dropout
        )
        self.update = _two_layers(
            gate_dim, settings.update_dim, settings.memory_dim, settings.update_dropout
        )

    @property
    def out_dim(self) -> int:
        """Width of all last hidden states and the memory."""
        return sum(self.hidden_dims.values()) + self.memory_dim

    def _run_cell(self, modality: Modality, frames: Padded) -> tuple[Tensor, Tensor]:
        """The last hidden state (B, H), and the cell states before and after each frame.

        Returns:
            (B, H) and (B, T + 1, H).
        """
        cell = self.cells[modality]
        hidden = frames.values.new_zeros(frames.values.shape[0], self.hidden_dims[modality])
        weights = cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
        steps = _as_a_loop(_cell_steps)
        result: tuple[Tensor, Tensor] = steps(frames.values, frames.mask, hidden, *weights)
        return result

    def _remember(self, attended: Tensor, candidates: Tensor, some: Tensor) -> Tensor:
        """(B, memory_dim) after the last frame, from (B, T, ...) of every frame."""
        memory = attended.new_zeros(attended.shape[0], self.memory_dim)
        if is_traced():
            gates = [
                weight
                for gate in (self.retain, self.update)
                for layer in (gate[0], gate[3])
                for weight in (layer.weight, layer.bias)
            ]
            last: Tensor = _as_a_loop(_memory_steps)(attended, candidates, some, memory, *gates)
            return last
        for step in range(attended.shape[1]):
            seen = torch.cat([attended[:, step], memory], dim=1)
            new = torch.sigmoid(self.retain(seen)) * memory
            new = new + torch.sigmoid(self.update(seen)) * candidates[:, step]
            memory = torch.where(some[:, step].unsqueeze(1), new, memory)
        return memory

    def forward(self, frames: Mapping[Modality, Padded]) -> tuple[dict[Modality, Tensor], Tensor]:
        """Each modality's last hidden state (B, H_m), and the memory (B, memory_dim).

        Args:
            frames: (B, T, D_m) of the modalities the batch has, zero where masked, at least one;
                the LSTM of another stays at zero.
        """
        known = next(iter(frames.values()))
        rows, length = known.mask.shape
        hidden: dict[Modality, Tensor] = {}
        before, after = [], []
        some = torch.zeros_like(known.mask)
        for modality, hidden_dim in self.hidden_dims.items():
            if modality in frames:
                hidden[modality], states = self._run_cell(modality, frames[modality])
                some = some | frames[modality].mask
            else:
                hidden[modality] = known.values.new_zeros(rows, hidden_dim)
                states = known.values.new_zeros(rows, length + 1, hidden_dim)
            before.append(states[:, :-1])
            after.append(states[:, 1:])
        joined = torch.cat([*before, *after], dim=2)  # (B, T, 2 * sum of H)
        attended = joined * self.attention(joined).softmax(dim=2)
        candidates = torch.tanh(self.candidate(attended))
        return hidden, self._remember(attended, candidates, some)


def _as_a_loop(steps: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; in an export one whose loop runs as often as there are frames."""
    # A trace alone would write down the steps of its example.
    return torch.jit.script(steps) if is_traced() else steps


def _cell_steps(
    values: Tensor,
    mask: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> tuple[Tensor, Tensor]:
    """An LSTM cell over (B, T, D): last hidden state, and T + 1 cell states, (B, T + 1, H)."""
    state, states = hidden, [hidden]
    for step in range(values.shape[1]):
        real = mask[:, step].unsqueeze(1)
        new_hidden, new_state = torch.lstm_cell(
            values[:, step], [hidden, state], weight_ih, weight_hh, bias_ih, bias_hh
        )
        hidden = torch.where(real, new_hidden, hidden)
        state = torch.where(real, new_state, state)
        states.append(state)
    return hidden, torch.stack(states, dim=1)


def _memory_steps(
    attended: Tensor,
    candidates: Tensor,
    some: Tensor,
    memory: Tensor,
    retain_1: Tensor,
    retain_bias_1: Tensor,
    retain_2: Tensor,
    retain_bias_2: Tensor,
    update_1: Tensor,
    update_bias_1: Tensor,
    update_2: Tensor,
    update_bias_2: Tensor,
) -> Tensor:
    """``MemoryFusion._remember`` without dropout, of weights; a scripted loop calls no module."""
    for step in range(attended.shape[1]):
        seen = torch.cat([attended[:, step], memory], dim=1)
        retain = torch.relu(functional.linear(seen, retain_1, retain_bias_1))
        update = torch.relu(functional.linear(seen, update_1, update_bias_1))
        new = torch.sigmoid(functional.linear(retain, retain_2, retain_bias_2)) * memory
        gate = torch.sigmoid(functional.linear(update, update_2, update_bias_2))
        new = new + gate * candidates[:, step]
        memory = torch.where(some[:, step].unsqueeze(1), new, memory)
    return memory
