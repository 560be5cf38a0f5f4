"""Operations on padded sequences. Padding never leaks: each one sees real frames only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tecafn.core.batch import Padded
from tecafn.core.fast import is_on
from tecafn.core.info import FeatureStatistics
from tecafn.core.tracing import is_traced


def zero_padding(values: Tensor, mask: Tensor) -> Tensor:
    """Frames (B, L, D) with every masked frame set to zero, NaN included."""
    return values.masked_fill(~mask.unsqueeze(-1), 0.0)


def may_hide_frames(mask: Tensor) -> bool:
    """Can this mask hide a frame? A clip alone has no padding, and masks cost attention time.

    Not looked at on a GPU, where the answer would be waited for: True there.

    Example:
        >>> may_hide_frames(torch.tensor([[True, True]]))
        False
        >>> may_hide_frames(torch.tensor([[True, False]]))
        True
    """
    return mask.device.type != "cpu" or not is_on("no_mask") or not bool(mask.all())


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real frames: ``Pool`` of eq. 13.

    Args:
        values: (B, L, D).
        mask: (B, L) bool.

    Returns:
        (B, D); zero where a row has no real frame.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    count = mask.sum(1, keepdim=True).clamp(min=1).to(values.dtype)
    return zero_padding(values, mask).sum(1) / count


def last_real(sequence: Padded) -> Tensor:
    """(B, L, D) to (B, D): the last real frame, wherever it stands; zero where there is none.

    Example:
        >>> frames = Padded(torch.tensor([[[1.0], [3.0], [9.0]]]),
        ...                 torch.tensor([[True, True, False]]))
        >>> last_real(frames).item()
        3.0
    """
    length = sequence.mask.shape[1]
    last = length - 1 - sequence.mask.flip(1).byte().argmax(1)  # index of the last True
    rows = torch.arange(last.shape[0], device=last.device)
    return zero_padding(sequence.values, sequence.mask)[rows, last]


def sinusoidal_positions(length: int, dim: int, *, device: torch.device | None = None) -> Tensor:
    """(length, dim) position codes; any width, odd ones included.

    Source: Vaswani et al. 2017, Sect. 3.5, with two harmless differences: sines and cosines stand
    side by side instead of interleaved, and the slowest angle is t / 10000 exactly (the paper's
    rates stop one step short of it).
    """
    half = (dim + 1) // 2
    rate = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / max(half - 1, 1)))
    angle = torch.arange(length, device=device).unsqueeze(1) * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :dim]


def add_positions(values: Tensor, *, scale: float = 1.0, first: int = 0) -> Tensor:
    """(B, L, D) times ``scale``, plus position codes.

    Args:
        values: (B, L, D).
        scale: Vaswani et al. 2017, Sect. 3.4, scale embeddings by the square root of D; so does
            MulT (Tsai et al. 2019).
        first: the position of the first frame.

    Example:
        >>> add_positions(torch.ones(1, 1, 4), scale=2.0)
        tensor([[[2., 2., 3., 3.]]])
    """
    length, dim = values.shape[-2:]
    positions = sinusoidal_positions(first + length, dim, device=values.device)[first:]
    return (values if scale == 1.0 else values * scale) + positions.to(values.dtype)


class Standardise(nn.Module):
    """Columns to mean 0 and deviation 1 by the training split's statistics, clipped.

    The statistics are buffers: they travel in the checkpoint, so a prediction never depends on the
    data it is made for. (ours: MOSI's audio reaches 376 and one column deviates by 53.)

    Args:
        mean: D column means.
        std: D column deviations; a constant column is only shifted.
        limit: clip to [-limit, limit].
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, limit: float = 10.0) -> None:
        super().__init__()
        deviation = torch.tensor(list(std), dtype=torch.float32)
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("scale", torch.where(deviation > 1e-6, deviation, 1.0))
        self.limit = limit

    @classmethod
    def by(cls, statistics: FeatureStatistics | None, width: int) -> Standardise:
        """By these statistics; without any, columns are only clipped."""
        if statistics is None:
            return cls([0.0] * width, [1.0] * width)
        return cls(statistics.mean, statistics.std)

    def forward(self, values: Tensor) -> Tensor:
        """(B, L, D) to the same shape."""
        return ((values - self.mean) / self.scale).clamp(-self.limit, self.limit)


class MaskedConv1d(nn.Module):
    """Temporal convolution with "same" padding over frames that were zeroed where masked (eq. 5).

    Args:
        in_dim, out_dim: widths.
        kernel_size: odd.
        depthwise: one filter a column (the mappers of eq. 6 and 15); needs in_dim == out_dim.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, kernel_size: int, depthwise: bool = False
    ) -> None:
        super().__init__()
        if kernel_size % 2 != 1:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.conv = nn.Conv1d(
            in_dim,
            out_dim,
            kernel_size,
            padding=kernel_size // 2,
            groups=in_dim if depthwise else 1,
        )

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """(B, L, in_dim) and (B, L) to (B, L, out_dim)."""
        frames = zero_padding(values, mask).transpose(1, 2)  # (B, L, D) -> (B, D, L)
        convolved: Tensor = self.conv(frames)  # (B, D, L) -> (B, out, L)
        return convolved.transpose(1, 2)


def _real_first(mask: Tensor) -> Tensor:
    """(B, L) int64: where each frame goes when real ones move to the front, in their order.

    Example:
        >>> _real_first(torch.tensor([[False, True, False, True]]))
        tensor([[2, 0, 3, 1]])
    """
    real = mask.long()
    hidden = 1 - real
    behind = real.sum(1, keepdim=True) + hidden.cumsum(1) - 1
    return torch.where(mask, real.cumsum(1) - 1, behind)


class SequenceLSTM(nn.Module):
    """LSTM layers over the real frames alone, wherever they stand (TeCaFN, eq. 4).

    A masked frame leaves the state untouched: the real frames are moved to the front, run, and
    moved back.

    Args:
        in_dim: width of a frame.
        hidden_dim: width of a direction's state.
        num_layers: stacked.
        bidirectional: also from the last frame to the first.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, *, num_layers: int = 1, bidirectional: bool = False
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            in_dim, hidden_dim, num_layers, batch_first=True, bidirectional=bidirectional
        )
        self.out_dim = hidden_dim * (2 if bidirectional else 1)

    def forward(self, sequence: Padded) -> tuple[Padded, Tensor]:
        """All states (B, L, out_dim), and the last layer's final state (B, out_dim).

        Of a bidirectional LSTM the final state is that of each direction at its own end, forward
        first. A row without real frames is zero in both.
        """
        values, mask = zero_padding(sequence.values, sequence.mask), sequence.mask
        if values.shape[0] == 0:
            return (
                Padded(values.new_zeros(*mask.shape, self.out_dim), mask),
                values.new_zeros(0, self.out_dim),
            )
        if not self.training and not may_hide_frames(mask):
            states, (final, _) = self.lstm(values)
            return Padded(states, mask), self._last(final)
        place = _real_first(mask).unsqueeze(-1)
        front = torch.zeros_like(values).scatter(1, place.expand_as(values), values)
        lengths = mask.sum(1).clamp(min=1)
        if not self.lstm.bidirectional and is_on("unpacked_lstm"):
            states, last = self._unpacked(front, lengths)
        elif is_traced():  # an export cannot pack
            states, last = self._turned(front, lengths)
        else:
            states, last = self._packed(front, lengths)
        restored = states.gather(1, place.expand_as(states))
        last = last * mask.any(1, keepdim=True)
        return Padded(zero_padding(restored, mask), mask), last

    def _unpacked(self, front: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States and final state, in one direction, of (B, L, in_dim) with real frames first.

        What follows them comes too late to matter, and on a CPU an unpacked LSTM takes a sixth of
        the time of a packed one.
        """
        states, _ = self.lstm(front)
        ends = (lengths - 1).view(-1, 1, 1).expand(-1, 1, self.out_dim)
        return states, states.gather(1, ends).squeeze(1)

    def _packed(self, front: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same in any direction; the second one begins at the last real frame."""
        packed = pack_padded_sequence(front, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed_states, (final, _) = self.lstm(packed)
        states, _ = pad_packed_sequence(
            packed_states, batch_first=True, total_length=front.shape[1]
        )
        return states, self._last(final)

    def _turned(self, front: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same in both directions without packing: each runs forwards, over turned frames."""
        places = torch.arange(front.shape[1], device=front.device).unsqueeze(0)
        ends = lengths.unsqueeze(1)
        turn = torch.where(places < ends, ends - 1 - places, places).unsqueeze(-1)  # (B, L, 1)
        states, hidden = front, self.lstm.hidden_size
        for layer in range(self.lstm.num_layers):
            there = self._one_way(states, f"l{layer}")
            turned = states.gather(1, turn.expand(-1, -1, states.shape[2]))
            back = self._one_way(turned, f"l{layer}_reverse")
            states = torch.cat([there, back.gather(1, turn.expand(-1, -1, hidden))], dim=2)
        last = states[:, :, :hidden].gather(1, (ends - 1).unsqueeze(-1).expand(-1, 1, hidden))
        return states, torch.cat([last.squeeze(1), states[:, 0, hidden:]], dim=1)

    def _one_way(self, frames: Tensor, suffix: str) -> Tensor:
        """The states (B, L, hidden) of one layer in one direction, over frames as they come."""
        weights = [
            getattr(self.lstm, f"{name}_{suffix}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        start = frames.new_zeros(1, frames.shape[0], self.lstm.hidden_size)
        states, _, _ = torch.lstm(
            frames, (start, start), weights, True, 1, 0.0, False, False, batch_first=True
        )
        return states

    def _last(self, final: Tensor) -> Tensor:
        """(B, out_dim) of the final states of all layers and directions."""
        return torch.cat([final[-2], final[-1]], dim=1) if self.lstm.bidirectional else final[-1]


def concatenate_rows(first: Padded, second: Padded) -> Padded:
    """Rows of both, padded to the longer."""
    length = max(first.mask.shape[1], second.mask.shape[1])
    both = [padded.padded_to(length) for padded in (first, second)]
    return Padded(torch.cat([p.values for p in both]), torch.cat([p.mask for p in both]))
